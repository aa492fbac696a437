"""Pickles from the internet, read without running what is in them.

A pickle is a program. Released annotation files and model weights need only a small part of its language:
containers, numbers, strings and NumPy arrays. :func:`read_pickle` runs that part alone. The methods below replace
the array constructors that a file names, so that code of NumPy and Python gets checked arguments only.
"""

from __future__ import annotations

import io
import pickle
import re
from os import PathLike

import numpy as np

from .errors import DataError
from .files import read_bytes, refuse_packed

__all__ = ["read_pickle", "load_pickle"]

# Booleans, integers, floats, complex numbers, bytes and text of a fixed length; neither objects nor records.
_DTYPE_CODE = re.compile(r"[<>|=]?([biufc][0-9]{1,2}|[SU][0-9]{1,6})")
_LATIN_1 = {"latin1", "latin-1", "iso-8859-1"}


class _Refused(Exception):
    """Content that these files have no reason to hold."""


class _DType:
    """Stand-in for ``numpy.dtype`` while a pickle is read: a code and, once set, a byte order."""

    def __init__(self, code, align=False, copy=False):
        code = code.decode("latin1") if isinstance(code, bytes) else code
        if not isinstance(code, str) or not _DTYPE_CODE.fullmatch(code):
            raise _Refused(f"arrays of type {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state):
        byte_order = state[1]
        byte_order = byte_order.decode("latin1") if isinstance(byte_order, bytes) else byte_order
        if byte_order not in ("<", ">", "|", "="):
            raise _Refused(f"the byte order {byte_order!r}")
        if len(state) > 4 and any(part is not None for part in state[2:5]):
            raise _Refused("arrays of records")
        self.dtype = self.dtype.newbyteorder(byte_order)


class _Array:
    """Stand-in for ``numpy.ndarray`` while a pickle is read, exchanged for the array at the end."""

    value: np.ndarray | None = None

    def __setstate__(self, state):
        _, shape, dtype, fortran_order, data = state
        self.value = _array(data, dtype, shape, "F" if fortran_order else "C")


def _array(data, dtype, shape, order) -> np.ndarray:
    if not isinstance(dtype, _DType):
        raise _Refused("an array without a type")
    data = data.encode("latin1") if isinstance(data, str) else data
    if not isinstance(data, bytes | bytearray):
        raise _Refused("an array of objects")
    shape = tuple(int(side) for side in (shape if isinstance(shape, tuple) else (shape,)))
    return np.frombuffer(bytes(data), dtype=dtype.dtype).reshape(shape, order=order).copy(order=order)


class _RestrictedUnpickler(pickle._Unpickler):
    # The Python unpickler and not the C one, which allocates whatever a damaged file's memo index asks for.

    def __init__(self, file):
        super().__init__(file, encoding="latin1")  # latin1: arrays written by Python 2
        numpy_cores = ("numpy.core", "numpy._core")
        self._allowed = {
            ("numpy", "ndarray"): "numpy.ndarray",
            ("numpy", "dtype"): _DType,
            ("_codecs", "encode"): self._encode,
            **{(f"{core}.multiarray", "_reconstruct"): self._reconstruct for core in numpy_cores},
            **{(f"{core}.multiarray", "scalar"): self._scalar for core in numpy_cores},
            **{(f"{core}.numeric", "_frombuffer"): self._from_buffer for core in numpy_cores},
            **{(module, "set"): set for module in ("builtins", "__builtin__")},
            **{(module, "bytes"): self._no_bytes for module in ("builtins", "__builtin__")},
        }

    def find_class(self, module, name):
        try:
            return self._allowed[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None

    def persistent_load(self, pid):
        raise _Refused("a reference to an object outside the file")

    def get_extension(self, code):
        raise _Refused(f"the extension code {code}")

    def _reconstruct(self, kind, shape, code):
        if kind != "numpy.ndarray":
            raise _Refused(f"arrays of the class {kind!r}")
        return _Array()

    def _scalar(self, dtype, data):
        return _array(data, dtype, (1,), "C")[0]

    def _from_buffer(self, data, dtype, shape, order):
        array = _Array()
        array.value = _array(data, dtype, shape, order)
        return array

    def _encode(self, text, encoding):
        if encoding not in _LATIN_1:
            raise _Refused(f"text in the encoding {encoding!r}")
        return text.encode("latin1")

    def _no_bytes(self):
        return b""  # as protocols 0 to 2 write it


def _plain(value, done: dict):
    """``value`` with arrays in place of their stand-ins; anything that is not data is refused.

    ``done`` maps the identity of a part to its result, so that what a file refers to many times is made once.
    """
    if id(value) not in done:
        done[id(value)] = _plain_value(value, done)
    return done[id(value)]


def _plain_value(value, done: dict):
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | bytearray | np.generic):
        return value
    if isinstance(value, _Array) and value.value is not None:
        return value.value
    if isinstance(value, dict):
        return {_plain(key, done): _plain(item, done) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return type(value)(_plain(item, done) for item in value)
    raise _Refused(f"a bare {type(value).__name__.lstrip('_')}")


def load_pickle(data: bytes, name: str | PathLike):
    """Load a pickle of plain data.

    Args:
        data: the whole file.
        name: the file's name, for the error.

    Returns:
        dict, list, tuple, set, None, bool, numbers, str, bytes, NumPy arrays and scalars, nested in any way.

    Raises:
        DataError: the pickle is packed, damaged or holds anything else.
    """
    refuse_packed(name, data)
    try:
        return _plain(_RestrictedUnpickler(io.BytesIO(data)).load(), {})
    except _Refused as error:
        raise DataError(name, f"refused: the pickle asks for {error}; only plain data is read") from None
    except Exception as error:  # a damaged pickle can fail in any way at all
        reason = str(error) or "it ends too early"
        raise DataError(name, f"not a readable pickle ({type(error).__name__}: {reason})") from None


def read_pickle(path: str | PathLike):
    """Read a file that is a pickle of plain data; see :func:`load_pickle`.

    Raises:
        DataError: the file is missing, empty or damaged, or holds anything but plain data.
    """
    return load_pickle(read_bytes(path), path)

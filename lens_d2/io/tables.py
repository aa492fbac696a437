"""CSV tables of datasets, annotations and predictions."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from os import PathLike

import numpy as np
import pandas as pd

from .errors import DataError
from .files import read_bytes, refuse_packed

LARGEST = 1e40  # magnitude of numbers in files: beyond float32's, and products of six stay finite
# Columns of 3D boxes: of the volume frame, and of the world.
VOXEL_COLUMNS = (
    "x1_pixel_edge",
    "y1_pixel_edge",
    "z1_first_slice",
    "x2_pixel_edge",
    "y2_pixel_edge",
    "z2_last_slice",
)
WORLD_COLUMNS = tuple(f"lps_{axis}_{end}_mm" for end in ("min", "max") for axis in "xyz")


def read_table(
    path: str | PathLike, columns: Sequence[str] = (), numbers: Sequence[str] = (), strip: bool = True
) -> pd.DataFrame:
    """A CSV file with a header, without its blank lines; the row with index i is line i + 2 of the file.

    Args:
        path: the file.
        columns: that it must have; all but ``numbers`` are text, "" for a cell that is not there.
        numbers: further columns that it must have, as float64, all finite.
        strip: whether white space around a cell's text is left out.

    Raises:
        DataError: the file is missing, empty, no such table or ragged, lacks a column or has one twice, or a cell
            is no finite number.
    """
    data = read_bytes(path)
    refuse_packed(path, data)
    head = data.partition(b"\n")[0]
    if b";" in head and b"," not in head:
        raise DataError(path, "its cells are separated by semicolons: save it with commas, and points in numbers")
    options = {"dtype": str, "keep_default_na": False, "index_col": False, "skip_blank_lines": False}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(io.BytesIO(data), **options, encoding="utf-8-sig").fillna("")
    except (ValueError, pd.errors.ParserWarning) as error:  # pandas' own errors and those of decoding
        raise DataError(path, f"not a table of comma-separated values ({error})") from None
    header = pd.read_csv(io.BytesIO(data), **options, encoding="utf-8-sig", header=None, nrows=1)
    named = header.iloc[0].dropna().str.strip()  # pandas gives the second of two columns another name
    twice = named[named.duplicated() & (named != "")]
    if len(twice):
        raise DataError(path, f"two columns {twice.iloc[0]}")
    table.columns = table.columns.str.strip()
    absent = [column for column in (*columns, *numbers) if column not in table]
    if absent:
        raise DataError(path, f"no column {', '.join(absent)}; there are {', '.join(table.columns)}")
    table = table[(table != "").any(axis=1)]
    if strip:
        table = table.apply(lambda cells: cells.str.strip())
    for column in numbers:
        table[column] = finite_numbers(path, table[column], table[list(columns)])
    return table


def finite_numbers(path: str | PathLike, cells: pd.Series, names: pd.DataFrame) -> np.ndarray:
    """(n,) float64 of a column of text.

    Args:
        path: file of the column, for errors.
        cells: the column, with the index of :func:`read_table`.
        names: columns that tell in an error which row it is.

    Raises:
        DataError: a cell is not a finite number up to ``LARGEST``.
    """
    try:
        values = cells.to_numpy(dtype=object).astype(np.float64)  # as Python's float, correct to the last bit
    except ValueError:
        values = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64)
    values = np.where(cells.str.contains("_", regex=False), np.nan, values)  # Python takes 1_0 for 10
    bad = np.flatnonzero(~(np.abs(values) <= LARGEST))
    if len(bad):
        line, entry = cells.index[bad[0]] + 2, ", ".join(names.iloc[bad[0]])
        where = f"line {line} ({entry})" if entry else f"line {line}"
        fault = number_fault(values[bad[0]])
        raise DataError(path, f"{where}: {cells.name} is {cells.iloc[bad[0]]!r}, {fault}")
    return values


def read_number(text: str) -> float:
    """Read the number of a cell; NaN or an infinity may stand there.

    Raises:
        ValueError: it is none, or above ``LARGEST``.
    """
    value = float(text)
    if "_" in text or LARGEST < abs(value) < np.inf:  # Python takes 1_0 for 10
        raise ValueError(f"{text!r} is not a number up to {LARGEST:g}")
    return value


def number_fault(value: float) -> str:
    """The fault of a number that is not within ``LARGEST``, in words."""
    return f"too large (at most {LARGEST:g})" if np.isfinite(value) else "not a finite number"


def read_rows(path: str | PathLike, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """The cells of some columns of a CSV file, as text.

    Args:
        path: the file.
        columns: that it must have; others are not read.

    Returns:
        (line in the file, {column: text}) of every row that has any, assuming that no cell has a line break in it.

    Raises:
        DataError: as of :func:`read_table`.
    """
    table = read_table(path, columns)[list(columns)]
    rows = zip(table.index + 2, table.to_dict("records"), strict=True)
    return [(int(line), row) for line, row in rows if any(row.values())]

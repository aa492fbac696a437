"""Reading whole files, writing whole ones or nothing, and one run in a folder at a time."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import DataError, WriteError

LOCK = ".lock"
MAX_NAME = 150  # bytes of a name; file systems allow 255, with what is added to it
OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


@contextmanager
def write_errors(path: str | os.PathLike, below: str | os.PathLike | None = None) -> Iterator[None]:
    """Turn the operating system's error about a failed write into one line.

    Args:
        path: the file or folder that the block writes, which the error names.
        below: a folder, ``path`` by default; errors that name a file elsewhere pass unchanged, as do those that
            name none and are not about a disk.

    Raises:
        WriteError: the disk is full or read-only, a quota is reached, permission is denied.
    """
    try:
        yield
    except OSError as error:
        named = error.filename
        if named is None and error.errno not in OF_DISKS:
            raise
        if named is not None and not Path(os.fsdecode(named)).is_relative_to(path if below is None else below):
            raise
        raise WriteError(path, f"cannot be written: {error.strerror or error}") from error


@contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """Temporary path beside ``path`` to write to, renamed at the end: nobody ever sees half a file.

    It has the ending of ``path``. If the block fails, nothing is left, and a former file stays.

    Raises:
        WriteError: the file cannot be written.
    """
    path = Path(path)
    with write_errors(path, below=path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def read_bytes(path: str | os.PathLike) -> bytes:
    """Read a file.

    Raises:
        DataError: it is missing, or has nothing but white space.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from None
    if not data.strip():
        raise DataError(path, "the file is empty")
    return data


def refuse_packed(path: str | os.PathLike, data: bytes) -> None:
    """Raise a DataError if the content of a file is packed by gzip."""
    if data.startswith(b"\x1f\x8b"):
        raise DataError(path, "packed by gzip: unpack it (gunzip) and name the file that comes out")


def write_whole(path: str | os.PathLike, data: bytes | memoryview) -> Path:
    """Write ``data`` by way of :func:`whole_file`."""
    with whole_file(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def check_writable(folder: str | os.PathLike) -> None:
    """Make a folder and a file in it, and remove them again.

    Raises:
        WriteError: that cannot be done.
    """
    place = Path(folder).absolute()
    with write_errors(folder, below=place.anchor):
        new = [each for each in (place, *place.parents) if not each.exists()]
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=place, prefix="."):
            pass
        for each in new:
            each.rmdir()


def visible_files(root: Path) -> list[Path]:
    """The file itself, or all files below a folder, sorted; without hidden ones and those in hidden folders.

    Raises:
        DataError: a folder cannot be read.
    """
    if root.is_file():
        return [root]
    return sorted(file for _, files in visible_folders(root) for file in files)


def visible_folders(
    root: Path,
    leave_out: str | os.PathLike | None = None,
    on_error: Callable[[DataError], None] | None = None,
) -> Iterator[tuple[Path, list[Path]]]:
    """Every folder from the root down and its files, sorted, without hidden ones; those behind links, too.

    A folder to which several paths lead is searched once, by the first of them.

    Args:
        root: a folder.
        leave_out: a folder below it that is not searched.
        on_error: takes the error of a folder that cannot be read, and the others are searched; None: it is raised.

    Raises:
        DataError: a folder cannot be read.
    """

    def fail(error: OSError) -> None:
        fault = DataError(os.fsdecode(error.filename), f"cannot be read: {error.strerror}")
        if on_error is None:
            raise fault from None
        on_error(fault)

    seen = set() if leave_out is None else {os.path.realpath(leave_out)}
    for name, folders, files in os.walk(root, onerror=fail, followlinks=True):
        real = os.path.realpath(name)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(folder for folder in folders if folder[0] != ".")
        yield Path(name), sorted(Path(name, file) for file in files if file[0] != ".")


@contextmanager
def only_run_in(folder: str | os.PathLike) -> Iterator[None]:
    """Keep a second run out of a folder while the block is running.

    The lock is the operating system's, on the file ``.lock`` there, so that a killed run leaves none behind.

    Raises:
        DataError: another run is using the folder.
        WriteError: the folder cannot be written.
    """
    with write_errors(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        lock = FileLock(Path(folder) / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            fault = "another run is writing here: wait for its end, or give another folder to write to"
            raise DataError(folder, fault) from None
    try:
        yield
    finally:
        lock.release()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

"""Opening the files of an evaluation: pickles, JSON and CSV, checked, with the entry at fault in every error."""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ..io.errors import DataError
from ..io.pickles import load_pickle

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
_SLICES = re.compile(r"_(\d+)-(\d+)$")


def read_bytes(path) -> bytes:
    """The file's content; DataError where it is missing or empty."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from None
    if not data.strip():
        raise DataError(path, "the file is empty")
    return data


def read_volumes(path, split: str | None = None, levels_expected: bool = True) -> dict:
    """The entries of a file by volume.

    Args:
        path: a pickle, or JSON of the same shape: {volume: entry} or {"val"/"test": {volume: entry}}.
        split: the level to take where the file has levels.
        levels_expected: whether to say so where a split is asked for and the file has no levels.

    Returns:
        {volume: entry}; a trailing ".annot" of a name is dropped.

    Raises:
        DataError: missing, empty, damaged or unsafe file; no such level; a volume twice; no volume at all.
    """
    content = _load(path)
    volumes = _choose_split(path, content, split)
    if split and levels_expected and volumes is content:
        logger.warning("%s has no levels such as %r; all of it is taken", path, split)
    entries: dict = {}
    for name, entry in volumes.items():
        if not isinstance(name, str):
            raise DataError(path, f"volume {name!r}: names are text, this one is {type(name).__name__}")
        plain = name.removesuffix(".annot")
        if plain in entries:
            raise DataError(path, f"volume {plain} appears twice (with and without .annot)")
        entries[plain] = entry
    return entries


def _load(path):
    data = read_bytes(path)
    is_json = data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[") or Path(path).suffix.lower() == ".json"
    if not is_json:
        return load_pickle(data, path)
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_unique_keys)
    except _Duplicate as error:
        raise DataError(path, f"the entry {error} appears twice") from None
    except (ValueError, RecursionError) as error:
        raise DataError(path, f"not readable as JSON ({error})") from None


class _Duplicate(Exception):
    pass


def _unique_keys(pairs: list) -> dict:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise _Duplicate(counts.most_common(1)[0][0])
    return entries


def _choose_split(path, content, split: str | None) -> Mapping:
    if not isinstance(content, Mapping):
        raise DataError(path, f"holds a {type(content).__name__} where a table of volumes belongs")
    levels = [key for key in content if key in SPLITS]
    if not levels:
        return content
    if len(levels) < len(content):
        raise DataError(path, f"holds volumes beside the levels {', '.join(levels)}")
    if split is None and len(levels) > 1:
        raise DataError(path, f"has the levels {', '.join(levels)}: choose one with --split")
    if split is not None and split not in levels:
        raise DataError(path, f"has no level {split!r}, only {', '.join(levels)}")
    volumes = content[split or levels[0]]
    if not isinstance(volumes, Mapping):
        raise DataError(path, f"level {split or levels[0]}: not a table of volumes")
    return volumes


def number_rows(path, where: str, rows, columns: tuple[int, ...]) -> np.ndarray:
    """(n, c) float64 of a list of n rows of numbers, or of an array.

    Args:
        where: names the entry in an error, for example "volume 000001_01_01_001-020, lesion".
        columns: the lengths that a row may have; without rows, c is the first of them.
    """
    if not isinstance(rows, np.ndarray | list | tuple):
        raise DataError(path, f"{where}s: a {type(rows).__name__} where a list of boxes belongs")
    if len(rows) == 0:
        return np.zeros((0, columns[0]))
    try:
        array = np.asarray(rows)
    except (ValueError, OverflowError):
        array = np.zeros(0, dtype=object)
    if array.dtype.kind in "iuf" and array.ndim == 2 and array.shape[1] in columns:
        return array.astype(np.float64)
    for number, row in enumerate(rows):
        row = np.asarray(row, dtype=object)
        if row.ndim != 1 or len(row) not in columns:
            raise DataError(path, f"{where} {number}: {columns[0]} numbers belong here")
        for value in row:
            if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
                raise DataError(path, f"{where} {number}: {value!r} is not a number")
    raise DataError(path, f"{where}s: rows of different lengths")


def check_entries(path, kind: str, volumes, volume: np.ndarray, row: np.ndarray, faults: dict) -> None:
    """Raises the first fault of a table of boxes or points.

    Args:
        kind: "lesion" or "detection". volumes: names. volume: (n,) index of each row's volume.
        row: (n,) the row's number in its volume, as the file counts.
        faults: {what is wrong: (n,) bool}.
    """
    for fault, bad in faults.items():
        if bad.any():
            first = int(np.argmax(bad))
            raise DataError(path, f"volume {volumes[volume[first]]}, {kind} {row[first]}: {fault}")


def slice_range(name: str) -> tuple[int, int] | None:
    """First and last slice in a sub-volume's name, ``<series>_<first>-<last>``; None where it has none."""
    found = _SLICES.search(name)
    return (int(found[1]), int(found[2])) if found else None


def match_volumes(path, names, volumes: list[str], of_truth: str) -> dict[str, int]:
    """{name: index into ``volumes``} of a prediction file's volumes; empty for a detector that found nothing.

    Raises:
        DataError: no volume in common, or one that the truth does not have.
    """
    index = {name: number for number, name in enumerate(volumes)}
    unknown = [name for name in names if name not in index]
    if names and len(unknown) == len(names):
        raise DataError(path, f"has no volume in common with {of_truth} (for example {unknown[0]})")
    if unknown:
        raise DataError(path, f"volume {unknown[0]}: {of_truth} does not have it")
    return {name: index[name] for name in names}


def warn_of_empty(path, volumes: list[str], in_file: int, volume: np.ndarray) -> None:
    """Says how many volumes have no predictions. volume: (n,) the volume of each detection."""
    empty = len(volumes) - len(np.unique(volume))
    if empty:
        logger.warning(
            "%s: %d of %d volumes have no predictions and count as empty (%d of them are not in the file)",
            path,
            empty,
            len(volumes),
            len(volumes) - in_file,
        )


def read_table(path, text: tuple[str, ...], numbers: tuple[str, ...]) -> pd.DataFrame:
    """The named columns of a CSV file, ids as text and numbers as float64, all finite.

    Raises:
        DataError: missing, empty or ragged file; a column that is not there; a cell that is not a finite number.
    """
    data = read_bytes(path)
    try:
        header = data.decode("utf-8-sig").splitlines()[0]
    except UnicodeDecodeError:
        raise DataError(path, "not a text file") from None
    there = [column.strip() for column in header.split(",")]
    absent = [column for column in (*text, *numbers) if column not in there]
    if absent:
        raise DataError(path, f"the column {absent[0]} is missing; there are {', '.join(there)}")
    table = _parse_csv(path, numbers)
    table.columns = there
    for column in numbers:
        bad = ~np.isfinite(table[column].to_numpy())
        if bad.any():
            row = table[bad].iloc[0]
            entry = ", ".join(str(row[key]) for key in text)
            raise DataError(path, f"line {row.name + 2} ({entry}): {column} is {row[column]}")
    for column in text:
        table[column] = table[column].str.strip()
    return table


def _parse_csv(path, numbers: tuple[str, ...]) -> pd.DataFrame:
    options = {"dtype": str, "keep_default_na": False, "index_col": False, "encoding": "utf-8-sig"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(path, **options, skip_blank_lines=False)
    except (ValueError, pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise DataError(path, f"not readable as CSV ({error})") from None
    table = table[~(table.fillna("") == "").all(axis=1)]
    for column in table.columns:
        if column.strip() in numbers:
            table[column] = _floats(path, table[column])
    return table


def _floats(path, cells: pd.Series) -> np.ndarray:
    try:
        return cells.to_numpy(dtype=object).astype(np.float64)
    except (ValueError, TypeError):
        for line, cell in cells.items():
            try:
                float(cell)
            except (ValueError, TypeError):
                raise DataError(path, f"line {line + 2}: {cells.name} is {cell!r}, not a number") from None
        raise

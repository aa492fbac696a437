"""Tables that came with a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

import pandas as pd

from .errors import DataError


def read_rows(path: str | PathLike, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """The cells of a CSV file with a header, as they are written.

    Args:
        path: the file.
        columns: that it must have; others are not read.

    Returns:
        (line in the file, {column: text}) of every row, assuming that no cell has a line break in it.

    Raises:
        DataError: the file is missing, is no such table, or lacks a column.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skip_blank_lines=False)
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from None
    except ValueError as error:  # pandas' own errors and those of decoding
        raise DataError(path, f"not a table of comma-separated values ({error})") from None
    absent = [column for column in columns if column not in table.columns]
    if absent:
        raise DataError(path, f"no column {', '.join(absent)}")
    cells = table[list(columns)].fillna("").itertuples(index=False, name=None)
    rows = [(line, dict(zip(columns, texts, strict=True))) for line, texts in enumerate(cells, start=2)]
    return [(line, row) for line, row in rows if any(row.values())]

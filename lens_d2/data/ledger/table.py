"""The ledger: a table with a row for each mined 2D box, as Parquet or CSV.

Mining writes it, people may review and edit it, and every row is checked when it is read.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, get_type_hints

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from ...io.errors import DataError
from ...io.files import whole_file
from ...io.tables import read_table

logger = logging.getLogger(__name__)

# Meaning of a row: a missing annotation that is used as one; a region that training ignores; known not to be a
# lesion; and a radiologist's verdicts: a lesion; not one (a hard negative, see lens_d2.data.ledger.merge); cannot
# say (ignored).
LEDGER_STATUSES = ("annotation", "uncertain", "hard_negative", "accepted", "rejected", "unsure")
ROWS_PER_GROUP = 65536
LEDGER, LEDGER_CSV = "ledger.parquet", "ledger.csv"  # the files of a mining


class LedgerRow(NamedTuple):
    """One mined 2D box.

    Attributes:
        id: unique name of the row.
        volume: name of the sub-volume.
        slice: from 0 in the sub-volume.
        x1, y1, x2, y2: XYXY pixel edges, in the volume frame.
        lesion: id of the 3D lesion; that of a given annotation if the row continues it.
        strategy: name of the strategy that mined it.
        round: of mining, from 1.
        score: of the detector, or NaN.
        distance: between embeddings, or NaN.
        annotation: id of the annotation by which it was found, or "".
        status: one of :data:`LEDGER_STATUSES`.
        precision: estimated share of lesions among findings like this one, in [0, 1], or NaN; the weight of a
            mined lesion in the losses.
        disagreement: of two opinions on the lesion, in [0, 1], or NaN: between the scores of the dataset's own
            expert and the best other one, or of detector and classifier.
        expert: of the other datasets', the one that agrees most, or "".
    """

    id: str
    volume: str
    slice: int
    x1: float
    y1: float
    x2: float
    y2: float
    lesion: str
    strategy: str
    round: int
    score: float
    distance: float
    annotation: str
    status: str
    precision: float = np.nan
    disagreement: float = np.nan
    expert: str = ""


def continues_given(rows: pd.DataFrame) -> pd.Series:
    """Whether each row of a ledger adds a box to a given lesion; other lesions are the ledger's alone."""
    return rows["lesion"] == rows["annotation"]


_TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64()}
SCHEMA = pa.schema([(name, _TYPES[kind]) for name, kind in get_type_hints(LedgerRow).items()])
TEXTS = [field.name for field in SCHEMA if field.type == pa.string()]
NUMBERS = [field.name for field in SCHEMA if field.type != pa.string()]
WHOLE = [field.name for field in SCHEMA if field.type == pa.int64()]
NEEDED = tuple(name for name in LedgerRow._fields if name not in LedgerRow._field_defaults)  # of a file's columns
SHARES = ("score", "precision", "disagreement")  # in [0, 1]
MAY_BE_MISSING = (*SHARES, "distance")
LARGEST_WHOLE = 10**9
BOX = ["x1", "y1", "x2", "y2"]


def slice_boxes_of(rows: pd.DataFrame, missing_score: float | None = None) -> np.ndarray:
    """Slice boxes of a ledger's rows, in their order.

    Args:
        rows: k of them.
        missing_score: stands for a score that is missing; None: no scores.

    Returns:
        (k, 5) slice, x1, y1, x2, y2; or (k, 6) with the score.
    """
    if missing_score is None:
        return rows[["slice", *BOX]].to_numpy(dtype=float)
    return rows[["slice", *BOX, "score"]].fillna({"score": missing_score}).to_numpy(dtype=float)


def to_table(rows: Iterable[LedgerRow] | pd.DataFrame) -> pa.Table:
    """Convert rows to an Arrow table, in which NaN is null."""
    if isinstance(rows, pd.DataFrame):
        return pa.Table.from_pandas(rows[SCHEMA.names], SCHEMA, preserve_index=False)
    columns = list(zip(*rows, strict=True)) or [()] * len(SCHEMA)
    arrays = [
        pa.array(column, field.type, from_pandas=True) for column, field in zip(columns, SCHEMA, strict=True)
    ]
    return pa.table(arrays, schema=SCHEMA)


def read_ledger(
    path: str | os.PathLike, records: Sequence[dict] | None = None, exact: bool = False
) -> pd.DataFrame:
    """Read a ledger, Parquet or CSV by its name, and check it.

    Args:
        path: of the ledger.
        records: of all sub-volumes that it may name; None: only what needs no dataset is checked.
        exact: whether a column that a ledger does not have is refused, as it would be lost where the ledger is
            written again; otherwise a warning says that it is left out.

    Returns:
        the columns of :class:`LedgerRow`; those of :data:`MAY_BE_MISSING` may be NaN.

    Raises:
        DataError: the file is absent, is no table, or has other columns. Or a row has something else than a
            number, a box without area, an unknown status or no name, or contradicts another row; names the row. Or
            the ledger contradicts the dataset, see :func:`check_ledger`.
    """
    path = Path(path)
    if path.suffix not in _READERS:
        raise DataError(path, f"a ledger is a file with the ending {' or '.join(_READERS)}")
    if not path.is_file():
        raise DataError(path, "cannot be read: No such file")
    try:
        table = _READERS[path.suffix](path)
    except DataError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
        raise DataError(path, f"not readable as a ledger ({reason[:160]})") from None
    if others := [str(name) for name in table if name not in SCHEMA.names]:
        fault = f"has unknown columns: {', '.join(others)}"
        if exact:
            raise DataError(path, f"{fault}; they would be lost")
        logger.warning("%s: %s; they are left out", path, fault)
    absent = [name for name in SCHEMA.names if name not in table]
    if needed := [name for name in absent if name in NEEDED]:
        raise DataError(path, f"no column {', '.join(needed)}")
    table = table.assign(**{name: LedgerRow._field_defaults[name] for name in absent})
    ledger = _checked(table[SCHEMA.names], path)
    if records is not None:
        check_ledger(ledger, records, path)
    return ledger.reset_index(drop=True)


_READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".parquet": lambda path: pq.read_table(path, page_checksum_verification=True).to_pandas(),
    ".csv": lambda path: read_table(path, NEEDED, strip=False),
}


def write_ledger(path: str | os.PathLike, parts: Iterable[pa.Table]) -> int:
    """Write a ledger, complete or not at all, with no more than a few parts in memory.

    Args:
        path: Parquet or CSV by its name.
        parts: tables with the columns of :data:`SCHEMA`, in order, as :func:`to_table` gives them.

    Returns:
        the number of rows.

    Raises:
        DataError: the name has another ending.
    """
    if (ending := Path(path).suffix) not in _WRITERS:
        raise DataError(path, f"a ledger ends in {' or '.join(_WRITERS)}, not in {ending!r}")
    rows = 0
    with whole_file(path) as temporary, _WRITERS[temporary.suffix](str(temporary), SCHEMA) as writer:
        for table in _grouped(parts):
            writer.write_table(table)
            rows += len(table)
    return rows


_WRITERS = {
    ".parquet": lambda path, schema: pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True),
    ".csv": pyarrow.csv.CSVWriter,
}


def _grouped(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of the size of a file's row groups."""
    waiting, rows = [], 0
    for part in parts:
        waiting.append(part)
        rows += len(part)
        if rows >= ROWS_PER_GROUP:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting, rows = [], 0
    if rows or not waiting:
        yield pa.concat_tables([SCHEMA.empty_table(), *waiting]).combine_chunks()


def _checked(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The table with its types; DataError for the first row at fault."""
    checked = {}
    for name in TEXTS:
        checked[name] = table[name].fillna("").astype(str)
    for name in NUMBERS:
        text = table[name].replace(["", "nan"], np.nan) if name in MAY_BE_MISSING else table[name]
        number = pd.to_numeric(text, errors="coerce").astype(float)
        given = text.notna() if name in MAY_BE_MISSING else True
        _refuse(path, table, ~np.isfinite(number) & given, partial(_no_number, name))
        if name in WHOLE:
            broken = (number % 1 != 0) | (number.abs() > LARGEST_WHOLE)
            _refuse(path, table, broken, partial(_not_whole, name))
            number = number.astype(np.int64)
        checked[name] = number
    checked = pd.DataFrame(checked)[SCHEMA.names]
    for name in ("id", "volume", "lesion"):
        _refuse(path, checked, checked[name] == "", partial(_absent, name))
    unknown = ~checked["status"].isin(LEDGER_STATUSES)
    _refuse(
        path, checked, unknown, lambda row: f"the status {row['status']!r} is none of {', '.join(LEDGER_STATUSES)}"
    )
    flat = (checked["x1"] >= checked["x2"]) | (checked["y1"] >= checked["y2"])
    _refuse(path, checked, flat, lambda row: f"the box {_text(row)} has no area")
    for name in SHARES:
        out = (checked[name] < 0) | (checked[name] > 1)
        _refuse(path, checked, out, partial(_no_share, name))
    _refuse_contradictions(path, checked)
    return checked


def _refuse_contradictions(path: Path, table: pd.DataFrame) -> None:
    """DataError for a row that contradicts an earlier one."""
    _refuse(path, table, table.duplicated("id"), lambda row: f"the id {row['id']!r} stands in an earlier row too")
    _refuse(
        path,
        table,
        table.duplicated(["lesion", "slice"]),
        lambda row: f"the lesion {row['lesion']!r} has a box on slice {row['slice']} in an earlier row too",
    )
    first = table.groupby("lesion", sort=False)["volume"].transform("first")
    _refuse(
        path,
        table,
        table["volume"] != first,
        lambda row: f"the lesion {row['lesion']!r} is in another sub-volume in an earlier row",
    )


def check_ledger(ledger: pd.DataFrame, records: Sequence[dict], path: str | os.PathLike) -> None:
    """Check a ledger against the dataset into which it is to be merged.

    Args:
        ledger: as :func:`read_ledger` gives it.
        records: of all sub-volumes that it may name.
        path: of the ledger, named by errors.

    Raises:
        DataError: a row names an unknown sub-volume or annotation, a slice outside the sub-volume, a box outside
            the image, or a given lesion of another sub-volume or with a box on the slice; names the row.
    """
    sizes = {r["volume"]: (r["num_slices"], r.get("width", np.inf), r.get("height", np.inf)) for r in records}
    unknown = ~ledger["volume"].isin(sizes)
    _refuse(path, ledger, unknown, lambda row: f"the sub-volume {row['volume']!r} is not in the dataset")
    size = np.array([sizes[v] for v in ledger["volume"]], dtype=float).reshape(-1, 3)
    outside = (ledger["slice"] < 0) | (ledger["slice"] >= size[:, 0])
    _refuse(
        path,
        ledger,
        outside,
        lambda row: f"slice {row['slice']} of {row['volume']!r}, which has {sizes[row['volume']][0]} slices",
    )
    outside = (ledger["x1"] < 0) | (ledger["y1"] < 0) | (ledger["x2"] > size[:, 1]) | (ledger["y2"] > size[:, 2])
    _refuse(path, ledger, outside, lambda row: f"the box {_text(row)} lies outside the image")
    given = {lesion["id"]: r["volume"] for r in records for lesion in r["lesions"]}
    home = ledger["lesion"].map(given)
    _refuse(
        path,
        ledger,
        home.notna() & (home != ledger["volume"]),
        lambda row: f"the lesion {row['lesion']!r} is one of {given[row['lesion']]!r}",
    )
    marked = {(lesion["id"], int(box[0])) for r in records for lesion in r["lesions"] for box in lesion["boxes"]}
    again = [pair in marked for pair in zip(ledger["lesion"], ledger["slice"], strict=True)]
    _refuse(
        path, ledger, again, lambda row: f"the lesion {row['lesion']!r} has a given box on slice {row['slice']}"
    )
    unfounded = (ledger["annotation"] != "") & ~ledger["annotation"].isin(given)
    _refuse(path, ledger, unfounded, lambda row: f"the dataset has no annotation {row['annotation']!r}")


def _refuse(path, table: pd.DataFrame, wrong, fault: Callable[[pd.Series], str]) -> None:
    """DataError for the first row for which ``wrong`` holds. Rows are counted from 1, without the header."""
    at = np.flatnonzero(np.asarray(wrong))
    if len(at):
        line = f" (line {table.index[at[0]] + 2})" if Path(path).suffix == ".csv" else ""
        more = f"; {len(at) - 1} more such rows" if len(at) > 1 else ""
        raise DataError(path, f"row {at[0] + 1}{line}: {fault(table.iloc[at[0]])}{more}")


def _no_number(name: str, row: pd.Series) -> str:
    return f"{name} is {row[name]!r}, no number"


def _not_whole(name: str, row: pd.Series) -> str:
    return f"{name} is {row[name]}, not a whole number"


def _no_share(name: str, row: pd.Series) -> str:
    return f"the {name} is {row[name]:g}; it must be in [0, 1]"


def _absent(name: str, row: pd.Series) -> str:
    return f"no {name}"


def _text(row: pd.Series) -> str:
    return ", ".join(f"{row[name]:g}" for name in BOX)

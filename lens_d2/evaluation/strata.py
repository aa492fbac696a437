"""Sensitivity by diameter, type, organ and slice thickness.

All strata are read at the false-positive rates of the whole evaluation: a detection of a lesion in another
stratum is not a false positive, and all strata share the score thresholds.
"""

from __future__ import annotations

import numpy as np

from ..io.errors import DataError
from ..io.tables import read_table
from .curves import FrocEvents
from .sets import row_in_volume

VOLUME = ("volume", "seriesuid")
LESION = ("lesion", "lesion_index", "index")
NUMBERS = {"diameter_mm": (10.0, 30.0), "thickness_mm": (2.5,)}  # and the limits of their groups
TEXTS = ("type", "organ")
UNKNOWN = "unknown"


def read_groups(path, truth) -> dict[str, np.ndarray]:
    """Groups of the truth's lesions.

    Args:
        path: CSV with the columns volume, lesion (its number among the volume's lesions in the truth file, from
            0), and any of diameter_mm, type, organ, thickness_mm; a cell may be empty.
        truth: of ``sets.py``, with ``volumes`` and ``volume``.

    Returns:
        {attribute: (L,) names of groups}; "unknown" for a lesion that is not in the file.

    Raises:
        DataError: a missing column, an unknown volume or lesion, a lesion twice, a number that is not above 0.
    """
    table = read_table(path)
    volume_key = next((key for key in VOLUME if key in table), VOLUME[0])
    lesion_key = next((key for key in LESION if key in table), LESION[0])
    attributes = [key for key in (*NUMBERS, *TEXTS) if key in table]
    if not attributes:
        raise DataError(path, f"has none of the columns {', '.join((*NUMBERS, *TEXTS))}")
    absent = [key for key in (volume_key, lesion_key) if key not in table]
    if absent:
        raise DataError(path, f"no column {absent[0]}; there are {', '.join(table.columns)}")
    rows = _lesion_rows(path, table, volume_key, lesion_key, truth)
    groups = {}
    for key in attributes:
        cells = table[key].tolist()
        names = [_group(path, line, key, cell) for line, cell in zip(table.index, cells, strict=True)]
        groups[key] = np.full(len(truth), UNKNOWN, dtype=object)
        groups[key][rows] = names
    return groups


def _lesion_rows(path, table, volume_key: str, lesion_key: str, truth) -> np.ndarray:
    """The truth's row of each line of the table."""
    numbers = row_in_volume(truth.volume)
    known = {(truth.volumes[v], int(n)): row for row, (v, n) in enumerate(zip(truth.volume, numbers, strict=True))}
    names, rows = set(truth.volumes), []
    for line, name, lesion in zip(table.index, table[volume_key], table[lesion_key], strict=True):
        name = name.removesuffix(".annot")
        if name not in names:
            raise DataError(path, f"line {line + 2}: the ground truth has no volume {name}")
        if not (lesion.isascii() and lesion.isdigit()) or (name, int(lesion)) not in known:
            raise DataError(path, f"line {line + 2}: volume {name} has no lesion {lesion!r}")
        rows.append(known[name, int(lesion)])
    twice = [row for row, count in zip(*np.unique(rows, return_counts=True), strict=True) if count > 1]
    if twice:
        row = int(twice[0])
        raise DataError(path, f"volume {truth.volumes[truth.volume[row]]}, lesion {numbers[row]} appears twice")
    return np.array(rows, dtype=np.int64)


def _group(path, line: int, key: str, cell: str) -> str:
    if not cell:
        return UNKNOWN
    if key in TEXTS:
        return cell
    try:
        value = float(cell)
    except ValueError:
        value = np.nan
    if not (np.isfinite(value) and value > 0):
        raise DataError(path, f"line {line + 2}: {key} is {cell!r}, not a number above 0")
    edges = NUMBERS[key]
    place = int(np.searchsorted(edges, value, "right"))
    if place == 0:
        return f"< {edges[0]:g}"
    return f">= {edges[-1]:g}" if place == len(edges) else f"{edges[place - 1]:g} to {edges[place]:g}"


def stratify(events: FrocEvents, groups: dict[str, np.ndarray], protocol) -> dict:
    """{attribute: {group: {num_lesions, sensitivity, average_sensitivity}}} at the protocol's ``fps``."""
    strata: dict = {}
    for key, names in groups.items():
        strata[key] = {}
        for name in sorted(set(names), key=_group_order):
            part = events.of_lesions(names == name)
            sensitivity = protocol.sensitivities(part)
            strata[key][name] = {
                "num_lesions": part.num_lesions,
                "sensitivity": sensitivity.tolist(),
                "average_sensitivity": float(sensitivity.mean()),
            }
    return strata


def _group_order(name: str) -> tuple:
    """Smaller numbers first, "unknown" last."""
    rank = {"<": 0, ">": 2}.get(name[0], 1)
    return (name == UNKNOWN, rank, name)

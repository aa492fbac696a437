"""Results of the rounds: ledger, lesions, released layouts, measures; and the table of all rounds."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from detectron2.config import CfgNode

from ...data.ledger.table import LEDGER, LEDGER_CSV, read_ledger, to_table, write_ledger
from ...data.ledger.verdicts import refuse_to_lose_verdicts
from ...evaluation.plots import plot_harvest
from ...evaluation.protocols.p3d import RECALLS
from ...io.errors import DataError
from ...io.files import write_whole
from ...io.formats import write_tracklets
from ...structures.detections import VolumeDetections
from . import pool
from .measures import HarvestMeasure, format_generators, format_rows
from .pool import HarvestedLesion, with_verdicts
from .rounds import Harvest, Labels, Rules, harvest_round
from .volumes import HarvestVolumes

logger = logging.getLogger(__name__)

MEASURES, LESIONS, NEGATIVES = "measures.json", "lesions.parquet", "negatives.parquet"
COLUMNS = ["round", "labels", *RECALLS, "mean", "R@100P"]  # of Table I


def finish_round(
    cfg: CfgNode,
    volumes: HarvestVolumes,
    scored: Callable[[dict], VolumeDetections],
    before: Sequence[HarvestedLesion],
    number: int,
    folder: Path,
) -> dict:
    """Decide what is a lesion and what a hard negative, write it and measure it. On one rank.

    Args:
        cfg: of the run; HARVEST is read.
        volumes: of the harvest.
        scored: gives the scored 3D proposals of a record.
        before: the pool of the rounds before, see :func:`read_pool`.
        number: of the round, from 1.
        folder: of the round, to be written.

    Returns:
        paths of ledger and lesions, threshold, counts, and the mean recall.
    """
    keys = cfg.HARVEST
    harvested = harvest_round(volumes.verified, volumes.partial, scored, before, number, Rules.from_config(cfg))
    rows = to_table(harvested.rows(volumes.training, keys.LABELS, keys.NEGATIVE_SLICES))
    ledger = rows.to_pandas()
    for name in (LEDGER, LEDGER_CSV):
        refuse_to_lose_verdicts(folder / name, volumes.training, ledger)
    for name in (LEDGER, LEDGER_CSV):
        write_ledger(folder / name, [rows])
    parts = _write_lesions(folder, harvested)
    test = {record["volume"]: scored(record) for record in volumes.measure.records}
    rows, curves = volumes.measure.of_round(number, test, before)
    measures = {"rows": rows, "curves": curves, "generator": volumes.measure.of_generator(number, test)}
    write_whole(folder / MEASURES, json.dumps(measures).encode())
    counts = {name: len(lesions) for name, lesions in parts.items()}
    logger.info(
        "round %d: threshold %.4f, precision on V_M %.3f; %d lesions, %d of them new; %d hard negatives",
        *(number, harvested.threshold, harvested.precision, len(harvested.lesions), harvested.new),
        counts["hard_negatives"],
    )
    return {
        "ledger": str(folder / LEDGER),
        "lesions": str(folder / LESIONS),
        "threshold": harvested.threshold if np.isfinite(harvested.threshold) else None,
        **counts,
        "new": harvested.new,
        "mean": rows[-1]["mean"],
    }


def _write_lesions(folder: Path, harvested: Harvest) -> dict[str, list[HarvestedLesion]]:
    """Write pool and hard negatives, and the parts in the layout of the released files."""
    negatives = [*harvested.verified_negatives, *harvested.negatives]
    for name, lesions in ((LESIONS, harvested.pool), (NEGATIVES, negatives)):
        sink = pa.BufferOutputStream()
        pq.write_table(pool.to_table(lesions), sink, compression="zstd")
        write_whole(folder / name, memoryview(sink.getvalue()))
    parts = {
        "harvested": [x for x in harvested.lesions if not x.annotation],
        "recovered": [x for x in harvested.lesions if x.annotation],
        "hard_negatives": negatives,
    }
    for name, lesions in parts.items():
        volumes: dict[str, list[np.ndarray]] = {}
        for lesion in lesions:
            volumes.setdefault(lesion.volume, []).append(lesion.slice_boxes)
        write_tracklets(folder / f"{name}.pkl", volumes)
    return parts


def read_labels(folder: Path, verified: Collection[str]) -> Labels:
    """The labels that a round has left.

    Args:
        folder: of the round.
        verified: names of the sub-volumes of V_M.

    Raises:
        DataError: a file is absent or damaged.
    """
    negatives = read_lesions(folder / NEGATIVES)
    return Labels(
        read_lesions(folder / LESIONS),
        frozenset(verified),
        [x for x in negatives if x.volume in verified],
        [x for x in negatives if x.volume not in verified],
    )


def read_lesions(path: str | os.PathLike) -> list[HarvestedLesion]:
    """The pool, or the hard negatives, that a round has left.

    Raises:
        DataError: the file is absent or damaged.
    """
    try:
        return pool.from_table(pq.read_table(path))
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise DataError(path, f"not readable as a round's lesions ({str(error).splitlines()[0][:160]})") from None


def read_pool(finished: Sequence[dict]) -> list[HarvestedLesion]:
    """Read the pool of the last finished round, with a radiologist's verdicts from the ledgers of all rounds.

    Args:
        finished: results of :func:`finish_round`, one for each finished round; without any, the pool is empty.
    """
    lesions = read_lesions(finished[-1]["lesions"]) if finished else []
    for each in finished:
        lesions = with_verdicts(lesions, read_ledger(each["ledger"]))
    return lesions


def write_table(
    folder: Path, measure: HarvestMeasure, rounds: Sequence[Path], others: Sequence[tuple[str, str]] = ()
) -> None:
    """Write Table I, Table II's figures and Fig. 8 of the rounds so far.

    They are ``table.csv`` and ``table.json``, ``generators.csv``, and ``curves.png``.

    Args:
        folder: to be written.
        measure: of V_H-test.
        rounds: the folders of the finished rounds.
        others: names and ledgers of other methods.
    """
    measured = [json.loads((path / MEASURES).read_text()) for path in rounds]
    compared = [measure.of_ledger(name, read_ledger(path)) for name, path in others]
    given, generators = measure.given(), [measures["generator"] for measures in measured]
    rows = [given, *(row for row, _ in compared), *(row for measures in measured for row in measures["rows"])]
    logger.info("recall on V_H-test:\n%s", format_rows(rows))
    logger.info("3D proposals on V_H-test, recall by false positives:\n%s", format_generators(generators))
    write_whole(folder / "table.csv", pd.DataFrame(rows, columns=COLUMNS).to_csv(index=False).encode())
    write_whole(folder / "table.json", json.dumps(rows, indent=1).encode())
    write_whole(folder / "generators.csv", pd.DataFrame(generators).to_csv(index=False).encode())
    curves = {row["labels"]: curve for row, curve in compared} | {"P_H,1": measured[0]["curves"]["s_g"]}
    curves |= {m["rows"][-1]["labels"]: m["curves"]["harvested"] for m in measured}
    scores = {name: measured[-1]["curves"][name] for name in ("s_g", "s_c", "s")}
    panels = {"Round by round": curves, f"Scores of round {len(measured)}": scores}
    plot_harvest(folder / "curves.png", panels, given["R@100P"])

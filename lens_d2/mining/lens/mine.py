"""Mining of all patients: from shards to a ledger, by the strategies in their order."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial, reduce
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import nn

from ...data.cache import identified
from ...data.ledger.counts import (
    TrainingCounts,
    add_counts,
    count_training_data,
    format_counts,
    strategies_of,
)
from ...data.ledger.merge import RECORD_STATUS, apply_ledger, record_ids
from ...data.ledger.table import LEDGER, LEDGER_CSV, ROWS_PER_GROUP, SCHEMA, LedgerRow, to_table, write_ledger
from ...data.ledger.verdicts import judged_rows, refuse_to_lose_verdicts
from ...io.artifacts import ResultStore, TableStore, digest, digest_of_file
from ...structures.status import STATUS_OF_RECORD, BoxStatus
from ..calibration import Calibration, FindingPrecision
from ..proposals import PROPOSALS, mined_records, open_shards, propose
from ..shards import ShardStore
from .strategies import Finding, Patient, PatientVolume, Strategy, build_strategies
from .strategies.strategy import group_by_patient

logger = logging.getLogger(__name__)

MINING = "mining"  # folder below OUTPUT_DIR
SUMMARY, LEARNT = "mining", "calibration"  # results beside the ledger


def mine_patient(
    patient: Patient, strategies: dict[str, Strategy], iou: float, number: int = 1
) -> list[LedgerRow]:
    """Run the strategies on one patient; ``known`` of the volumes grows by their findings.

    A box that lies on a known lesion or hard negative (IoU above theta) is not mined again; an uncertain region or
    hard negative is mined only where it lies on no known box of any kind.

    Args:
        patient: its sub-volumes.
        strategies: by name, in order.
        iou: theta.
        number: of the round of mining.
    """
    volumes = {volume.record["volume"]: volume for volume in patient}
    rows = []
    for name, strategy in strategies.items():
        for finding in strategy(patient):
            rows += _enter(finding, volumes[finding.volume], name, iou, number)
    return rows


def _enter(finding: Finding, volume: PatientVolume, strategy: str, iou: float, number: int) -> list[LedgerRow]:
    """The ledger rows of the boxes that are new in a finding; they are known from now on."""
    known, boxes = volume.known, finding.slice_boxes
    status = STATUS_OF_RECORD[RECORD_STATUS[finding.status]]
    decided = known.of_status(BoxStatus.LESION, BoxStatus.HARD_NEGATIVE)
    covering = decided if status == BoxStatus.LESION else known
    ids = record_ids(finding.lesion)
    has_box = {z for z, lesion in zip(known.slices.tolist(), known.lesions, strict=True) if lesion in ids}
    new = (covering.largest_overlap(boxes) <= iou) & (boxes[:, 1:3] < boxes[:, 3:5]).all(axis=1)
    new &= [z not in has_box for z in boxes[:, 0].astype(int).tolist()]
    known.add(finding.lesion, boxes[new], status)
    return [
        LedgerRow(
            id=f"{finding.lesion}@{int(z)}",
            volume=finding.volume,
            slice=int(z),
            **dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)),
            lesion=finding.lesion,
            strategy=strategy,
            round=number,
            score=score,
            distance=float(finding.distance),
            annotation=finding.annotation or "",
            status=finding.status,
            precision=float(finding.precision),
            disagreement=float(finding.disagreement),
            expert=finding.expert,
        )
        for z, *box, score in boxes[new].tolist()
    ]


class PatientStore(TableStore):
    """Folder of tables with the mined rows of one patient each, by the patient's records."""

    def name(self, records: list[dict]) -> str:
        """Expert and patient."""
        return f"{records[0]['expert']}-{records[0]['patient']}"

    def header(self, records: list[dict]) -> dict[str, str]:
        """Name and digest of a sound table, and the digest of the patient's sources and annotations."""
        return {**super().header(records), "annotations": digest(map(identified, records))}

    def encode(self, rows: list[LedgerRow]) -> pa.Table:
        """The rows as a table."""
        return to_table(rows)

    def decode(self, table: pa.Table) -> pa.Table:
        """The rows, a table of :data:`SCHEMA`."""
        return table.replace_schema_metadata(None).cast(SCHEMA)


def mine(
    records: Sequence[dict],
    shards: ShardStore,
    strategies: dict[str, Strategy],
    folder: Path,
    *,
    iou: float = 0.5,
    settings: str = "",
    number: int = 1,
    calibration: Calibration | None = None,
    judged: pd.DataFrame | None = None,
) -> Path:
    """Mine all patients of a dataset and write the ledger, as Parquet and CSV, and its counts.

    Every rank does its share of the patients. A patient or a ledger that is finished is not done again.

    Args:
        records: of the dataset, with given annotations only.
        shards: with the proposals of all sub-volumes.
        strategies: by name, in order.
        folder: to be written.
        iou: theta.
        settings: text that changes when the strategies' settings do, so that nothing older is used.
        number: of the round.
        calibration: for the estimated precision of findings; None: only strategies that estimate it give one.
        judged: rows of earlier ledgers with a radiologist's verdicts, as :func:`judged_rows` gives them: known to
            the strategies, and part of the new ledger.

    Returns:
        path of the ledger.

    Raises:
        DataError: see :meth:`Calibration.verified`; or the folder has a ledger of other settings, with verdicts
            that are not among ``judged``.
    """
    folder = Path(folder)
    judged = to_table([]).to_pandas() if judged is None else judged
    verdicts = dict(tuple(judged.groupby("volume")))
    given, records = records, apply_ledger(records, judged)
    patients = group_by_patient(records)
    made_from = [shards.made_from, settings, list(strategies), iou, number]
    results = ResultStore(folder, digest([made_from, *map(identified, records)]))

    def make(of_patient: list[dict]) -> list[LedgerRow]:
        rows = [verdicts[record["volume"]] for record in of_patient if record["volume"] in verdicts]
        before = [LedgerRow(*row) for part in rows for row in part[SCHEMA.names].itertuples(index=False)]
        return before + mine_patient(open_patient(of_patient, shards), strategies, iou, number)

    def work() -> dict | None:
        for name in (LEDGER, LEDGER_CSV):
            refuse_to_lose_verdicts(folder / name, given, judged)
        learnt = _learn(records, strategies, results, shards)
        store = PatientStore(folder / "patients", digest([made_from, learnt]), make)
        store.complete(patients, "mining patients")
        if not comm.is_main_process():
            return None
        fill = _estimate(calibration, given, patients, store)
        names = dict.fromkeys([*strategies, *strategies_of(judged)])  # of earlier rounds there may be others
        counts = _write_ledger(folder, given, _batches(patients, store, fill), list(names))
        logger.info("training data, in %s:\n%s", folder / LEDGER, format_counts(counts))
        return {"counts": [asdict(c) for c in counts], "learnt": learnt}

    if comm.is_main_process() and not (folder / LEDGER).exists():
        results.forget(SUMMARY)
    results.once(SUMMARY, work)
    return folder / LEDGER


class MiningRound:
    """Proposals and mining with the settings of a config, below its ``OUTPUT_DIR``.

    Create it before hours of training, so that faults show early. Verdicts in ``MINING.REVIEWED`` ledgers apply.
    """

    def __init__(self, cfg: CfgNode):
        """
        Raises:
            DataError: nothing can be mined with its settings, or its V_M or a reviewed ledger is absent or
                unsound.
        """
        self.cfg, self.records = cfg, mined_records(cfg)
        judged_rows(cfg.MINING.REVIEWED, self.records)  # may get more verdicts until they are used
        self.strategies, self.calibration = build_strategies(cfg), Calibration.from_config(cfg)
        if self.calibration is not None:
            self.calibration.verified(self.records)

    def shards(self, model: nn.Module) -> ShardStore:
        """A model's proposals in ``proposals/``, one file a sub-volume, whether or not they are there."""
        return open_shards(self.cfg, model, Path(self.cfg.OUTPUT_DIR) / PROPOSALS)

    def propose(self, model: nn.Module) -> ShardStore:
        """Make a model's proposals on all sub-volumes."""
        shards = self.shards(model)
        propose(self.records, shards)
        return shards

    def mine(self, shards: ShardStore, number: int = 1) -> Path:
        """Mine into ``mining/``.

        Args:
            shards: with the proposals of all sub-volumes.
            number: of the round, from 1.

        Returns:
            path of the ledger.
        """
        cfg, settings = self.cfg, self.cfg.MINING.clone()
        settings.defrost()
        settings.ROUNDS = number  # later rounds do not affect this one
        files = [cfg.MODEL.EMBEDDING.WEIGHTS, cfg.MINING.HARVESTED.LEDGER]
        made_from = [settings.dump(), cfg.MODEL.EMBEDDING.dump(), str(cfg.SEED), *map(digest_of_file, files)]
        made_from.append(str(tuple(cfg.DATASETS.TRAIN)))  # whose experts have learnt
        if self.calibration is not None:
            made_from.append(self.calibration.fingerprint())
        return mine(
            self.records,
            shards,
            self.strategies,
            Path(cfg.OUTPUT_DIR) / MINING,
            iou=cfg.MINING.IOU,
            settings="".join(made_from),
            number=number,
            calibration=self.calibration,
            judged=judged_rows(cfg.MINING.REVIEWED, self.records),
        )


def open_patient(records: list[dict], shards: ShardStore) -> Patient:
    """A patient's sub-volumes with their proposals."""
    return [PatientVolume.start(record, shards.read(record)) for record in records]


def _learn(
    records: Sequence[dict], strategies: dict[str, Strategy], results: ResultStore, shards: ShardStore
) -> dict[str, dict]:
    """Let each strategy learn from the annotations once; all ranks use what the first one has learnt."""
    learnt = {}
    for name, strategy in strategies.items():
        if type(strategy).learn is Strategy.learn:
            continue
        learnt[name] = results.once(f"{LEARNT}_{name}", partial(_learnt, strategy, records, shards))["learnt"]
        if learnt[name]:
            logger.info("%s has learnt: %s", name, textwrap.shorten(str(learnt[name]), 200))
        strategy.use(learnt[name])
    return learnt


def _learnt(strategy: Strategy, records: Sequence[dict], shards: ShardStore) -> dict:
    return {"learnt": strategy.learn(records, shards.read)}


def _estimate(
    calibration: Calibration | None, given: Sequence[dict], patients: list[list[dict]], store: PatientStore
) -> Callable[[pa.Table], pa.Table]:
    """The function that fills in the estimated precision, from what was mined where all lesions are known."""
    if calibration is None:
        return lambda rows: rows
    verified = calibration.verified(given)
    parts = [store.read(records) for records in patients if any(r["volume"] in verified for r in records)]
    estimate = FindingPrecision(calibration, verified, given, pa.concat_tables(parts).to_pandas())
    return lambda rows: to_table(estimate.fill(rows.to_pandas()))


def _write_ledger(
    folder: Path, given: Sequence[dict], batches: Iterator[tuple[list[str], pa.Table]], strategies: list[str]
) -> list[TrainingCounts]:
    """Write the rows of all batches and count them, a batch in memory at a time."""
    records = {record["volume"]: record for record in given}
    counted = []

    def parts() -> Iterator[pa.Table]:
        for volumes, rows in batches:
            own = [records[name] for name in volumes]
            counted.append(count_training_data(own, rows.to_pandas(), strategies))
            yield rows

    write_ledger(folder / LEDGER, parts())
    with pq.ParquetFile(folder / LEDGER) as file:
        write_ledger(folder / LEDGER_CSV, map(pa.Table.from_batches, ([batch] for batch in file.iter_batches())))
    return reduce(add_counts, counted)


def _batches(
    patients: list[list[dict]], store: PatientStore, fill: Callable[[pa.Table], pa.Table]
) -> Iterator[tuple[list[str], pa.Table]]:
    """Sub-volumes and rows of successive patients, at least :data:`ROWS_PER_GROUP` rows at a time."""
    volumes, parts, rows = [], [], 0
    for number, of_patient in enumerate(patients, start=1):
        volumes, parts = volumes + [record["volume"] for record in of_patient], [*parts, store.read(of_patient)]
        rows += len(parts[-1])
        if rows >= ROWS_PER_GROUP or number == len(patients):
            yield volumes, fill(pa.concat_tables(parts))
            volumes, parts, rows = [], [], 0

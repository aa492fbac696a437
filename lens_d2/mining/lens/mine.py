"""Mining of all patients: from shards to a ledger, by the strategies in their order."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import reduce
from pathlib import Path

import pyarrow as pa
from detectron2.utils import comm

from ...data.cache import unresolved
from ...data.ledger.counts import TrainingCounts, add_counts, count_training_data, format_counts
from ...data.ledger.merge import RECORD_STATUS
from ...data.ledger.table import ROWS_PER_GROUP, SCHEMA, LedgerRow, to_table, write_ledger
from ...io.artifacts import ResultStore, TableStore, digest
from ...structures.status import STATUS_OF_RECORD, BoxStatus
from ..shards import ShardStore
from .strategies import Finding, Patient, PatientVolume, Strategy

logger = logging.getLogger(__name__)

LEDGER, LEDGER_CSV = "ledger.parquet", "ledger.csv"
SUMMARY, LEARNT = "mining", "calibration"  # results beside the ledger


def mine_patient(
    patient: Patient, strategies: dict[str, Strategy], iou: float, number: int = 1
) -> list[LedgerRow]:
    """Run the strategies on one patient; ``known`` of the volumes grows by their findings.

    A box that lies on a known lesion (IoU above theta) is not mined again, and an uncertain or negative one on
    no known box at all.

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
    covering = known.of_status(BoxStatus.LESION) if status == BoxStatus.LESION else known
    has_box = {
        z for z, lesion in zip(known.slices.tolist(), known.lesions, strict=True) if lesion == finding.lesion
    }
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
        )
        for z, *box, score in boxes[new].tolist()
    ]


class PatientStore(TableStore):
    """Folder of tables with the mined rows of one patient each, by the patient's records."""

    def name(self, records: list[dict]) -> str:
        """Expert and patient."""
        return f"{records[0]['expert']}-{records[0]['patient']}"

    def header(self, records: list[dict]) -> dict[str, str]:
        """Name and digest of a sound table, and the digest of the patient's annotations."""
        return {**super().header(records), "annotations": digest(map(unresolved, records))}

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

    Returns:
        path of the ledger.
    """
    folder = Path(folder)
    patients = group_by_patient(records)
    made_from = [shards.made_from, settings, list(strategies), iou, number]
    results = ResultStore(folder, digest([made_from, *map(unresolved, records)]))

    def make(of_patient: list[dict]) -> list[LedgerRow]:
        return mine_patient(open_patient(of_patient, shards), strategies, iou, number)

    def work() -> dict | None:
        learnt = _learn(records, strategies, results)
        store = PatientStore(folder / "patients", digest([made_from, learnt]), make)
        store.complete(patients, "mining patients")
        if not comm.is_main_process():
            return None
        counts = _write_ledger(folder, patients, store, list(strategies))
        logger.info("training data, in %s:\n%s", folder / LEDGER, format_counts(counts))
        return {"counts": [asdict(c) for c in counts], "learnt": learnt}

    if comm.is_main_process() and not (folder / LEDGER).exists():
        results.forget(SUMMARY)
    results.once(SUMMARY, work)
    return folder / LEDGER


def open_patient(records: list[dict], shards: ShardStore) -> Patient:
    """A patient's sub-volumes with their proposals."""
    return [PatientVolume.start(record, shards.read(record)) for record in records]


def group_by_patient(records: Sequence[dict]) -> list[list[dict]]:
    """The records of each patient, ordered by patient and sub-volume."""
    patients: dict[tuple[str, str], list[dict]] = {}
    for record in sorted(records, key=lambda record: record["volume"]):
        patients.setdefault((record["expert"], record["patient"]), []).append(record)
    return [patients[name] for name in sorted(patients)]


def _learn(records: Sequence[dict], strategies: dict[str, Strategy], results: ResultStore) -> dict[str, dict]:
    """Let the strategies learn from the annotations, on the first rank and once; all ranks use the same."""

    def work() -> dict | None:
        if not comm.is_main_process():
            return None
        return {"learnt": {name: strategy.learn(records) for name, strategy in strategies.items()}}

    learnt = results.once(LEARNT, work)["learnt"]
    for name, strategy in strategies.items():
        if learnt[name]:
            logger.info("%s has learnt: %s", name, learnt[name])
        strategy.use(learnt[name])
    return learnt


def _write_ledger(
    folder: Path, patients: list[list[dict]], store: PatientStore, strategies: list[str]
) -> list[TrainingCounts]:
    """Join the patients' rows, a batch of patients in memory at a time, and count them."""
    counted = []

    def batches() -> Iterator[pa.Table]:
        for records, rows in _batches(patients, store):
            counted.append(count_training_data(records, rows.to_pandas(), strategies))
            yield rows

    write_ledger(folder / LEDGER, batches())
    write_ledger(folder / LEDGER_CSV, (rows for _, rows in _batches(patients, store)))
    return reduce(add_counts, counted)


def _batches(patients: list[list[dict]], store: PatientStore) -> Iterator[tuple[list[dict], pa.Table]]:
    """Records and rows of successive patients, at least :data:`ROWS_PER_GROUP` rows at a time."""
    records, parts, rows = [], [], 0
    for number, of_patient in enumerate(patients, start=1):
        records, parts = records + of_patient, [*parts, store.read(of_patient)]
        rows += len(parts[-1])
        if rows >= ROWS_PER_GROUP or number == len(patients):
            yield records, pa.concat_tables(parts)
            records, parts, rows = [], [], 0

"""From shards to a ledger: the strategies in their order, patient by patient."""

from __future__ import annotations

import hashlib
import json
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
from ...io.files import write_whole
from ...structures.status import STATUS_OF_RECORD, BoxStatus
from ..shards import ShardStore
from ..sharing import gather_list, own_share, share_out
from ..stored_tables import TableStore
from .findings import Finding, Patient, PatientVolume
from .strategies import Strategy

logger = logging.getLogger(__name__)

LEDGER, LEDGER_CSV, SUMMARY, LEARNT = "ledger.parquet", "ledger.csv", "mining.json", "calibration.json"


def mine_patient(
    patient: Patient, strategies: dict[str, Strategy], iou: float, number: int = 1
) -> list[LedgerRow]:
    """Run the strategies on one patient; ``known`` of the volumes grows by what they find.

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
    """The rows of what is new in a finding."""
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
    """A folder of tables with the mined rows of one patient each; ``read(records of the patient)`` gives it."""

    def name(self, records: list[dict]) -> str:
        return f"{records[0]['expert']}-{records[0]['patient']}"

    def encode(self, rows: list[LedgerRow]) -> pa.Table:
        return to_table(rows)

    def decode(self, table: pa.Table) -> pa.Table:
        return table.replace_schema_metadata(None).cast(SCHEMA)

    def _header(self, records: list[dict]) -> dict[str, str]:
        return {**super()._header(records), "annotations": digest([unresolved(record) for record in records])}


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
    """Mine all patients of a dataset and write the ledger, as Parquet and CSV, and what it adds up to.

    Every rank does its share of the patients. What is finished is not done again: a patient, the ledger.

    Args:
        records: of the dataset, with given annotations only.
        shards: with the proposals of all sub-volumes.
        strategies: by name, in order.
        folder: to be written.
        iou: theta.
        settings: text that changes when the strategies' settings do, so that nothing older is used.
        number: of the round.

    Returns:
        the path of the ledger.
    """
    folder = Path(folder)
    patients = group_by_patient(records)
    made_of = [shards.fingerprint, settings, list(strategies), iou, number]
    everything = digest([made_of, *map(unresolved, records)])
    if _is_done(folder, everything):
        return folder / LEDGER
    learnt = _learn(records, strategies, folder / LEARNT, everything)

    def make(of_patient: list[dict]) -> list[LedgerRow]:
        return mine_patient(open_patient(of_patient, shards), strategies, iou, number)

    store = PatientStore(folder / "patients", digest([made_of, learnt]), make)
    missing = gather_list([records for records in own_share(patients) if store.fault(records)])
    missing.sort(key=store.name)
    logger.info("mining: %d of %d patients are done", len(patients) - len(missing), len(patients))
    share_out(missing, store.write, "mining patients")
    comm.synchronize()
    if comm.is_main_process():
        counts = _write_ledger(folder, patients, store, list(strategies))
        summary = {"made_of": everything, "counts": [asdict(c) for c in counts], "learnt": learnt}
        write_whole(folder / SUMMARY, json.dumps(summary, indent=1).encode())
        logger.info("training data, in %s:\n%s", folder / LEDGER, format_counts(counts))
    comm.synchronize()
    return folder / LEDGER


def open_patient(records: list[dict], shards: ShardStore) -> Patient:
    """A patient's sub-volumes with their proposals."""
    return [PatientVolume.start(record, shards.read(record)) for record in records]


def group_by_patient(records: Sequence[dict]) -> list[list[dict]]:
    """The records of each patient, in order of the patients' names and of the sub-volumes'."""
    patients: dict[tuple[str, str], list[dict]] = {}
    for record in sorted(records, key=lambda record: record["volume"]):
        patients.setdefault((record["expert"], record["patient"]), []).append(record)
    return [patients[name] for name in sorted(patients)]


def digest(things: Sequence) -> str:
    """A hash of what JSON knows; things one by one, so that long lists cost no memory."""
    hashed = hashlib.sha256()
    for thing in things:
        hashed.update(json.dumps(thing, sort_keys=True).encode() + b"\n")
    return hashed.hexdigest()[:16]


def _read_json(path: Path) -> dict:
    """A file of this module; empty where it is absent or damaged, so that it is made again."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        logger.warning("%s: damaged (%s); making it again", path, error)
        return {}


def _is_done(folder: Path, made_of: str) -> bool:
    """Whether the ledger is complete and of the same making; the same answer on every rank."""
    done = None
    if comm.is_main_process() and (folder / LEDGER).exists():
        done = _read_json(folder / SUMMARY).get("made_of") == made_of
    done = comm.all_gather(done)[0]
    if done:
        logger.info("%s is complete", folder / LEDGER)
    return bool(done)


def _learn(records: Sequence[dict], strategies: dict[str, Strategy], path: Path, made_of: str) -> dict[str, dict]:
    """Let the strategies learn from the annotations, once, and keep what they learnt; the same on every rank."""
    learnt = None
    if comm.is_main_process():
        found = _read_json(path)
        learnt = found.get("learnt") if found.get("made_of") == made_of else None
        if learnt is None:
            learnt = {name: strategy.learn(records) for name, strategy in strategies.items()}
            write_whole(path, json.dumps({"made_of": made_of, "learnt": learnt}, indent=1).encode())
    learnt = comm.all_gather(learnt)[0]
    for name, strategy in strategies.items():
        if learnt[name]:
            logger.info("%s has learnt: %s", name, learnt[name])
        strategy.use(learnt[name])
    return learnt


def _write_ledger(
    folder: Path, patients: list[list[dict]], store: PatientStore, strategies: list[str]
) -> list[TrainingCounts]:
    """Put the patients' rows together, a batch of patients in memory at a time, and count them."""
    counted = []

    def batches() -> Iterator[pa.Table]:
        for records, rows in _batches(patients, store):
            counted.append(count_training_data(records, rows.to_pandas(), strategies))
            yield rows

    write_ledger(folder / LEDGER, batches())
    write_ledger(folder / LEDGER_CSV, (rows for _, rows in _batches(patients, store)))
    return reduce(add_counts, counted)


def _batches(patients: list[list[dict]], store: PatientStore) -> Iterator[tuple[list[dict], pa.Table]]:
    records, parts, rows = [], [], 0
    for number, of_patient in enumerate(patients, start=1):
        records, parts = records + of_patient, [*parts, store.read(of_patient)]
        rows += len(parts[-1])
        if rows >= ROWS_PER_GROUP or number == len(patients):
            yield records, pa.concat_tables(parts)
            records, parts, rows = [], [], 0

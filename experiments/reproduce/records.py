"""The record of a run: one JSON file with everything that the tables need of it, small enough to be committed.

Of each sub-volume it keeps where the lesions' first hits, and the false positives that count at the rates of the
FROC curve, stand among all by their scores. So tables are rendered, compared and drawn without predictions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from detectron2.data import MetadataCatalog

from lens_d2.evaluation.curves import FrocEvents
from lens_d2.evaluation.frames import frame_of
from lens_d2.evaluation.protocols import PROTOCOLS
from lens_d2.evaluation.protocols.protocol import single_numbers
from lens_d2.evaluation.readers import read_box_detections, read_lesion_boxes, read_marks, read_tracklets
from lens_d2.io.errors import DataError

from .tables import Cohort, Run

SPARE = 2.0  # false positives kept, in units of those at the highest rate: a draw of the bootstrap may need more
# Readers of an evaluation's truth and predictions, by protocol.
READERS = {
    "lens3d": (lambda path, dataset: read_lesion_boxes(path, frame=frame_of(dataset)), read_box_detections),
    "p3d": (lambda path, dataset: read_marks(path), read_tracklets),
}


def record_path(output: Path, run: Run, cohort: Cohort, seed: int) -> Path:
    """The file of a run's record."""
    return output / "runs" / f"{run.id}.{cohort.size}-{cohort.seed}.seed-{seed}.json"


def read_record(output: Path, run: Run, cohort: Cohort, seed: int) -> dict | None:
    """A run's record; None if it has not been made.

    Raises:
        DataError: the file is damaged, or is the record of another run, cohort or seed.
    """
    path = record_path(output, run, cohort, seed)
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text())
        made = {key: record["run"][key] for key in run.describe()}
        circumstances = record["seed"], record["cohort"]["size"], record["cohort"]["seed"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(path, f"no record of a run ({error}); delete it to make the run again") from None
    if made != run.describe() or circumstances != (seed, cohort.size, cohort.seed):
        raise DataError(path, "is the record of another run; delete it to make this one again")
    return record


def compact(events: FrocEvents, most_fps: float) -> dict:
    """Events for JSON.

    Args:
        events: of an evaluation.
        most_fps: highest rate of false positives per sub-volume that is of interest.

    Returns:
        lists by sub-volume: "hits" has a number for each lesion, None if it is not hit; "false_positives". The
        numbers are ranks below 0, which are ordered as scores are, and are as short where scores are all near 1.
    """
    kept = int(np.ceil(SPARE * most_fps * events.num_volumes))
    false = events.fp_rank[:kept]
    floor = false[-1] if len(events.fp_rank) > kept else np.inf
    found = (events.hit_rank >= 0) & (events.hit_rank <= floor)
    hits: list[list] = [[] for _ in range(events.num_volumes)]
    others: list[list] = [[] for _ in range(events.num_volumes)]
    for volume, rank, is_found in zip(events.lesion_volume, events.hit_rank, found, strict=True):
        hits[volume].append(-int(rank) if is_found else None)
    for volume, rank in zip(events.fp_volume[:kept], false, strict=True):
        others[volume].append(-int(rank))
    return {"hits": hits, "false_positives": others}


def events_of(content: Mapping) -> FrocEvents:
    """The events that :func:`compact` has written, or earlier versions with scores; equal ones share a rank."""
    hits, others = content["hits"], content["false_positives"]
    lesion_volume = np.repeat(np.arange(len(hits)), [len(own) for own in hits])
    fp_volume = np.repeat(np.arange(len(others)), [len(own) for own in others])
    hit = np.array([np.nan if score is None else score for own in hits for score in own], dtype=float)
    false = np.array([score for own in others for score in own], dtype=float)
    known = np.unique(-np.concatenate([hit[np.isfinite(hit)], false]))
    hit_rank = np.where(np.isfinite(hit), np.searchsorted(known, -np.nan_to_num(hit)), -1)
    order = np.argsort(-false, kind="stable")
    fp_rank = np.searchsorted(known, -false[order])
    return FrocEvents(fp_rank, fp_volume[order], hit_rank, lesion_volume, len(hits), len(known))


def read_evaluation(folder: Path) -> dict:
    """The record of one evaluation, from the files of its folder.

    The events are those of the model's own output, and of the expert that has learned from the dataset's kind.
    """
    metrics = json.loads((folder / "metrics.json").read_text())
    protocol, dataset = PROTOCOLS.get(metrics["protocol"])(), folder.name
    read_truth, read_detections = READERS[protocol.name]
    truth = read_truth(folder / "ground_truth.json", dataset)
    expert = MetadataCatalog.get(dataset).expert
    files = {"": "predictions.json"} | (
        {expert: f"predictions_{expert}.json"} if expert in metrics["experts"] else {}
    )
    events = {}
    for output, file in files.items():
        detections = read_detections(folder / file, truth, dataset)
        events[output] = compact(protocol.match(truth, detections).events, float(protocol.fps.max()))
    return {"metrics": metrics, "volumes": truth.volumes, "events": events}


def read_evaluations(folder: Path) -> dict[str, dict[str, dict]]:
    """The records of a run's evaluations: {stage, empty without stages: {dataset: record}}."""
    found: dict[str, dict[str, dict]] = {}
    for pattern in ("inference/*/metrics.json", "*/inference/*/metrics.json"):
        for path in sorted(folder.glob(pattern)):
            stage = path.parents[2].name if path.parents[2] != folder else ""
            found.setdefault(stage, {})[path.parent.name] = read_evaluation(path.parent)
    return found


def harvest_numbers(rows: list[Mapping], label: str) -> dict[str, float]:
    """Numbers of a label set of Lesion-Harvester's Table I; of all rounds for the label "rounds".

    Those are "mean@k", the mean recall after round k, and "gain@k", by how much the best of the first k rounds is
    above the original marks (its Fig. 9).
    """
    if label != "rounds":
        found = [row for row in rows if row["labels"] == label]
        return {key: value for row in found for key, value in row.items() if isinstance(value, float)}
    marks = next(row["R@100P"] for row in rows if "R@100P" in row)
    means = {row["round"]: row["mean"] for row in rows if row["round"] and row["labels"].endswith("^+")}
    numbers = {f"mean@{number}": mean for number, mean in means.items()}
    return numbers | {f"gain@{n}": max(m for k, m in means.items() if k <= n) - marks for n in means}


def numbers_of(record: Mapping, stage: str, dataset: str, output: str = "", harvest: str = "") -> dict[str, float]:
    """All numbers of a row, by name, from the record of its run."""
    numbers = dict(record.get("numbers", {}))
    if harvest:
        return numbers | harvest_numbers(record["harvest"], harvest)
    evaluation = record["evaluations"].get(stage, {}).get(dataset)
    if evaluation is None:
        return numbers
    own = evaluation["metrics"]["experts"].get(output) if output else evaluation["metrics"]
    return numbers | single_numbers(own) if own else numbers


def events_in(record: Mapping, stage: str, dataset: str, output: str = "") -> dict | None:
    """The compact events of a row with its "volumes" and "protocol"; None if the record has none."""
    evaluation = record["evaluations"].get(stage, {}).get(dataset)
    if evaluation is None or output not in evaluation["events"]:
        return None
    protocol = evaluation["metrics"]["protocol"]
    return {**evaluation["events"][output], "volumes": evaluation["volumes"], "protocol": protocol}

"""Mining: of more and more proposals, of more and more volumes with their inference, and the harvester's tracker.

Mining of synthetic proposals is timed between the network's 2D boxes and the ledger: linking to tracklets, shards,
the three strategies (embeddings given), the ledger.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import numpy as np

from lens_d2.inference.linking import OverlapLinker
from lens_d2.inference.tracker import BoxTracker
from lens_d2.mining.lens.mine import mine
from lens_d2.mining.lens.strategies import CrossDataset, CrossSlice, IntraPatient
from lens_d2.mining.proposals import open_shards, propose
from lens_d2.mining.shards import ShardStore
from lens_d2.structures.records import make_lesion, make_record

from .networks import config, network, write_scan
from .registry import in_turns, machine, measurement, peak_mb, run_alone, worst_doubling

PATIENT_SERIES = 4  # sub-volumes of a patient, each of a study of its own
SLICES, SIZE, CELL = 40, 512, 32
EXPERTS = ("deeplesion", "luna", "lits", "nih_ln")
TRACKLETS, LENGTH = 20, 10  # of every group of a sub-volume, so 1,000 boxes
BOXES_PER_VOLUME = (1 + len(EXPERTS)) * TRACKLETS * LENGTH
MARKS = 3
PROPOSALS, VOLUMES = (1_000_000, 2_000_000, 4_000_000), (20, 40, 80)
TRACKED_SLICES, BOXES = (500, 1000, 2000), 200  # boxes on each slice


def places(patient: int, group: int) -> tuple[np.ndarray, np.ndarray]:
    """(t, 4) boxes and (t,) first slices of a patient's tracklets: in all scans the same, each in a cell alone."""
    rng = np.random.default_rng([patient, group])
    cells = rng.permutation((SIZE // CELL) ** 2)[:TRACKLETS]
    corner = np.stack([cells % (SIZE // CELL), cells // (SIZE // CELL)], axis=1) * CELL + 4.0
    side = rng.uniform(8, 22, (TRACKLETS, 1))
    return np.concatenate([corner, corner + side], axis=1), rng.integers(0, SLICES - LENGTH, TRACKLETS)


def make_records(volumes: int) -> list[dict]:
    """Records of sub-volumes with marks at their patients' places."""
    records = []
    for number in range(volumes):
        patient, study = divmod(number, PATIENT_SERIES)
        series = f"{patient:06d}_{study + 1:02d}_01"
        name = f"{series}_001-{SLICES:03d}"
        boxes, first = places(patient, 0)
        chosen = range(study * MARKS, (study + 1) * MARKS)  # every study marks other lesions
        marks = [make_lesion(f"{name}/{i}", [[first[i] + 4, *boxes[i]]], key_slice=first[i] + 4) for i in chosen]
        records.append(
            make_record(
                f"/{series}", volume=name, expert="deeplesion", patient=f"{patient:06d}", study=series[:9],
                series=series, size=(SIZE, SIZE, SLICES), spacing=(0.8, 0.8, 2.0), lesions=marks,
            )
        )  # fmt: skip
    return records


class SyntheticModel:
    """Proposes 2D boxes at a patient's places, and some of the single-type experts' with a high score."""

    def __init__(self):
        self.seconds_of_drawing = 0.0

    def __call__(self, record: dict) -> dict:
        """Detections by expert."""
        return {
            name: OverlapLinker()(np.column_stack([slices, boxes, scores]), SLICES, expert_scores)
            for name, (slices, boxes, scores, expert_scores) in self._draw(record).items()
        }

    def _draw(self, record: dict) -> dict:
        start = time.process_time()
        patient, scan = int(record["patient"]), int(record["study"][-2:])
        drawn = {}
        for group, name in enumerate(("fused", *EXPERTS)):
            rng = np.random.default_rng([patient, scan, group])
            boxes, first = places(patient, group)
            level = (first[:, None] + np.arange(LENGTH)).ravel()
            boxes = np.repeat(boxes, LENGTH, axis=0) + rng.normal(0, 0.3, (TRACKLETS * LENGTH, 4))
            scores = rng.beta(1, 6, len(level))
            drawn[name] = (level, boxes, scores, np.repeat(scores[:, None], len(EXPERTS), axis=1))
        self.seconds_of_drawing += time.process_time() - start
        return drawn


class CellEmbedding:
    """The given embeddings: a vector for each cell of the image, so for each lesion of a patient."""

    def __init__(self, dim: int = 256):
        vectors = np.random.default_rng(0).normal(size=((SIZE // CELL) ** 2, dim)).astype(np.float32)
        self.vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def __call__(self, items: list[tuple]) -> np.ndarray:
        """(n, dim) vectors of boxes."""
        cells = (np.array([box[:2] for _, _, box in items]) // CELL).astype(int)
        return self.vectors[cells[:, 1] * (SIZE // CELL) + cells[:, 0]]


def mine_proposals(proposals: int) -> dict:
    """Mine ``proposals`` 2D boxes; {"proposals", "volumes", "rows", "seconds", "peak_mb"}."""
    records, model = make_records(max(proposals // BOXES_PER_VOLUME, 1)), SyntheticModel()
    strategies = {
        "CrossSlice": CrossSlice(),
        "IntraPatient": IntraPatient(embed=CellEmbedding()),
        "CrossDataset": CrossDataset(experts=EXPERTS[1:]),
    }
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        shards = ShardStore(Path(folder) / "proposals", "synthetic", model)
        propose(records, shards)
        mine(records, shards, strategies, Path(folder) / "mining")
        seconds = time.process_time() - start - model.seconds_of_drawing
        counts = json.loads((Path(folder) / "mining/mining.json").read_text())["counts"]
    return {
        "proposals": len(records) * BOXES_PER_VOLUME,
        "volumes": len(records),
        "given": counts[0]["boxes"],
        "mined": counts[-1]["boxes"] - counts[0]["boxes"],
        "uncertain": counts[-1]["uncertain"],
        "seconds": seconds,
        "peak_mb": peak_mb(),
    }


@measurement("mining-scale")
def mining_scale() -> dict:
    """Mining of 1, 2 and 4 million proposals, each in a process of its own; ratio: the worst of the doublings."""
    runs = [run_alone(mine_proposals, size) for size in PROPOSALS]
    times, peaks = ([run[key] for run in runs] for key in ("seconds", "peak_mb"))
    details = {
        "runs": runs,
        "ratio": "the worst time at twice the size over the time",
        "peak_ratio": worst_doubling(peaks),
    }
    return {
        "ratio": worst_doubling(times),
        "baseline_seconds": times[-2],
        "ours_seconds": times[-1],
        "details": details,
    }


def mine_volumes(number: int) -> dict:
    """Propose and mine on so many small volumes; {"volumes", "seconds", "peak_mb"}."""
    with tempfile.TemporaryDirectory() as folder:
        cfg = config("phantom/lens_multi.yaml", "INPUT.CACHE_DIR", f"{folder}/cache", "INPUT.PIXEL_SPACING", 0.8)
        records = []
        for seed in range(number):
            name = write_scan(Path(folder), levels=20, size=96, seed=seed)["file_name"]
            mark = make_lesion(f"scan_{seed}/0", [[10, *np.array([20.0, 20, 44, 44]) + seed % 20]], key_slice=10)
            records.append(
                make_record(
                    name, volume=f"scan_{seed}", expert="deeplesion", patient=f"{seed:06d}",
                    size=(96, 96, 20), spacing=(0.8, 0.8, 2.0), lesions=[mark],
                )
            )  # fmt: skip
        shards = open_shards(cfg, network(cfg), Path(folder) / "proposals")
        start = time.process_time()
        propose(records, shards)
        mine(records, shards, {"CrossSlice": CrossSlice()}, Path(folder) / "mining")
        return {"volumes": number, "seconds": time.process_time() - start, "peak_mb": peak_mb()}


@measurement("scale")
def scale() -> dict:
    """Each number of volumes in a process of its own; ratio: the largest time of a volume over the smallest."""
    runs = [run_alone(mine_volumes, number) for number in VOLUMES]
    each = [run["seconds"] / run["volumes"] for run in runs]
    peaks = [run["peak_mb"] for run in runs]
    return {
        "ratio": max(each) / min(each),
        "baseline_seconds": each[0],
        "ours_seconds": each[-1],
        "details": {"runs": runs, "seconds": "processor time a volume", "peak_ratio": max(peaks) / min(peaks)},
    }


def boxes_of(slices: int, per_slice: int, seed: int = 0) -> np.ndarray:
    """(n, 6) boxes that wander and grow from slice to slice; one in seven ends there, and another begins."""
    rng = np.random.default_rng(seed)
    center, side = rng.uniform(20, 490, (per_slice, 2)), rng.uniform(8, 60, (per_slice, 2))
    levels = []
    for z in range(slices):
        new = rng.random((per_slice, 1)) < 1 / 7
        center = np.where(new, rng.uniform(20, 490, center.shape), center + rng.normal(0, 0.3, center.shape))
        side = np.where(new, rng.uniform(8, 60, side.shape), side * np.exp(rng.normal(0, 0.02, side.shape)))
        score = rng.uniform(0.1, 1, per_slice)
        levels.append(np.column_stack([np.full(per_slice, z), center - side / 2, center + side / 2, score]))
    return np.concatenate(levels)


@measurement("tracker")
def tracker() -> dict:
    """A volume of 1,000 slices of 200 boxes, and of half and twice as many slices; ratio: the worst doubling."""
    cases = {slices: boxes_of(slices, BOXES) for slices in TRACKED_SLICES}
    timed = in_turns({str(n): lambda n=n, boxes=boxes: BoxTracker()(boxes, n) for n, boxes in cases.items()})
    times = list(timed.values())
    return {
        "ratio": worst_doubling(times),
        "baseline_seconds": times[0],
        "ours_seconds": times[1],
        "details": {
            "boxes": [len(boxes) for boxes in cases.values()],
            "seconds": times,
            "ratio": "the worst time at twice the boxes over the time",
        }
        | machine(),
    }

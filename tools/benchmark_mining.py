#!/usr/bin/env python
"""Mines so many synthetic 2D proposals, embeddings given, and prints seconds and peak memory as JSON.

    python tools/benchmark_mining.py 1000000

``tools/benchmark.py --only mining-scale`` runs it for 1, 2 and 4 million. What is timed is what mining does
between the network's 2D boxes and the ledger: linking to tracklets, shards, the three strategies, the ledger.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from lens_d2.inference.volume import link_detections
from lens_d2.mining.lens.mine import mine
from lens_d2.mining.lens.strategies import CrossDataset, CrossSlice, IntraPatient
from lens_d2.mining.proposals import propose
from lens_d2.mining.shards import ShardStore
from lens_d2.structures.records import make_lesion, make_record

PATIENT_SERIES = 4  # sub-volumes of a patient, each of a study of its own
SLICES, SIZE, CELL = 40, 512, 32
EXPERTS = ("deeplesion", "luna", "lits", "nih_ln")
TRACKLETS, LENGTH = 20, 10  # of every group of a sub-volume, so 1,000 boxes
BOXES_PER_VOLUME = (1 + len(EXPERTS)) * TRACKLETS * LENGTH
MARKS = 3


def places(patient: int, group: int) -> tuple[np.ndarray, np.ndarray]:
    """(t, 4) boxes and (t,) first slices of a patient's tracklets: in all scans the same, each in a cell alone."""
    rng = np.random.default_rng([patient, group])
    cells = rng.permutation((SIZE // CELL) ** 2)[:TRACKLETS]
    corner = np.stack([cells % (SIZE // CELL), cells // (SIZE // CELL)], axis=1) * CELL + 4.0
    side = rng.uniform(8, 22, (TRACKLETS, 1))
    return np.concatenate([corner, corner + side], axis=1), rng.integers(0, SLICES - LENGTH, TRACKLETS)


def make_records(volumes: int) -> list[dict]:
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
        return {
            name: link_detections(*boxes, 0.5, np.arange(SLICES) * 2.0, np.arange(SLICES) * 2.0)
            for name, boxes in self._draw(record).items()
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
        cells = (np.array([box[:2] for _, _, box in items]) // CELL).astype(int)
        return self.vectors[cells[:, 1] * (SIZE // CELL) + cells[:, 0]]


def run(proposals: int) -> dict:
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
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("proposals", type=int)
    print(json.dumps(run(parser.parse_args().proposals)))

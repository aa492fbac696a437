"""A large cohort by its records alone: start-up of a training, and evaluation, of more and more sub-volumes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import numpy as np

from lens_d2.data.cache import build_cache
from lens_d2.data.datasets.catalog import register_derived
from lens_d2.data.loader import build_batch_sampler, build_train_loader, load_records
from lens_d2.evaluation.evaluators import FROC3DEvaluator
from lens_d2.structures.detections import VolumeDetections
from lens_d2.structures.records import make_lesion, make_record

from .networks import config
from .registry import machine, measurement, peak_mb, run_alone, worst_doubling

COHORT = (5_000, 10_000, 20_000)  # sub-volumes
NAME, EXPERT = "benchmark_cohort", "luna"
SLICES, SIZE, LESIONS, LESION_SLICES = 30, 512, 2, 7
DETECTIONS = 50  # of a sub-volume, fused and by each expert
PATIENT_SERIES = 4


@measurement("records")
def records_alone() -> dict:
    """Seconds and memory of catalog, sampler, loader and evaluation; ratio: the worst of a doubled cohort."""
    measured = {size: run_alone(start_and_evaluate, size) for size in COHORT}
    totals = [sum(each["seconds"].values()) for each in measured.values()]
    return {
        "ratio": worst_doubling(totals),
        "baseline_seconds": totals[0],
        "ours_seconds": totals[-1],
        "details": {"ratio": "of the whole time when the cohort doubles", "by_size": measured} | machine(),
    }


def start_and_evaluate(size: int) -> dict:
    """Seconds of every part, and the process's peak memory after it, for a cohort of ``size`` sub-volumes."""
    seconds: dict[str, float] = {}
    memory: dict[str, float] = {"before": peak_mb()}

    def timed(name: str, work: Callable):
        start = time.process_time()
        result = work()
        seconds[name] = time.process_time() - start
        memory[name] = peak_mb()
        return result

    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        for number in range(size):
            Path(f"{number}.nii").touch()
        register_derived(NAME, "luna_train", lambda: [record_of(number) for number in range(size)])
        cfg = config("lens_multi.yaml", "DATASETS.TRAIN", (NAME,), "INPUT.CACHE_DIR", "cache")
        records = timed("catalog", lambda: load_records((NAME,)))
        records = timed("cache files", lambda: build_cache(cfg).resolve(records))
        sampler = timed("sampler, an epoch", lambda: build_batch_sampler(cfg, records))
        timed("loader", lambda: build_train_loader(cfg, records=records, sampler=sampler))
        evaluator = FROC3DEvaluator(NAME, "evaluation")
        outputs = {name: detections() for name in ("fused", EXPERT)}
        timed("evaluator, outputs", lambda: give(evaluator, records, outputs))
        timed("evaluator, FROC", evaluator.evaluate)
    return {"sub_volumes": size, "seconds": seconds, "peak_mb": memory}


def record_of(number: int) -> dict:
    """A record of a sub-volume without voxels."""
    rng = np.random.default_rng(number)
    name, lesions = f"volume_{number:06d}", []
    for k in range(LESIONS):
        x, y = rng.integers(0, SIZE - 40, 2).tolist()
        z, side = int(rng.integers(0, SLICES - LESION_SLICES)), int(rng.integers(8, 40))
        boxes = [[s, x, y, x + side, y + side] for s in range(z, z + LESION_SLICES)]
        box3d = [x, y, z, x + side, y + side, z + LESION_SLICES - 1]
        lesions.append(make_lesion(f"{name}/{k}", boxes, box3d=box3d, key_slice=z + LESION_SLICES // 2))
    return make_record(
        f"{number}.nii", volume=name, expert=EXPERT, patient=f"p{number // PATIENT_SERIES}",
        size=(SIZE, SIZE, SLICES), spacing=(0.8, 0.8, 2.0), lesions=lesions,
    )  # fmt: skip


def detections() -> VolumeDetections:
    """Detections of a sub-volume, the same for all."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, SIZE - 60, (DETECTIONS, 2))
    first, scores = rng.integers(0, SLICES - 8, DETECTIONS), rng.beta(1, 6, DETECTIONS)
    side = rng.uniform(8, 60, (DETECTIONS, 1))
    boxes = np.column_stack([corner, first, corner + side, first + 6.0])
    return VolumeDetections(boxes, scores)


def give(evaluator: FROC3DEvaluator, records: list[dict], outputs: dict[str, VolumeDetections]) -> None:
    """Give the evaluator the outputs of all records."""
    for record in records:
        evaluator.process([record], [{"volume": record["volume"], "detections": outputs}])

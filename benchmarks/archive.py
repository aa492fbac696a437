"""An archive of scans: seconds of reading, of the network and of writing, and what reading ahead saves."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from lens_d2 import LesionDetector
from lens_d2.io.parallel import read_ahead
from lens_d2.phantom.cohort import write_cohort
from lens_d2.phantom.plan import CohortPlan

from .registry import compare, in_turns, measurement

MODEL = "phantom/lens_multi"
SCANS, MATRIX, TURNS = 20, 512, 3
STEPS = ("read", "detect", "write")


@measurement("archive")
def predict_archive() -> dict:
    """Predict a batch of DICOM series one after the other, and with the next one read meanwhile, in turns.

    The synthetic series have as many pixels as real ones and fewer slices, and are in the disk's cache. Seconds
    are means over the scans.
    """
    detector = LesionDetector.from_zoo(MODEL)
    with tempfile.TemporaryDirectory() as folder:
        plan = CohortPlan(train=1, val=1, test=1, luna=1, lits=1, nih_ln=SCANS, matrix=MATRIX)
        write_cohort(plan, Path(folder) / "cohort")
        series = sorted((Path(folder) / "cohort/NIH-LN/DICOM").glob("*/CT"))
        out = Path(folder) / "found"
        slices = [len(list(each.iterdir())) for each in series]
        steps: dict[str, list[float]] = {step: [] for step in STEPS}
        predict(detector, series[:1], out, {step: [] for step in STEPS})
        seconds = in_turns(
            {
                "apart": lambda: predict(detector, series, out, steps),
                "ahead": lambda: predict_reading_ahead(detector, series, out),
            },
            TURNS,
            warm=False,
        )
    return compare(
        seconds["apart"] / len(series),
        seconds["ahead"] / len(series),
        ratio="one after the other over reading ahead",
        seconds_a_scan={step: statistics.median(own) for step, own in steps.items()},
        scans=len(series),
        slices_a_scan=sum(slices) / len(series),
        matrix=MATRIX,
        model=MODEL,
    )


def predict(detector: LesionDetector, series: Sequence[Path], out: Path, steps: Mapping[str, list[float]]) -> None:
    """Predict one scan after the other; append the mean seconds of a scan to each step's."""
    seconds = dict.fromkeys(STEPS, 0.0)
    for each in series:
        times = [time.perf_counter()]
        read = detector.read(each)
        times.append(time.perf_counter())
        findings = detector(read)
        times.append(time.perf_counter())
        findings.save(out / each.parent.name)
        times.append(time.perf_counter())
        for step, (start, end) in zip(STEPS, pairwise(times), strict=True):
            seconds[step] += (end - start) / len(series)
    for step in STEPS:
        steps[step].append(seconds[step])


def predict_reading_ahead(detector: LesionDetector, series: Sequence[Path], out: Path) -> None:
    """Predict each scan while the next one is read."""
    for each, read in read_ahead(series, detector.read):
        findings = detector(read())
        findings.save(out / each.parent.name)

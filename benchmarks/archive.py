"""An archive of scans: seconds of reading, of the network and of writing, and what reading ahead saves."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from lens_d2 import LesionDetector
from lens_d2.io.parallel import read_ahead
from lens_d2.phantom.cohort import write_cohort
from lens_d2.phantom.plan import CohortPlan

from .registry import compare, measurement

MODEL = "phantom/lens_multi"
SCANS, MATRIX = 20, 512
STEPS = ("read", "detect", "write")


@measurement("archive")
def predict_archive() -> dict:
    """Predict a batch of DICOM series one after the other, and with the next one read meanwhile.

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
        findings = detector(series[0])
        findings.save(out)
        seconds = one_after_the_other(detector, series, out)
        start = time.perf_counter()
        for each, read in read_ahead(series, detector.read):
            findings = detector(read())
            findings.save(out / each.parent.name)
        ahead = (time.perf_counter() - start) / len(series)
    return compare(
        sum(seconds.values()),
        ahead,
        ratio="one after the other over reading ahead",
        seconds_a_scan=seconds,
        scans=len(series),
        slices_a_scan=sum(slices) / len(series),
        matrix=MATRIX,
        model=MODEL,
    )


def one_after_the_other(detector: LesionDetector, series: Sequence[Path], out: Path) -> dict[str, float]:
    """Seconds of each step, means of a scan, one scan after the other."""
    seconds = dict.fromkeys(STEPS, 0.0)
    for each in series:
        times = [time.perf_counter()]
        read = detector.read(each)
        times.append(time.perf_counter())
        findings = detector(read)
        times.append(time.perf_counter())
        findings.save(out / each.parent.name)
        times.append(time.perf_counter())
        for number, step in enumerate(STEPS):
            seconds[step] += (times[number + 1] - times[number]) / len(series)
    return seconds

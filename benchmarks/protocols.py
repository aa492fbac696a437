"""The evaluation's protocols: against plain loops, up to a million detections, and 1,000 bootstrap draws.

Loops are one pass over the sorted detections in plain Python, as the protocols' papers and scripts describe them.
"""

from __future__ import annotations

import time
from functools import partial

import numpy as np

from lens_d2.evaluation.bootstrap import intervals
from lens_d2.evaluation.curves import average_precision, read_extrapolating, read_highest
from lens_d2.evaluation.protocols import PROTOCOLS
from lens_d2.evaluation.sets import BoxDetections, BoxTruth, Candidates, NoduleTruth, Tracklets

from .registry import in_turns, measurement, worst_doubling


def by_volume(num_volumes: int, volume, *columns) -> list[list[tuple]]:
    """Rows of every volume."""
    rows: list[list[tuple]] = [[] for _ in range(num_volumes)]
    for v, *row in zip(volume.tolist(), *(column.tolist() for column in columns), strict=True):
        rows[v].append(tuple(row))
    return rows


def loop_lens3d(truth: BoxTruth, detections: BoxDetections, threshold: float = 0.3, fps=None) -> dict:
    """The protocol lens3d with the metric IOBB."""
    fps = PROTOCOLS.get("lens3d")(fps=fps).fps
    lesions = by_volume(len(truth.volumes), truth.volume, truth.boxes, np.arange(len(truth)))
    hit = [False] * len(truth)
    boxes, volume = detections.boxes.tolist(), detections.volume.tolist()
    hits = misses = 0
    curve_x, curve_y = [], []
    for i in np.argsort(detections.scores, kind="stable")[::-1].tolist():
        x1, y1, z1, x2, y2, z2 = boxes[i]
        size = (x2 - x1 + 1) * (y2 - y1 + 1) * (z2 - z1 + 1)
        best = -1.0
        for (a1, b1, c1, a2, b2, c2), lesion in lesions[volume[i]]:
            width = max(min(x2, a2) - max(x1, a1) + 1, 0)
            height = max(min(y2, b2) - max(y1, b1) + 1, 0)
            depth = max(min(z2, c2) - max(z1, c1) + 1, 0)
            overlap = width * height * depth / size
            best = max(best, overlap)
            if overlap >= threshold and not hit[lesion]:
                hit[lesion] = True
                hits += 1
        if best < threshold:
            misses += 1
        curve_x.append(misses / len(truth.volumes))
        curve_y.append(hits / len(truth))
    return {"sensitivity": read_highest(np.array(curve_x), np.array(curve_y), fps).tolist()}


def loop_p3d(truth: BoxTruth, detections: Tracklets, threshold: float = 0.5, fps=None) -> dict:
    """The protocol p3d."""
    fps = PROTOCOLS.get("p3d")(fps=fps).fps
    lesions = by_volume(len(truth.volumes), truth.volume, truth.boxes, np.arange(len(truth)))
    tracklets = by_volume(len(detections), detections.slice_detection, detections.slice_z, detections.slice_boxes)
    hit = [False] * len(truth)
    volume = detections.volume.tolist()
    hits = misses = repeats = 0
    curve_x, curve_y, precision, recall = [], [], [], []
    for i in np.argsort(detections.scores, kind="stable")[::-1].tolist():
        overlapped = False
        for (a1, b1, z, a2, b2, _), lesion in lesions[volume[i]]:
            box = next((box for level, box in tracklets[i] if level == z), None)
            if box is None:
                continue
            x1, y1, x2, y2 = box
            width = max(min(x2, a2) - max(x1, a1) + 1, 0)
            height = max(min(y2, b2) - max(y1, b1) + 1, 0)
            inter = width * height
            union = (x2 - x1 + 1) * (y2 - y1 + 1) + (a2 - a1 + 1) * (b2 - b1 + 1) - inter
            if inter / union < threshold:
                continue
            overlapped = True
            if hit[lesion]:
                repeats += 1
            else:
                hit[lesion] = True
                hits += 1
        if not overlapped:
            misses += 1
        curve_x.append(misses / len(truth.volumes))
        curve_y.append(hits / len(truth))
        precision.append(hits / max(hits + misses + repeats, 1))
        recall.append(hits / len(truth))
    return {
        "sensitivity": read_extrapolating(np.array(curve_x), np.array(curve_y), fps).tolist(),
        "ap": average_precision(np.array(precision), np.array(recall)),
    }


def loop_luna16(truth: NoduleTruth, candidates: Candidates, most: int = 100, fps=None) -> dict:
    """The protocol luna16."""
    fps = PROTOCOLS.get("luna16")(fps=fps).fps
    scans = len(truth.volumes)
    nodules = by_volume(scans, truth.volume, truth.centers, truth.diameters, np.arange(len(truth)))
    others = by_volume(scans, truth.excluded_volume, truth.excluded_centers, truth.excluded_diameters)
    scores, volume = candidates.scores.tolist(), candidates.volume.tolist()
    points = candidates.points.tolist()
    of_scan: list[list[float]] = [[] for _ in range(scans)]
    for v, score in zip(volume, scores, strict=True):
        of_scan[v].append(score)
    limit = [sorted(s, reverse=True)[most] if len(s) > most else -np.inf for s in of_scan]
    found: dict = {}
    counts = {"false_positives": 0, "ignored_excluded": 0, "ignored_double": 0}
    points_x, points_y, last = [0.0], [0.0], None
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        if scores[i] <= limit[volume[i]]:
            continue
        x, y, z = points[i]
        on_nodule = on_other = False
        for (a, b, c), diameter, nodule in nodules[volume[i]]:
            if (x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2 < (diameter / 2) ** 2:
                on_nodule = True
                counts["ignored_double"] += nodule in found
                found.setdefault(nodule, scores[i])
        if not on_nodule:
            for (a, b, c), diameter in others[volume[i]]:
                if (x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2 < (diameter / 2) ** 2:
                    on_other = True
                    break
            counts["ignored_excluded" if on_other else "false_positives"] += 1
        if scores[i] == last:  # equal probabilities enter the curve together
            points_x.pop()
            points_y.pop()
        last = scores[i]
        points_x.append(counts["false_positives"] / scans)
        points_y.append(len(found) / len(truth))
    sensitivity = read_highest(np.array(points_x), np.array(points_y), fps)
    counts |= {"true_positives": len(found), "false_negatives": len(truth) - len(found)}
    return {"sensitivity": sensitivity.tolist(), "cpm": float(sensitivity.mean()), **counts}


# Cases of the size of the published sets, with lesions hit, missed and hit again.


def spread_over(rng, num_volumes: int, number: int) -> np.ndarray:
    """(number,) random volumes, sorted."""
    return np.sort(rng.integers(0, num_volumes, number))


def case_lens3d(number: int = 14_000, volumes: int = 800, lesions: int = 4_155, seed: int = 0):
    """Lesions and detections in 3D."""
    rng = np.random.default_rng(seed)
    where = spread_over(rng, volumes, lesions)
    corner = rng.uniform([40, 40, 0], [400, 400, 40], (lesions, 3))
    truth = BoxTruth(
        [f"v{v:06d}" for v in range(volumes)],
        where,
        np.hstack([corner, corner + rng.uniform([8, 8, 1], [60, 60, 8], (lesions, 3))]),
    )
    volume = spread_over(rng, volumes, number)
    corner = rng.uniform([40, 40, 0], [400, 400, 40], (number, 3))
    boxes = np.hstack([corner, corner + rng.uniform([8, 8, 1], [60, 60, 8], (number, 3))])
    aimed = rng.choice(number, min(number, 2 * lesions), replace=False)
    target = rng.integers(0, lesions, len(aimed))
    volume[aimed], boxes[aimed] = where[target], truth.boxes[target] + rng.normal(0, 3, (len(aimed), 6))
    boxes[:, 3:] = np.maximum(boxes[:, 3:], boxes[:, :3])
    order = np.argsort(volume, kind="stable")
    return truth, BoxDetections(volume[order], boxes[order], rng.beta(1, 3, number)[order])


def case_p3d(number: int = 19_000, volumes: int = 1_071, lesions: int = 4_500, seed: int = 0):
    """Marks on lesions' middle slices, and tracklets."""
    truth, found = case_lens3d(number, volumes, lesions, seed)
    middle = np.round((truth.boxes[:, 2] + truth.boxes[:, 5]) / 2)
    marks = truth.boxes.copy()
    marks[:, 2] = marks[:, 5] = middle
    low, high = np.floor(found.boxes[:, 2]).astype(int), np.ceil(found.boxes[:, 5]).astype(int)
    owner = np.repeat(np.arange(number), high - low + 1)
    z = np.concatenate([np.arange(a, b + 1) for a, b in zip(low, high, strict=True)]).astype(float)
    boxes = found.boxes[owner][:, [0, 1, 3, 4]]
    tracklets = Tracklets(found.volume, found.scores, owner, z, boxes, found.scores[owner])
    return BoxTruth(truth.volumes, truth.volume, marks), tracklets


def case_luna16(number: int = 47_000, scans: int = 888, nodules: int = 1_186, others: int = 35_000, seed: int = 0):
    """Nodules, excluded findings, and candidates."""
    rng = np.random.default_rng(seed)
    low, high = [-160, -160, -400], [160, 160, -50]
    where, excluded = spread_over(rng, scans, nodules), spread_over(rng, scans, others)
    centers, diameters = rng.uniform(low, high, (nodules, 3)), rng.gamma(3, 3, nodules) + 3
    other = rng.uniform(low, high, (others, 3)), np.where(rng.random(others) < 0.8, 10, rng.gamma(3, 3, others))
    volume, points = spread_over(rng, scans, number), rng.uniform(low, high, (number, 3))
    aimed = rng.choice(number, min(number, 3 * nodules), replace=False)
    target = rng.integers(0, nodules, len(aimed))
    volume[aimed], points[aimed] = where[target], centers[target] + rng.normal(0, 2, (len(aimed), 3))
    truth = NoduleTruth([f"scan{v:04d}" for v in range(scans)], where, centers, diameters, excluded, *other)
    return truth, Candidates(volume, points, rng.beta(1, 3, number))


BASELINES = {"lens3d": loop_lens3d, "p3d": loop_p3d, "luna16": loop_luna16}
CASES = {"lens3d": case_lens3d, "p3d": case_p3d, "luna16": case_luna16}


def against_loop(name: str, *size: int, repeats: int = 5) -> dict:
    """The protocol ``name`` against its loop; size: arguments of the case, else the published set's."""
    truth, detections = CASES[name](*size)
    protocol, loop = PROTOCOLS.get(name)(), BASELINES[name]
    ours, theirs = protocol.evaluate(truth, detections).metrics, loop(truth, detections)
    assert np.allclose(ours["sensitivity"], theirs["sensitivity"], atol=1e-9), "the loop has other numbers"
    runs = {"loop": lambda: loop(truth, detections), "ours": lambda: protocol.evaluate(truth, detections)}
    times = in_turns(runs, repeats, warm=False, clock=time.process_time)
    details = {"detections": len(detections), "lesions": len(truth), "volumes": len(truth.volumes)}
    return {
        "ratio": times["loop"] / times["ours"],
        "baseline_seconds": times["loop"],
        "ours_seconds": times["ours"],
        "details": details | {"baseline": "one pass over the sorted detections in Python"},
    }


def doubling(name: str, rounds: int = 7) -> dict:
    """Up to a million detections on as many volumes and lesions; ratio: the worst of the doublings."""
    protocol = PROTOCOLS.get(name)()
    cases = {62_500 * 2**k: CASES[name](62_500 * 2**k) for k in range(5)}
    runs = {str(size): lambda case=case: protocol.evaluate(*case) for size, case in cases.items()}
    best = list(in_turns(runs, rounds, clock=time.process_time, average=min).values())
    details = {
        "detections": [len(detections) for _, detections in cases.values()],
        "seconds": best,
        "ratio": f"the worst time at twice the size over the time, the best of {rounds} each",
    }
    return {
        "ratio": worst_doubling(best),
        "baseline_seconds": best[-2],
        "ours_seconds": best[-1],
        "details": details,
    }


def draws(name: str, repeats: int = 5) -> dict:
    """1,000 bootstrap draws; ratio: their time over that of one evaluation."""
    truth, detections = CASES[name]()
    protocol = PROTOCOLS.get(name)()
    events = protocol.evaluate(truth, detections).match.events
    runs = {
        "one": lambda: protocol.evaluate(truth, detections),
        "draws": lambda: intervals(events, protocol, 1000, 0),
    }
    times = in_turns(runs, repeats, clock=time.process_time)
    details = {"draws": 1000, "ratio": "the draws' time over that of one evaluation (baseline_seconds)"}
    return {
        "ratio": times["draws"] / times["one"],
        "baseline_seconds": times["one"],
        "ours_seconds": times["draws"],
        "details": details,
    }


for _name in BASELINES:
    measurement(_name)(partial(against_loop, _name))
    measurement(f"{_name}_doubling")(partial(doubling, _name))
    measurement(f"{_name}_bootstrap")(partial(draws, _name))

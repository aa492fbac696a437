"""FROC of plain arrays, whoever has made them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..io.errors import did_you_mean
from ..io.tables import LARGEST
from .bootstrap import intervals
from .protocols import PROTOCOLS, Evaluation
from .readers.published import diameter_faults, known_diameters
from .sets import BoxDetections, BoxTruth, Candidates, NoduleTruth, Tracklets

TO_LAST_PIXEL = np.array([0.0, 0.0, -1.0, -1.0])  # pixel edges -> first and last pixel, x1, y1, x2, y2


def froc(
    truth: Mapping[str, ArrayLike],
    detections: Mapping[str, Any],
    protocol: str = "lens3d",
    *,
    draws: int = 0,
    seed: int = 0,
    **options: Any,
) -> Evaluation:
    """FROC under a published protocol.

    ========  ================================  ===========================================================
    protocol  truth of a volume                 detections in a volume
    ========  ================================  ===========================================================
    lens3d    (n, 6) x1, y1, z1, x2, y2, z2     (m, 7) the same and the score
    p3d       (n, 5) z, x1, y1, x2, y2          m arrays (k, 6), a row for each slice: z, x1, y1, x2, y2, score
    luna16    (n, 4) x, y, z, diameter          (m, 4) x, y, z, score
    ========  ================================  ===========================================================

    x and y of boxes are pixel edges (pixel i spans i to i + 1), z are slices, the last one included; of LUNA16 all
    are millimetres in any common frame, and a diameter below 0 means 10 mm.

    Args:
        truth: by volume; a volume without lesions has an empty array.
        detections: by volume; volumes may be absent.
        protocol: name in :data:`~lens_d2.evaluation.protocols.PROTOCOLS`.
        draws: bootstrap samples for 95% intervals of the sensitivities; 0: none.
        seed: of the bootstrap.
        options: of the protocol: ``fps``, ``threshold``, ``metric``.

    Returns:
        ``metrics`` ("sensitivity" at "fps", "average_sensitivity", ...) and ``curve``.

    Raises:
        ValueError: no such protocol or option, an array of another shape or not of finite numbers, boxes that end
            before they begin, a truth without a lesion, or detections in a volume that the truth does not have.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"no protocol {protocol!r}; there are {', '.join(name for name, _ in PROTOCOLS)}")
    strangers = sorted(set(detections) - set(truth), key=str)
    if strangers:
        raise ValueError(f"detections in {strangers[0]!r}, which the truth does not have")
    fps, threshold = np.asarray(options.get("fps", 1.0)), options.get("threshold", 0.5)
    if fps.dtype.kind not in "iuf" or not fps.size or not (np.isfinite(fps) & (fps > 0)).all():
        raise ValueError(f"fps is {options['fps']!r}: positive numbers belong there")
    if not isinstance(threshold, Real) or not 0 < float(threshold) <= 1:
        raise ValueError(f"threshold is {threshold!r}: a number in (0, 1] belongs there")
    for name, value, least in (("draws", draws, 0), ("max_candidates", options.get("max_candidates", 1), 1)):
        if not isinstance(value, Integral) or value < least:
            raise ValueError(f"{name} is {value!r}: a whole number from {least} belongs there")
    if not isinstance(options.get("metric", ""), str):
        raise ValueError(f"metric is {options['metric']!r}: a name belongs there")
    volumes, kind = list(truth), PROTOCOLS.get(protocol)
    known = inspect.signature(kind).parameters
    for option in options:
        if option not in known:
            raise ValueError(f"no option {option!r} of {protocol}{did_you_mean(option, known)}")
    for name, own in (*truth.items(), *detections.items()):
        if own is None:
            raise ValueError(f"{name!r}: None; a volume without boxes has an empty list")
    rule = kind(**options)
    lesions, found = _FORMS[protocol](volumes, truth, detections)
    if not len(lesions):
        raise ValueError("the truth has no lesion, of which a sensitivity would be the share that is found")
    evaluation = rule.evaluate(lesions, found)
    if draws:
        evaluation.metrics.update(intervals(evaluation.match.events, rule, draws, seed))
    return evaluation


def _boxes3d(volumes: list[str], truth: Mapping, detections: Mapping) -> tuple[BoxTruth, BoxDetections]:
    owner, lesions = _stacked(volumes, truth, 6, box=slice(0, 6))
    volume, found = _stacked(volumes, detections, 7, box=slice(0, 6))
    lesions[:, [0, 1, 3, 4]] += TO_LAST_PIXEL
    found[:, [0, 1, 3, 4]] += TO_LAST_PIXEL
    return BoxTruth(volumes, owner, lesions), BoxDetections(volume, found[:, :6], found[:, 6])


def _tracklets(volumes: list[str], truth: Mapping, detections: Mapping) -> tuple[BoxTruth, Tracklets]:
    owner, marks = _stacked(volumes, truth, 5, box=slice(1, 5))
    marks[:, 1:5] += TO_LAST_PIXEL
    for name, own in detections.items():
        if not isinstance(own, Iterable):
            raise ValueError(f"{name!r}: a list of arrays belongs here, not {own!r}")
    tracklets = {(name, i): t for name in volumes for i, t in enumerate(detections.get(name, ()))}
    detection, boxes = _stacked(list(tracklets), tracklets, 6, box=slice(1, 5))
    for key, count in zip(tracklets, np.bincount(detection, minlength=len(tracklets)), strict=True):
        if not count:
            raise ValueError(f"{key[0]!r}: a detection without a box")
    boxes[:, 1:5] += TO_LAST_PIXEL
    scores = np.full(len(tracklets), -np.inf)
    np.maximum.at(scores, detection, boxes[:, 5])
    number = {name: v for v, name in enumerate(volumes)}
    volume = np.array([number[name] for name, _ in tracklets], dtype=np.int64)
    return (
        BoxTruth(volumes, owner, marks[:, [1, 2, 0, 3, 4, 0]]),
        Tracklets(volume, scores, detection, boxes[:, 0], boxes[:, 1:5], boxes[:, 5]),
    )


def _nodules(volumes: list[str], truth: Mapping, detections: Mapping) -> tuple[NoduleTruth, Candidates]:
    owner, nodules = _stacked(volumes, truth, 4)
    volume, found = _stacked(volumes, detections, 4)
    for fault, bad in diameter_faults(nodules[:, 3]).items():
        if bad.any():
            raise ValueError(f"{volumes[owner[bad][0]]!r}: a nodule with {fault}")
    none = np.zeros(0, dtype=np.int64), np.zeros((0, 3)), np.zeros(0)
    return (
        NoduleTruth(volumes, owner, nodules[:, :3], known_diameters(nodules[:, 3]), *none),
        Candidates(volume, found[:, :3], found[:, 3]),
    )


_FORMS: dict[str, Callable[..., tuple[Any, Any]]] = {"lens3d": _boxes3d, "p3d": _tracklets, "luna16": _nodules}


def _stacked(
    names: Sequence, arrays: Mapping, columns: int, box: slice = slice(0)
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) number of the name and (n, columns) rows of all arrays in the order of the names; checks boxes."""
    tables = []
    for name in names:
        given = arrays.get(name, ())
        if isinstance(given, np.ma.MaskedArray):
            raise ValueError(f"{name!r}: a masked array: leave out what is masked")
        table = _numbers(name, given)
        table = table.reshape(-1, columns) if not table.size else table
        if table.ndim != 2 or table.shape[1] != columns:
            raise ValueError(f"{name!r}: an array of shape (n, {columns}) belongs here, not {table.shape}")
        if not (np.abs(table) <= LARGEST).all():
            raise ValueError(f"{name!r}: numbers that are not finite, or above {LARGEST:g}")
        low, high = np.split(table[:, box], 2, axis=1)
        if (low > high).any():
            raise ValueError(f"{name!r}: a box that ends before it begins")
        tables.append(table)
    owner = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    return owner, np.concatenate([np.zeros((0, columns)), *tables])


def _numbers(name, given: ArrayLike) -> np.ndarray:
    """An array as float64; ``name`` is the volume's, for errors."""
    try:
        table = np.asarray(given)
    except ValueError:
        raise ValueError(f"{name!r}: rows of different lengths") from None
    except RuntimeError as error:  # a tensor of torch that has a gradient
        raise ValueError(f"{name!r}: no array: {error}") from None
    if table.dtype == object:
        is_real = all(isinstance(value, Real) and not isinstance(value, bool) for value in table.flat)
    else:
        is_real = table.dtype.kind in "iuf" or not table.size
    if not is_real:
        raise ValueError(f"{name!r}: real numbers belong here, not {table.dtype}")
    try:
        return table.astype(np.float64)
    except OverflowError:
        raise ValueError(f"{name!r}: a number above {LARGEST:g}") from None

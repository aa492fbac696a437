"""Lesion-Harvester's protocol against a plain loop."""

import numpy as np
import pytest
from helpers.protocol_cases import FEW, SEEDS, boxes, scores, truth_of, volumes
from hypothesis import given

from benchmarks.protocols import loop_p3d
from lens_d2.evaluation.protocols import PROTOCOLS
from lens_d2.evaluation.sets import Tracklets


@given(SEEDS)
@FEW
def test_p3d(seed):
    rng = np.random.default_rng(seed)
    truth = truth_of(rng, volumes(rng), flat=True)
    number = int(rng.integers(1, 60))
    lengths = rng.integers(1, 6, number)
    owner = np.repeat(np.arange(number), lengths)
    z = rng.integers(0, 12, len(owner)).astype(float)  # in any order, and a slice twice
    slice_scores = scores(rng, len(owner))
    best = np.array([slice_scores[owner == n].max() for n in range(number)])
    volume, flat = rng.integers(0, len(truth.volumes), number), boxes(rng, len(owner))[:, [0, 1, 3, 4]]
    detections = Tracklets(volume, best, owner, z, flat, slice_scores)
    threshold = float(rng.choice([0.25, 0.3, 0.5, 1.0]))
    ours = PROTOCOLS.get("p3d")(threshold=threshold).evaluate(truth, detections).metrics
    loop = loop_p3d(truth, detections, threshold)
    assert ours["sensitivity"] == pytest.approx(loop["sensitivity"], abs=1e-12)
    assert ours["ap"] == pytest.approx(loop["ap"], abs=1e-12)

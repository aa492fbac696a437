"""LENS's protocol against a plain loop."""

import numpy as np
import pytest
from helpers.protocol_cases import FEW, SEEDS, boxes, scores, truth_of, volumes
from hypothesis import given

from benchmarks.protocols import loop_lens3d
from lens_d2.evaluation.protocols import PROTOCOLS
from lens_d2.evaluation.sets import BoxDetections


@given(SEEDS)
@FEW
def test_lens3d(seed):
    rng = np.random.default_rng(seed)
    truth = truth_of(rng, volumes(rng))
    number = int(rng.integers(1, 60))
    volume = np.sort(rng.integers(0, len(truth.volumes), number))
    detections = BoxDetections(volume, boxes(rng, number), scores(rng, number))
    threshold = float(rng.choice([0.25, 0.3, 0.5, 1.0]))
    ours = PROTOCOLS.get("lens3d")(threshold=threshold).evaluate(truth, detections).metrics
    loop = loop_lens3d(truth, detections, threshold)
    assert ours["sensitivity"] == pytest.approx(loop["sensitivity"], abs=1e-12)

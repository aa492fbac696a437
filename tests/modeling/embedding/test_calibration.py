"""The distance below which two boxes are one lesion."""

import json
import math

import numpy as np
import pytest

from lens_d2.data.same_lesions import Mark, MarkPairs
from lens_d2.modeling.embedding.calibration import calibrate, choose_distance, summarize


def test_the_distance_is_the_largest_of_the_wanted_precision():
    distances = np.arange(20) / 100 + 0.05
    same = np.ones(20, bool)
    same[[12, 16, 17]] = False
    # 0.9 holds up to 0.20 (15 of 16); with 16 and 17 it falls to 15 of 18, and rises to 17 of 20 only.
    assert choose_distance(distances, same, 0.9) == pytest.approx(0.205)
    assert choose_distance(distances, same, 0.99) == pytest.approx(0.165)
    assert choose_distance(distances[::-1], same[::-1], 0.9) == pytest.approx(0.205)
    assert choose_distance(distances, ~same, 0.9) is None
    assert choose_distance(np.zeros(0), np.zeros(0, bool), 0.9) is None
    # All are of one lesion: the last one lies below as well. Pairs at one distance are not parted.
    assert (distances < choose_distance(distances, np.ones(20, bool), 0.9)).all()
    assert choose_distance(np.full(20, 0.3), np.arange(20) < 12, 0.9) is None


def test_calibration_reports_what_it_found():
    distances = np.concatenate([np.linspace(0.01, 0.2, 20), np.linspace(0.195, 1, 30)])
    pairs = MarkPairs(np.zeros(50, int), np.zeros(50, int), np.arange(50) < 20)
    found = summarize(distances, pairs, 0.9, 0.15)
    near = distances < found.distance
    assert found.calibrated and (found.same_pairs, found.different_pairs) == (20, 30)
    assert (
        found.precision == pytest.approx(pairs.same[near].mean()) and found.precision >= 0.9 and found.recall == 1
    )
    assert found.same_quartiles[1] == pytest.approx(0.105) and "precision 0.9" in str(found)
    json.dumps(found.to_dict())
    few = summarize(distances[:5], MarkPairs(*(part[:5] for part in pairs)), 0.9, 0.25)
    assert few.distance == 0.25 and not few.calibrated and "as configured" in str(few)


def test_calibration_embeds_the_marks_of_its_pairs():
    """Fourteen patients with a lesion in two series each; embeddings that say which lesion it is."""
    marks = []
    for patient in range(14):
        for series in "ab":
            record = {"patient": str(patient), "series": f"{patient}{series}", "volume": f"{patient}{series}"}
            marks.append(Mark(record, 1, (0.0, 0.0, 4.0, 4.0), np.array([0.2, 0.4, 0.5])))
            marks.append(Mark(record, 2, (0.0, 0.0, 4.0, 4.0), np.array([0.6, 0.4, 0.5])))
    embedded = []

    def embed(items):
        embedded.extend(items)
        return np.array([[math.cos(z), math.sin(z)] for _, z, _ in items], dtype=np.float32)

    found = calibrate(embed, marks, 0.9, 0.15)
    assert found.calibrated and (found.same_pairs, found.different_pairs) == (28, 56)
    assert found.precision == found.recall == 1 and 0 < found.distance < 2 * math.sin(0.5)
    assert len(embedded) == 56

"""The bank of predictions: what persists over the visits of a slice."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lens_d2.modeling.prediction_bank import PredictionBank, Visit

WHOLE = (0.0, 0.0, 100.0, 100.0)
BOX, OTHER = (10.0, 10.0, 20.0, 20.0), (60.0, 60.0, 80.0, 80.0)


def visit(*boxes, view=WHOLE, volume="a", z=3):
    return Visit(volume, z, np.array(view), np.array(boxes, dtype=float).reshape(-1, 4))


def test_a_finding_counts_the_visits_running_in_which_it_is_made():
    bank = PredictionBank()
    counts = []
    for boxes in ([BOX], [BOX, OTHER], [OTHER], [BOX, OTHER]):
        counts.append(bank.visits(visit(*boxes)).tolist())
        bank.add([visit(*boxes)])
    assert counts == [[1], [2, 1], [2], [1, 3]]  # the box was missed once, and begins anew


def test_other_slices_and_sub_volumes_are_apart():
    bank = PredictionBank()
    bank.add([visit(BOX)])
    assert bank.visits(visit(BOX, z=4)).tolist() == bank.visits(visit(BOX, volume="b")).tolist() == [1]


def test_what_is_not_wholly_in_view_is_kept_as_it_is():
    bank = PredictionBank()
    bank.add([visit(BOX), visit(BOX), visit(view=(15.0, 0.0, 100.0, 100.0)), visit(view=(50, 50, 90, 90))])
    assert bank.visits(visit(BOX)).tolist() == [3]


@pytest.mark.parametrize(("moved", "count"), [(3, 2), (4, 1)])
def test_boxes_that_overlap_by_more_than_half_are_one_finding(moved, count):
    bank = PredictionBank()
    bank.add([visit(BOX)])
    assert bank.visits(visit(np.array(BOX) + [moved, 0, moved, 0])).tolist() == [count]


@given(st.lists(st.lists(st.sampled_from([BOX, OTHER, (30.0, 30.0, 44.0, 44.0)]), unique=True), max_size=6))
def test_a_checkpoint_holds_all_of_it(visits):
    bank, again = PredictionBank(), PredictionBank()
    bank.add(visit(*boxes, z=number % 2) for number, boxes in enumerate(visits))
    file = io.BytesIO()
    torch.save(bank.state_dict(), file)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    for z in (0, 1):
        asked = visit(BOX, OTHER, (30.0, 30.0, 44.0, 44.0), z=z)
        assert again.visits(asked).tolist() == bank.visits(asked).tolist()


def test_boxes_and_view_of_a_mirrored_sample_lie_in_the_volume_frame():
    sample = {
        "image": torch.zeros(9, 64, 80), "volume": "a", "slice": 3,
        "to_volume": np.array([[-2.0, 0, 200], [0, 2, 10]]),
    }  # fmt: skip
    found = Visit.of(sample, torch.tensor([[10.0, 20, 30, 25]]))
    assert (found.volume, found.slice) == ("a", 3)
    assert found.view.tolist() == [40, 10, 200, 138] and found.boxes.tolist() == [[140, 50, 180, 60]]
    assert Visit.of(sample, torch.zeros(0, 4)).boxes.shape == (0, 4)

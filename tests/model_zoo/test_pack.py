"""Packed weights: half precision, plain tensors, small, and of the same detector."""

import pytest
import torch

from lens_d2.evaluation.operating_points import OperatingPoints
from lens_d2.io.checkpoint import load_weights
from lens_d2.io.errors import DataError
from lens_d2.model_zoo.pack import LIMIT, pack_weights


@pytest.fixture
def checkpoint(tmp_path):
    state = {"backbone.weight": torch.randn(8, 8), "backbone.seen": torch.tensor(7), "head.weight": torch.randn(4)}
    torch.save({"model": state, "optimizer": {"step": 3}, "iteration": 99}, tmp_path / "model.pth")
    return tmp_path / "model.pth"


def test_only_halved_weights_and_operating_points_are_kept(checkpoint, tmp_path):
    points = OperatingPoints({1.0: 0.4}, 1.1, -0.2, "validation patients")
    packed = load_weights(
        pack_weights(checkpoint, tmp_path / "zoo/small.pth", operating_points={"fused": points}, note="n")
    )
    assert set(packed) == {"model", "operating_points", "note"} and packed["note"] == "n"
    original = load_weights(checkpoint)["model"]
    for name, value in packed["model"].items():
        expected = original[name]
        assert value.dtype == (torch.float16 if expected.is_floating_point() else expected.dtype)
        torch.testing.assert_close(value.to(expected.dtype), expected, rtol=1e-3, atol=1e-3)
    assert OperatingPoints.from_dict(packed["operating_points"]["fused"]) == points


def test_a_part_of_the_weights(checkpoint, tmp_path):
    packed = load_weights(pack_weights(checkpoint, tmp_path / "small.pth", prefix="backbone."))
    assert set(packed["model"]) == {"backbone.weight", "backbone.seen"}
    with pytest.raises(DataError, match="no weights whose names start with 'neck.'"):
        pack_weights(checkpoint, tmp_path / "none.pth", prefix="neck.")


def test_what_half_precision_does_not_hold_stays_as_it_is(tmp_path):
    state = {"norm.running_var": torch.tensor([1e-7, 1e6]), "norm.weight": torch.tensor([1e6]), "a": torch.ones(1)}
    torch.save({"model": state}, tmp_path / "large.pth")
    packed = load_weights(pack_weights(tmp_path / "large.pth", tmp_path / "small.pth"))["model"]
    assert {name: value.dtype for name, value in packed.items()} == {
        "norm.running_var": torch.float32, "norm.weight": torch.float32, "a": torch.float16,
    }  # fmt: skip
    assert all(torch.equal(packed[name], state[name]) for name in state)


def test_too_much_is_refused(tmp_path):
    torch.save({"model": {"a": torch.zeros(LIMIT // 2 + 1)}}, tmp_path / "many.pth")
    with pytest.raises(DataError, match="bytes of weights; at most 2,000,000 come with the package"):
        pack_weights(tmp_path / "many.pth", tmp_path / "small.pth")
    assert not (tmp_path / "small.pth").exists()

"""Weights of 2D networks in the backbone."""

import logging
import pickle

import numpy as np
import pytest
import torch
from torchvision.models.densenet import DenseNet

from lens_d2.io.errors import DataError
from lens_d2.modeling.backbone import DenseNet25D
from lens_d2.modeling.pretrained import load_backbone_weights

SMALL = {"growth_rate": 4, "block_config": (2, 3, 2), "init_features": 8, "out_channels": 12}


def small(num_slices=9, **kwargs):
    torch.manual_seed(0)
    return DenseNet25D(num_slices=num_slices, **SMALL, **kwargs)


def densenet_state():
    torch.manual_seed(1)
    net = DenseNet(SMALL["growth_rate"], (*SMALL["block_config"], 2), SMALL["init_features"], num_classes=5)
    return net.state_dict()


def old_names(state):
    """The names that torchvision's published files still have: "denselayer1.norm.1.weight"."""
    return {
        key.replace("norm1", "norm.1")
        .replace("norm2", "norm.2")
        .replace("conv1", "conv.1")
        .replace("conv2", "conv.2")
        if "denselayer" in key
        else key: value
        for key, value in state.items()
    }


@pytest.mark.parametrize("rename", [dict, old_names])
@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_weights_of_a_2d_densenet_reach_every_layer_of_the_trunk(tmp_path, caplog, rename, suffix):
    state = densenet_state()
    path = tmp_path / f"densenet{suffix}"
    if suffix == ".pth":
        torch.save(rename(state), path)
    else:
        path.write_bytes(pickle.dumps({k: np.asarray(v) for k, v in rename(state).items()}))
    backbone = small()
    with caplog.at_level(logging.INFO):
        load_backbone_weights(backbone, str(path))
    own = backbone.state_dict()
    assert torch.equal(own["stem.0.weight"], state["features.conv0.weight"])
    assert torch.equal(
        own["block3.denselayer2.conv2.weight"], state["features.denseblock3.denselayer2.conv2.weight"]
    )
    assert torch.equal(own["transition2.conv.weight"], state["features.transition2.conv.weight"])
    unmatched = [r.getMessage() for r in caplog.records if "not used" in r.getMessage()]
    assert any("classifier.weight" in line for line in unmatched)
    assert any("denseblock4" in line for line in unmatched)
    new = [r.getMessage() for r in caplog.records if "not in the file" in r.getMessage()]
    assert any("laterals.0.weight" in line for line in new) and not any("block1" in line for line in new)


def test_the_backbone_of_a_detector_is_taken_whole(tmp_path, caplog):
    detector = torch.nn.ModuleDict({"backbone": small(), "roi_heads": torch.nn.Linear(2, 2)})
    torch.save({"model": detector.state_dict(), "iteration": 3}, tmp_path / "model_final.pth")
    backbone = small()
    with caplog.at_level(logging.INFO):
        load_backbone_weights(backbone, str(tmp_path / "model_final.pth"))
    for key, value in detector["backbone"].state_dict().items():
        assert torch.equal(backbone.state_dict()[key], value), key
    assert "not in the file" not in caplog.text and "roi_heads.weight" in caplog.text


def test_without_weights_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        load_backbone_weights(small(), "")
    assert "random weights" in caplog.text


@pytest.mark.parametrize(
    "state, fault",
    [
        ({"something.else": torch.zeros(1)}, "no key"),
        ({"features.conv0.weight": torch.zeros(1, 3, 7, 7)}, "another shape"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path, state, fault):
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(DataError, match=fault):
        load_backbone_weights(small(), str(tmp_path / "other.pth"))


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "cut.pth"
    torch.save(densenet_state(), path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match="cut.pth"):
        load_backbone_weights(small(), str(path))

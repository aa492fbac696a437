"""The 2.5D DenseNet: structure, fusions, norms."""

import pytest
import torch

from lens_d2.modeling.backbone import DenseNet25D

SMALL = {"growth_rate": 4, "block_config": (2, 3, 2), "init_features": 8, "out_channels": 12}


def small(num_slices=9, **kwargs):
    torch.manual_seed(0)
    return DenseNet25D(num_slices=num_slices, **SMALL, **kwargs)


def test_paper_size_has_the_papers_structure():
    with torch.device("meta"):
        backbone = DenseNet25D(num_slices=9)
    assert backbone.fuse_trunk.conv.in_channels == 3 * 256  # after transition 2
    assert backbone.fuse_trunk.conv.out_channels == 256
    assert backbone.fuse_pyramid.conv.in_channels == 3 * 512
    assert [lateral.in_channels for lateral in backbone.laterals] == [256, 512, 1024]
    assert [len(block) for block in (backbone.block1, backbone.block2, backbone.block3)] == [6, 12, 24]
    assert backbone.output_shape()["p2"].channels == 512
    assert backbone.output_shape()["p2"].stride == 4


@pytest.mark.parametrize("num_slices", [3, 9, 15])
def test_one_stride_4_map(num_slices):
    features = small(num_slices)(torch.rand(2, num_slices, 32, 48))
    assert list(features) == ["p2"]
    assert features["p2"].shape == (2, 12, 8, 12)


@pytest.mark.parametrize("num_slices", [6, 8])
def test_slices_that_make_no_central_image_are_refused(num_slices):
    with pytest.raises(ValueError, match="NUM_SLICES"):
        small(num_slices)


def test_neighbouring_images_reach_the_output_only_through_the_fusions():
    backbone = small().eval()
    sample = torch.rand(1, 9, 32, 32)
    other = sample.clone()
    other[:, :3] = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert not torch.allclose(backbone(sample)["p2"], backbone(other)["p2"])
        for fusion in (backbone.fuse_trunk, backbone.fuse_pyramid):
            channels = fusion.conv.out_channels
            fusion.conv.weight[:, :channels] = 0
        torch.testing.assert_close(backbone(sample)["p2"], backbone(other)["p2"])


def test_frozen_norm_has_no_parameters_and_does_not_move():
    backbone = small(norm="FrozenBN").train()
    before = {k: v.clone() for k, v in backbone.state_dict().items() if "running" in k}
    backbone(torch.rand(1, 9, 32, 32))
    after = backbone.state_dict()
    assert before and all(torch.equal(after[k], v) for k, v in before.items())
    assert not any("norm" in name for name, _ in backbone.named_parameters())

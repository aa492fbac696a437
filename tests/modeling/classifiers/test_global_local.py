"""Global-local classifiers: the views and regions that count, and their weights."""

import pytest
import torch
import torchvision
from helpers.classifiers import lpc_cfg

from lens_d2.io.errors import DataError
from lens_d2.modeling.classifiers import build_classifier
from lens_d2.modeling.classifiers.global_local import BOX, PATCH


@pytest.fixture
def cfg(tmp_path):
    return lpc_cfg(tmp_path)


@pytest.mark.parametrize("name, region, sees_around, sees_box", [
    ("ResNet_MV", BOX, False, True), ("ResNet_3D", BOX, False, True), ("ResNet_3D", PATCH, True, False),
    ("GLC_MV", BOX, True, True), ("GLC", BOX, True, True), ("GLC_3D", BOX, True, True),
])  # fmt: skip
def test_what_of_a_patch_counts(cfg, name, region, sees_around, sees_box):
    """Pooled before the first block, what lies far from the box counts for global features alone."""
    cfg.MODEL.LPC.NAME, cfg.MODEL.LPC.RESNET_REGION, cfg.MODEL.LPC.POOL_AFTER = name, region, 0
    cfg.MODEL.LPC.PATCH_SIZE = (8, 64, 64)
    torch.manual_seed(0)
    classifier = build_classifier(cfg, "LPC").eval()
    patch, box = torch.randn(1, 1, 8, 64, 64) * 100, torch.tensor([[30.0, 30, 2, 36, 36, 6]])
    changed = patch.clone()
    changed[..., 60:] += 500
    changed[..., :60, :4] += 500
    other = torch.tensor([[22.0, 24, 2, 36, 36, 6]])
    with torch.no_grad():
        logit = classifier(patch, box)
        assert bool((classifier(changed, box) != logit).any()) == sees_around
        assert bool((classifier(patch, other) != logit).any()) == sees_box


def test_only_the_transverse_plane_counts_for_glc(cfg):
    cfg.MODEL.LPC.NAME = "GLC"
    classifier = build_classifier(cfg, "LPC").eval()
    patch, box = torch.randn(1, 1, 8, 32, 32) * 100, torch.tensor([[10.0, 8, 2, 20, 22, 5]])
    other = patch.clone()
    other[:, :, [0, 1, 2, 5, 6, 7]] += 500
    with torch.no_grad():
        assert torch.equal(classifier(patch, box), classifier(other, box))
        cfg.MODEL.LPC.NAME = "GLC_MV"
        classifier = build_classifier(cfg, "LPC").eval()
        assert not torch.equal(classifier(patch, box), classifier(other, box))


def test_paper_sized_networks_are_resnet18s(cfg, tmp_path):
    """At width 64 all six paths of GLC-MV start from the file's kernels, read as data only."""
    torch.manual_seed(1)
    resnet = torchvision.models.resnet18()
    torch.save(resnet.state_dict(), tmp_path / "resnet18.pth")
    cfg.MODEL.LPC.WIDTH = 64
    classifier = build_classifier(cfg, "LPC")
    classifier.load_initial_weights(str(tmp_path / "resnet18.pth"))
    assert len(classifier.encoders) == 3
    for encoder in classifier.encoders:
        torch.testing.assert_close(
            encoder.trunk.conv1.weight, resnet.conv1.weight.sum(dim=1, keepdim=True), rtol=1e-5, atol=1e-6
        )
        layers = [resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4]
        for block, layer in zip(encoder.trunk.blocks, layers, strict=True):
            for key, value in block.state_dict().items():
                assert torch.equal(value, layer.state_dict()[key])
        (tail,) = encoder.tails
        assert torch.equal(tail[1][1].conv2.weight, resnet.layer4[1].conv2.weight)
        assert tail[1][1].conv2.weight is not encoder.trunk.layer4[1].conv2.weight
    torch.save({"layer1": print}, tmp_path / "code.pth")
    with pytest.raises(DataError, match="code.pth"):
        classifier.load_initial_weights(str(tmp_path / "code.pth"))

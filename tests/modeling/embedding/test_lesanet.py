"""The network of the lesion embedding."""

import pytest
import torch
import torchvision
from detectron2.config import get_cfg
from helpers.marks import embedding_cfg

from lens_d2 import add_lens_config
from lens_d2.modeling.embedding import LesaNet


@pytest.fixture
def cfg(tmp_path):
    return embedding_cfg(tmp_path)


def test_the_stages_are_those_of_torchvisions_vgg16():
    cfg = get_cfg()
    add_lens_config(cfg)
    with torch.device("meta"):
        network = LesaNet(cfg, 171)
        reference = torchvision.models.vgg16_bn(num_classes=2, init_weights=False).features[:-1]
    own = torch.nn.Sequential(*(module for stage in network.stages for module in stage))
    assert [type(module) for module in own] == [type(module) for module in reference]
    assert [p.shape for p in own.parameters()] == [p.shape for p in reference.parameters()]
    assert network.embedding.weight.shape == (256, 5 * 256) and network.label_scores.weight.shape == (171, 5 * 256)
    assert network.stage_fcs[4].in_features == 512 * 25


def test_outputs(cfg):
    network = LesaNet(cfg, 6).eval()
    patches, boxes = torch.randn(4, 3, 32, 32) * 300, torch.tensor([[8.0, 8, 24, 24]]).expand(4, -1)
    embedding, logits, propagated = network(patches, boxes)
    assert embedding.shape == (4, 16) and logits.shape == (4, 6)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(propagated, logits)  # propagation starts as the identity
    (embedding.sum() + propagated.sum()).backward()
    assert all(p.grad is not None for p in network.parameters())


def test_the_box_is_where_fine_stages_look_and_the_patch_where_coarse_ones_do(cfg):
    network = LesaNet(cfg, 6).eval()
    patch = torch.randn(1, 3, 32, 32) * 300
    whole, small = torch.tensor([[0.0, 0, 32, 32]]), torch.tensor([[10.0, 12, 18, 20]])
    seen = {}
    for number, fc in enumerate(network.stage_fcs):
        fc.register_forward_hook(lambda module, args, out, number=number: seen.setdefault(number, []).append(out))
    with torch.no_grad():
        network(patch, whole)
        network(patch, small)
    same = [torch.equal(*seen[number]) for number in range(5)]
    assert same == [False, False, False, True, True]


def test_it_starts_from_a_vgg16(cfg, tmp_path):
    layers = [v if v == "M" else v // 32 for v in torchvision.models.vgg.cfgs["D"]]  # two channels at first
    features = torchvision.models.vgg.make_layers(layers, batch_norm=True)
    state = {f"features.{key}": value for key, value in features.state_dict().items()}
    torch.save(state | {"classifier.0.weight": torch.zeros(3, 3)}, tmp_path / "vgg.pth")
    network = LesaNet(cfg, 3)
    network.load_initial_weights(str(tmp_path / "vgg.pth"))
    own = torch.nn.Sequential(*(module for stage in network.stages for module in stage))
    for key, value in own.state_dict().items():
        assert torch.equal(value, features.state_dict()[key])

"""Adapters of the backbone: how they start, what they learn from, what each expert sees."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from lens_d2.engine import build_optimizer
from lens_d2.modeling.adapters import ADAPTERS, AdaptedConv2d, DomainAttention
from lens_d2.modeling.backbone import DenseNet25D

EXPERTS = ("deeplesion", "luna", "lits", "nih_ln")


@pytest.fixture
def adapted(small_cfg):
    def build(name):
        small_cfg.MODEL.DENSENET.ADAPTERS = name
        torch.manual_seed(0)
        return build_model(small_cfg)

    return build


def own_adapters(model, domain):
    return {n: p for n, p in model.named_parameters() if n.endswith(f".adapters.{domain}")}


def test_an_adapter_is_a_1x1_convolution_beside_the_shared_one():
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(5, 3, 3, padding=1, bias=False)
    adapted = AdaptedConv2d(conv, ("a", "b"))
    x = torch.rand(2, 5, 8, 7)
    adapted.domain = "a"
    torch.testing.assert_close(adapted(x), conv(x))
    torch.nn.init.normal_(adapted.adapters["a"])
    beside = torch.nn.functional.conv2d(x, adapted.adapters["a"][..., None, None])
    torch.testing.assert_close(adapted(x), conv(x) + beside)
    adapted.domain = "b"
    torch.testing.assert_close(adapted(x), conv(x))
    adapted.domain = None
    with pytest.raises(ValueError, match="None is none of a, b"):
        adapted(x)


def test_a_step_teaches_the_adapters_of_its_own_dataset_alone(adapted, small_cfg, make_batch):
    model = adapted("residual")
    assert model.domains == EXPERTS
    optimizer = build_optimizer(small_cfg, model)
    with EventStorage():
        sum(model(make_batch("luna")).values()).backward()
    optimizer.step()
    assert len(own_adapters(model, "luna")) == 6
    assert all(parameter.any() for parameter in own_adapters(model, "luna").values())
    for other in {*EXPERTS} - {"luna"}:
        assert not any(parameter.any() for parameter in own_adapters(model, other).values())


def test_each_expert_sees_its_own_maps(adapted, make_batch):
    model, batch = adapted("residual").eval(), make_batch("luna", 1)
    with torch.no_grad():
        before = model(batch)[0]["experts"]
        for parameter in own_adapters(model, "luna").values():
            torch.nn.init.normal_(parameter)
        maps = model._features(model.preprocess_image([batch[0]["image"]]).tensor)
    assert list(before) == ["fused", *EXPERTS] and list(maps) == list(EXPERTS)
    torch.testing.assert_close(maps["lits"]["p2"], maps["deeplesion"]["p2"])
    assert not torch.allclose(maps["luna"]["p2"], maps["deeplesion"]["p2"])


def test_domain_attention_assigns_by_the_image_and_starts_nearly_open(adapted, make_batch):
    model = adapted("domain_attention")
    assert model.domains == ()
    banks = [module for module in model.modules() if isinstance(module, DomainAttention)]
    assert [len(bank.adapters) for bank in banks] == [4, 4, 4]
    x = torch.rand(2, banks[0].assign.in_features, 4, 4)
    gates = banks[0](x) / x
    assert (gates > 0.85).all() and (gates < 1).all()
    torch.testing.assert_close(gates, gates[..., :1, :1].expand_as(gates))
    with EventStorage():
        sum(model(make_batch("luna")).values()).backward()
    learnt = [p for bank in banks for p in (bank.assign.weight, *(adapter[-1].bias for adapter in bank.adapters))]
    assert all(p.grad.any() for p in learnt)


@pytest.mark.parametrize("name", [name for name, _ in ADAPTERS])
def test_a_tenth_more_parameters_and_the_same_names_for_the_shared_ones(name):
    """Table IV: 1.1 times the model's size."""
    with torch.device("meta"):
        plain = dict(DenseNet25D(num_slices=9).named_parameters())
        more = dict(DenseNet25D(num_slices=9, adapters=name, domains=EXPERTS).named_parameters())
    assert all(more[key].shape == value.shape for key, value in plain.items())
    added = sum(more[key].numel() for key in more.keys() - plain.keys())
    assert 0.05 < added / sum(value.numel() for value in plain.values()) < 0.2

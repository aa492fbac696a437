"""The folded backbone computes what the backbone does."""

import pytest
import torch

from lens_d2.inference.folded_backbone import FoldedDenseNet25D
from lens_d2.modeling.backbone import DenseNet25D

SMALL = {"growth_rate": 4, "block_config": (2, 3, 2), "init_features": 8, "out_channels": 12}


@pytest.mark.parametrize(
    ("num_slices", "norm", "adapters"),
    [
        (3, "BN", ""),
        (9, "BN", ""),
        (15, "FrozenBN", ""),
        (9, "FrozenBN", "residual"),
        (9, "BN", "domain_attention"),
        (3, "BN", "residual"),
    ],
)
def test_folded_the_backbone_gives_the_same_map(num_slices, norm, adapters):
    torch.manual_seed(0)
    backbone = DenseNet25D(num_slices=num_slices, norm=norm, adapters=adapters, domains=("a", "b"), **SMALL).eval()
    for name, parameter in backbone.named_parameters():
        if name.endswith(".adapters.b"):
            torch.nn.init.normal_(parameter)
    domain = "b" if backbone.domains else None
    for module in backbone.modules():
        if hasattr(module, "running_var"):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_()
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    for conv in backbone.laterals:
        torch.nn.init.normal_(conv.bias)
    sample = torch.rand(2, num_slices, 32, 48)
    with torch.no_grad():
        whole, folded = backbone(sample, domain), FoldedDenseNet25D(backbone, domain)
        parts = folded.decode([folded.encode(image) for image in sample.split(3, dim=1)])
    assert list(parts) == list(whole)
    torch.testing.assert_close(parts["p2"], whole["p2"], atol=1e-4, rtol=1e-4)

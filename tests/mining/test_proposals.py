"""What the proposals of a model depend on."""

import torch
from helpers.blocks import blocks_cfg

from lens_d2.mining.proposals import fingerprint


def test_the_fingerprint_is_of_the_weights_and_of_what_proposals_depend_on(tmp_path):
    model = torch.nn.Linear(2, 2)
    first = fingerprint(blocks_cfg(tmp_path), model)
    elsewhere = ("MODEL.DENSENET.WEIGHTS", "moved.pth", "INPUT.CACHE_DIR", "moved", "MODEL.FPR.FC_DIM", 3)
    assert fingerprint(blocks_cfg(tmp_path, *elsewhere), model) == first
    for key, value in (("TEST.LINK_IOU", 0.4), ("INPUT.SLICE_INTERVAL", 2.5), ("MODEL.AFP.CONV_DIM", 4)):
        assert fingerprint(blocks_cfg(tmp_path, key, value), model) != first
    assert fingerprint(blocks_cfg(tmp_path), torch.nn.Linear(2, 2)) != first

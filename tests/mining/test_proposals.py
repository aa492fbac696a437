"""What the proposals of a model depend on, and how they are told apart."""

from unittest import mock

import pytest
import torch
from helpers.blocks import blocks_cfg

from lens_d2.io.errors import DataError
from lens_d2.mining.proposals import fingerprint, propose


def test_the_fingerprint_is_of_the_weights_and_of_what_proposals_depend_on(tmp_path):
    model = torch.nn.Linear(2, 2)
    first = fingerprint(blocks_cfg(tmp_path), model)
    elsewhere = ("MODEL.DENSENET.WEIGHTS", "moved.pth", "INPUT.CACHE_DIR", "moved", "MODEL.FPR.FC_DIM", 3)
    assert fingerprint(blocks_cfg(tmp_path, *elsewhere), model) == first
    for key, value in (("TEST.LINK_IOU", 0.4), ("INPUT.SLICE_INTERVAL", 2.5), ("MODEL.AFP.CONV_DIM", 4)):
        assert fingerprint(blocks_cfg(tmp_path, key, value), model) != first
    assert fingerprint(blocks_cfg(tmp_path), torch.nn.Linear(2, 2)) != first


def test_sub_volumes_of_two_datasets_have_names_of_their_own():
    shards = mock.Mock()
    records = [{"volume": "case_00000", "expert": expert} for expert in ("kits", "kits", "lits")]
    propose(records[:2], shards)
    with pytest.raises(DataError, match="case_00000: a sub-volume of kits and one of lits have this name"):
        propose(records, shards)
    assert shards.complete.call_count == 1

"""Other detectors than LENS as whole runs: training, evaluation, proposals, inference by shared trunk."""

import copy
import json

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.utils.events import EventStorage
from helpers.blocks import blocks_cfg, register_blocks

from lens_d2.data.mapper import SliceMapper
from lens_d2.engine import LENSTrainer
from lens_d2.inference.volume import VolumeInference, num_interpolated_slices
from lens_d2.mining.proposals import open_shards, propose
from lens_d2.structures.status import BoxStatus

ONE_DATASET = ("DATASETS.TRAIN", ("blocks_deeplesion",), "MODEL.LENS.EXPERTS", ("deeplesion",))
TWO = ("deeplesion", "luna")
TWO_DATASETS = ("DATASETS.TRAIN", tuple(f"blocks_{expert}" for expert in TWO), "MODEL.LENS.EXPERTS", TWO)
MASKS = ("MODEL.MULAN.MASK_ON", True, "MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHead")
SMALL = ("MODEL.CENTERNET.CONV_DIM", 8, "MODEL.RPN.CONV_DIMS", [8], "SOLVER.MAX_ITER", 2, "TEST.OVERLAYS", 0)
DETECTORS = {
    "CECN": ("MODEL.META_ARCHITECTURE", "CECN"),
    "CenterNet": ("MODEL.META_ARCHITECTURE", "CECN", "INPUT.NUM_SLICES", 3),
    "Faster R-CNN": ("MODEL.PROPOSAL_GENERATOR.NAME", "LENSRPN"),
    "MULAN": ("MODEL.PROPOSAL_GENERATOR.NAME", "LENSRPN", "MODEL.ROI_HEADS.NAME", "MULANROIHeads", *MASKS),
    "residual adapters": (*TWO_DATASETS, "MODEL.DENSENET.ADAPTERS", "residual", "SOLVER.MAX_ITER", 4),
    "domain attention": (*TWO_DATASETS, "MODEL.DENSENET.ADAPTERS", "domain_attention"),
}


@pytest.mark.parametrize("name", DETECTORS)
def test_trains_evaluates_and_proposes(tmp_path, name):
    register_blocks(tmp_path / "data")
    cfg = blocks_cfg(tmp_path, *ONE_DATASET, *SMALL, *DETECTORS[name], "TEST.LINK_SCORE_THRESH", 0.0)
    torch.manual_seed(0)
    trainer = LENSTrainer(cfg)
    trainer.resume_or_load()
    trainer.train()
    metrics = json.loads((tmp_path / "output/inference/blocks_deeplesion/metrics.json").read_text())
    assert set(metrics["experts"]) == {"fused", *cfg.MODEL.LENS.EXPERTS} - {cfg.MODEL.LENS.OUTPUT}

    records = DatasetCatalog.get("blocks_deeplesion")[:1]
    shards = open_shards(cfg, trainer.model, tmp_path / "proposals")
    propose(records, shards)
    assert set(shards.read(records[0])) == {"fused", *cfg.MODEL.LENS.EXPERTS}

    inference, found = VolumeInference(cfg, trainer.model.eval()), []
    volume = inference.cache.open(records[0])
    for features, sizes in inference.slice_features(volume, 1.0):
        with torch.no_grad():
            found += trainer.model.detect(features, sizes)
    mapper = SliceMapper(cfg, is_train=False)
    ratio = cfg.INPUT.SLICE_INTERVAL / volume.geometry.slice_interval
    assert len(found) == num_interpolated_slices(volume, cfg.INPUT.SLICE_INTERVAL)
    for level, ours in enumerate(found[:4]):
        with torch.no_grad():
            (plain,) = trainer.model([{"image": torch.from_numpy(mapper.read(volume, level * ratio))}])
        ours, plain = ours["instances"], plain["instances"]
        torch.testing.assert_close(ours.scores, plain.scores, atol=1e-4, rtol=0)
        torch.testing.assert_close(ours.pred_boxes.tensor, plain.pred_boxes.tensor, atol=1e-2, rtol=0)


def test_hard_negatives_of_a_record_reach_the_loss(tmp_path):
    register_blocks(tmp_path / "data")
    record = copy.deepcopy(DatasetCatalog.get("blocks_deeplesion")[0])
    negative = record["lesions"][1]
    negative["status"] = "hard_negative"
    losses = []
    for suppress in (True, False):
        cfg = blocks_cfg(tmp_path, *ONE_DATASET, *SMALL, *DETECTORS["CECN"])
        cfg.MODEL.CENTERNET.SUPPRESS_HARD_NEGATIVES = suppress
        sample = SliceMapper(cfg, is_train=False)(record, negative["key_slice"])
        assert BoxStatus.HARD_NEGATIVE in sample["instances"].gt_status
        torch.manual_seed(0)
        with EventStorage():
            losses.append(LENSTrainer.build_model(cfg)([sample])["loss_centernet_center"].item())
    assert losses[0] > losses[1] > 0

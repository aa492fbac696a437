"""CECN as a detector: what it is made of, a step, its detections, and the one-stage form of LENS."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import META_ARCH_REGISTRY, build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from lens_d2 import add_lens_config
from lens_d2.engine import STAGES
from lens_d2.mining.lens.strategies import STRATEGIES
from lens_d2.modeling import CECN, FUSED, CenterNet
from lens_d2.modeling.meta_arch import one_stage_detections


@pytest.fixture
def cecn_cfg(small_cfg):
    small_cfg.MODEL.META_ARCHITECTURE = "CECN"
    small_cfg.MODEL.LENS.EXPERTS = ("deeplesion",)
    small_cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    return small_cfg


def test_registered_and_made_of_centernets_head_alone(cecn_cfg):
    model = build_model(cecn_cfg)
    assert META_ARCH_REGISTRY.get("CECN") is CECN and model.roi_heads is None
    assert isinstance(model.proposal_generators["deeplesion"], CenterNet)
    assert cecn_cfg.MODEL.PROPOSAL_GENERATOR.NAME == "AFP"  # the caller's config is not touched


def test_a_step_teaches_everything(cecn_cfg, make_batch):
    model = build_model(cecn_cfg)
    with EventStorage():
        losses = model(make_batch("deeplesion"))
    assert set(losses) == {"loss_centernet_center", "loss_centernet_size", "loss_centernet_offset"}
    sum(losses.values()).backward()
    assert not [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]


@pytest.mark.parametrize("slices, images", [(9, 3), (3, 1)])
def test_centernet_is_cecn_of_one_image(cecn_cfg, slices, images):
    cecn_cfg.INPUT.NUM_SLICES = slices
    torch.manual_seed(0)
    model = build_model(cecn_cfg).eval()
    assert model.backbone.num_images == images and (model.backbone.fuse_trunk is None) == (images == 1)
    with torch.no_grad():
        (result,) = model([{"image": torch.rand(slices, 64, 80) * 255}])
    found = result["experts"]["deeplesion"]
    assert list(result["experts"]) == [FUSED, "deeplesion"] and len(found)
    assert torch.equal(found.expert_scores[:, 0], found.scores)


def test_one_stage_is_a_config_key_of_lens(small_cfg, make_batch):
    small_cfg.MODEL.LENS.ONE_STAGE = True
    model = build_model(small_cfg)
    with EventStorage():
        losses = model(make_batch("luna"))
    assert set(losses) == {"loss_afp_center", "loss_afp_size"}
    sum(losses.values()).backward()
    taught = {n.split(".")[1] for n, p in model.named_parameters() if n.startswith("prop") and p.grad is not None}
    assert taught == {"luna"}
    with torch.no_grad():
        (result,) = model.eval()(make_batch("luna", 1))
    assert list(result["experts"]) == [FUSED, *small_cfg.MODEL.LENS.EXPERTS]
    assert len(result["instances"]) and result["instances"].expert_scores.shape[1] == 4


def test_detections_say_what_each_expert_thinks_of_the_place():
    def proposals(boxes, scores):
        logits = torch.logit(torch.tensor(scores))
        return Instances((100, 100), proposal_boxes=Boxes(torch.tensor(boxes)), objectness_logits=logits)

    found = one_stage_detections(
        {
            "a": proposals([[10.0, 10, 30, 30], [11, 11, 31, 31], [60, 60, 80, 80]], [0.6, 0.5, 0.3]),
            "b": proposals([[10.0, 10, 30, 31], [0, 0, 5, 5]], [0.8, 0.005]),
        },
        score_thresh=0.01,
        nms_thresh=0.5,
        topk=10,
    )
    torch.testing.assert_close(found["a"].expert_scores, torch.tensor([[0.6, 0.8], [0.3, 0.0]]))
    torch.testing.assert_close(found["b"].expert_scores, torch.tensor([[0.6, 0.8]]))


@pytest.mark.parametrize("folder", ["", "phantom/"])
@pytest.mark.parametrize(
    "name, architecture, generator, slices",
    [
        ("cecn", "CECN", None, 9),
        ("centernet", "CECN", None, 3),
        ("faster_rcnn", "LENS", "LENSRPN", 9),
        ("mgtm_sllp", "CECN", None, 9),
    ],
)
def test_configs_are_those_of_table_4(repo_root, folder, name, architecture, generator, slices):
    cfg = get_cfg()
    add_lens_config(cfg)
    cfg.merge_from_file(str(repo_root / "configs" / f"{folder}{name}.yaml"))
    assert (cfg.MODEL.META_ARCHITECTURE, cfg.INPUT.NUM_SLICES) == (architecture, slices)
    assert generator is None or cfg.MODEL.PROPOSAL_GENERATOR.NAME == generator
    assert (cfg.MODEL.CENTERNET.ALPHA, cfg.MODEL.CENTERNET.BETA) == (2, 4)
    assert cfg.MODEL.LENS.EXPERTS == ("deeplesion",) and len(cfg.DATASETS.TRAIN) == 1
    assert [strategy for strategy in cfg.MINING.STRATEGIES if strategy not in STRATEGIES] == []
    assert [stage for stage in cfg.STAGES if stage not in STAGES] == []

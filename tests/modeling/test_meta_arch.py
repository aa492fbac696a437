"""LENS as a whole: what a step updates, the losses of Eq. 1, the experts' fusion, one stage; CECN."""

import copy

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import META_ARCH_REGISTRY, ROI_HEADS_REGISTRY, build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from lens_d2 import add_lens_config
from lens_d2.config import load_config
from lens_d2.engine import STAGES, build_optimizer
from lens_d2.mining.lens.strategies import STRATEGIES
from lens_d2.modeling import CECN, LENS, CenterNet, LENSROIHeads
from lens_d2.modeling.meta_arch import fuse_experts, one_stage_detections
from lens_d2.structures.detections import FUSED

EXPERTS = ("deeplesion", "luna", "lits", "nih_ln")


def test_registered_under_their_names():
    assert META_ARCH_REGISTRY.get("LENS") is LENS
    assert ROI_HEADS_REGISTRY.get("LENSROIHeads") is LENSROIHeads


def step(model, optimizer, batch):
    with EventStorage():
        loss = sum(model(batch).values())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def owned_by(name, expert):
    return name.startswith((f"proposal_generators.{expert}.", f"roi_heads.box_predictors.{expert}."))


@pytest.mark.parametrize("expert", EXPERTS)
def test_a_step_leaves_the_other_experts_bit_identical(small_cfg, small_lens, make_batch, expert):
    optimizer = build_optimizer(small_cfg, small_lens)
    for warm in EXPERTS:  # all have optimiser state
        step(small_lens, optimizer, make_batch(warm))
    before = {n: p.detach().clone() for n, p in small_lens.named_parameters()}
    state = {n: copy.deepcopy(optimizer.state[p]) for n, p in small_lens.named_parameters()}
    step(small_lens, optimizer, make_batch(expert, seed=1))
    changed = set()
    for name, parameter in small_lens.named_parameters():
        same = torch.equal(parameter, before[name]) and all(
            torch.equal(optimizer.state[parameter][key], value) for key, value in state[name].items()
        )
        if not same:
            changed.add(name)
        elif any(owned_by(name, other) for other in EXPERTS):
            assert not owned_by(name, expert), f"{name} did not learn"
    assert not [n for n in changed if any(owned_by(n, other) for other in EXPERTS if other != expert)]
    assert any(n.startswith("backbone.") for n in changed) and any("box_head" in n for n in changed)


def test_the_four_losses_of_equation_1(small_lens, make_batch):
    with EventStorage() as storage:
        losses = small_lens(make_batch("luna"))
    assert set(losses) == {"loss_afp_center", "loss_afp_size", "loss_cls", "loss_box_reg"}
    assert all(torch.isfinite(value) and value > 0 for value in losses.values())
    assert storage.latest()["luna/total_loss"][0] == pytest.approx(sum(losses.values()).item(), rel=1e-5)


@pytest.mark.parametrize("key, loss", [("SIZE", "loss_afp_size"), ("BOX", "loss_box_reg")])
def test_weights_of_equation_1_are_config_keys(small_cfg, make_batch, key, loss):
    values = []
    for factor in (1.0, 3.0):
        if key == "SIZE":
            small_cfg.MODEL.LENS.SIZE_LOSS_WEIGHT = 0.1 * factor
        else:
            small_cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT = 10.0 * factor
        torch.manual_seed(0)
        model = build_model(small_cfg)
        torch.manual_seed(1)
        with EventStorage():
            values.append(model(make_batch("lits"))[loss].item())
    assert values[1] == pytest.approx(3 * values[0], rel=1e-5)


def test_a_batch_that_mixes_datasets_is_refused(small_lens, make_batch):
    mixed = make_batch("luna", 1) + make_batch("lits", 1)
    with EventStorage(), pytest.raises(ValueError, match="lits.*luna"):
        small_lens(mixed)


def test_inference_gives_the_fused_boxes_and_every_experts(small_lens, make_batch):
    small_lens.eval()
    with torch.no_grad():
        (result,) = small_lens(make_batch("luna", 1))
    assert list(result["experts"]) == [FUSED, *EXPERTS]
    assert result["instances"] is result["experts"][FUSED]
    for column, name in enumerate(EXPERTS):
        found = result["experts"][name]
        assert len(found) and found.expert_scores.shape == (len(found), 4)
        assert torch.equal(found.scores, found.expert_scores[:, column])
    fused = result["experts"][FUSED]
    assert (fused.scores[:, None] <= fused.expert_scores.amax(dim=1, keepdim=True)).all()


def test_one_expert_alone_is_a_config_key(small_cfg, make_batch):
    small_cfg.MODEL.LENS.OUTPUT = "lits"
    model = build_model(small_cfg).eval()
    with torch.no_grad():
        (result,) = model(make_batch("luna", 1))
    assert result["instances"] is result["experts"]["lits"]
    small_cfg.MODEL.LENS.OUTPUT = "kits"
    with pytest.raises(ValueError, match="kits"):
        build_model(small_cfg)


def detections(boxes, scores):
    return Instances((100, 100), pred_boxes=Boxes(torch.tensor(boxes)), scores=torch.tensor(scores))


def test_fusion_keeps_the_best_of_overlapping_boxes():
    (fused,) = fuse_experts(
        [
            {
                "a": detections([[10.0, 10, 30, 30], [60, 60, 80, 80]], [0.6, 0.3]),
                "b": detections([[11.0, 11, 31, 31]], [0.8]),
            }
        ],
        nms_thresh=0.5,
        topk=10,
    )
    assert fused.scores.tolist() == pytest.approx([0.8, 0.3])
    assert fused.pred_boxes.tensor.tolist() == [[11, 11, 31, 31], [60, 60, 80, 80]]


def test_intensities_are_normalised_and_padded_with_air(small_lens):
    images = small_lens.preprocess_image([torch.full((9, 20, 30), 50.0)])
    assert images.tensor.shape == (1, 9, 32, 32)
    assert images.image_sizes == [(20, 30)]
    assert (images.tensor[0, :, :20, :30] == 0).all() and (images.tensor[0, :, 20:] == -50).all()


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


def proposals(boxes, scores):
    logits = torch.logit(torch.tensor(scores))
    return Instances((100, 100), proposal_boxes=Boxes(torch.tensor(boxes)), objectness_logits=logits)


def test_detections_say_what_each_expert_thinks_of_the_place():
    (found,) = one_stage_detections(
        [
            {
                "a": proposals([[10.0, 10, 30, 30], [11, 11, 31, 31], [60, 60, 80, 80]], [0.6, 0.5, 0.3]),
                "b": proposals([[10.0, 10, 30, 31], [0, 0, 5, 5]], [0.8, 0.005]),
            }
        ],
        score_thresh=0.01,
        nms_thresh=0.5,
        topk=10,
    )
    torch.testing.assert_close(found["a"].expert_scores, torch.tensor([[0.6, 0.8], [0.3, 0.0]]))
    torch.testing.assert_close(found["b"].expert_scores, torch.tensor([[0.6, 0.8]]))


def test_without_nms_every_peak_is_a_detection(repo_root):
    """CenterNet leaves NMS off; the same box twice stays, too."""
    boxes = [[10.0, 10, 30, 30], [10, 10, 30, 30], [11, 11, 31, 31]]
    cfg = load_config(repo_root / "configs/cecn.yaml")
    for thresh, count in ((cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST, 3), (0.5, 1)):
        found = one_stage_detections([{"a": proposals(boxes, [0.6, 0.5, 0.4])}], 0.01, thresh, 10)
        assert len(found[0]["a"]) == len(fuse_experts(found, thresh, 10)[0]) == count
    assert load_config(repo_root / "configs/faster_rcnn.yaml").MODEL.ROI_HEADS.NMS_THRESH_TEST == 0.5


@pytest.mark.parametrize("folder", ["", "phantom/"])
@pytest.mark.parametrize(
    "name, architecture, generator, slices",
    [
        ("cecn", "CECN", None, 9),
        ("centernet", "CECN", None, 3),
        ("faster_rcnn", "LENS", "LENSRPN", 9),
        ("mgtm_sllp", "CECN", None, 9),
        ("mulan", "LENS", "LENSRPN", 9),
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

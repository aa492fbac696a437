"""A LENS that is small enough to train a step in a moment."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from lens_d2 import add_lens_config
from lens_d2.structures.status import BoxStatus


@pytest.fixture(scope="module", autouse=True)
def storage():
    """Counts of positives and negatives are logged wherever losses are computed."""
    with EventStorage() as storage:
        yield storage


@pytest.fixture
def small_cfg(repo_root):
    cfg = get_cfg()
    add_lens_config(cfg)
    cfg.merge_from_file(str(repo_root / "configs/phantom/lens_multi.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.DENSENET.WEIGHTS = ""
    cfg.MODEL.DENSENET.GROWTH_RATE = 4
    cfg.MODEL.DENSENET.BLOCK_CONFIG = (2, 2, 2)
    cfg.MODEL.DENSENET.INIT_FEATURES = 8
    cfg.MODEL.DENSENET.OUT_CHANNELS = 16
    cfg.MODEL.AFP.CONV_DIM = 8
    cfg.MODEL.CENTERNET.CONV_DIM = 8
    cfg.MODEL.FCOS.CONV_DIMS = (32,)
    cfg.MODEL.RPN.CONV_DIMS = [8]
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 16
    return cfg


@pytest.fixture
def small_lens(small_cfg):
    torch.manual_seed(0)
    return build_model(small_cfg)


@pytest.fixture
def make_targets():
    """Instances of the mapper's form from (box, status) pairs."""

    def make(boxes=((24, 24, 44, 40),), status=None, size=(64, 80)):
        boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        status = torch.tensor(status if status is not None else [BoxStatus.LESION] * len(boxes))
        return Instances(
            size, gt_boxes=Boxes(boxes), gt_status=status.long(), gt_classes=torch.zeros(len(boxes)).long()
        )

    return make


@pytest.fixture
def heads_of(small_cfg):
    def build(treatment="", num_classes=1):
        small_cfg.MODEL.ROI_HEADS.MISSING_LABELS = treatment
        small_cfg.MODEL.ROI_HEADS.NUM_CLASSES = num_classes
        torch.manual_seed(0)
        return build_model(small_cfg).roi_heads

    return build


@pytest.fixture
def sample_proposals():
    """The proposals with these boxes that a detection head samples."""

    def sample(heads, target, boxes, partial_labels=None):
        boxes = torch.tensor(boxes)
        proposals = Instances((64, 80), proposal_boxes=Boxes(boxes), objectness_logits=torch.zeros(len(boxes)))
        (sampled,) = heads.label_and_sample_proposals([proposals], [target], None, partial_labels)
        return sampled

    return sample


@pytest.fixture
def make_batch(make_targets):
    def make(expert, count=2, size=(64, 80), seed=0):
        generator = torch.Generator().manual_seed(seed)
        return [
            {
                "image": torch.rand(9, *size, generator=generator) * 255,
                "instances": make_targets(),
                "expert": expert,
            }
            for _ in range(count)
        ]

    return make

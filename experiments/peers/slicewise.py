"""Detectors of slices, whose boxes are linked along z: LENS itself, and Detectron2's own Faster R-CNN.

Faster R-CNN has its COCO config (ResNet-50, FPN), and takes three slices as the channels of a picture. Its anchors
are those of LENS with an RPN, and it is trained on as few of them, and of an image's regions.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer as build_detectron2_optimizer
from detectron2.structures import Instances
from torch import Tensor, nn

from lens_d2.data.loader import build_train_loader
from lens_d2.data.mapper import SliceMapper
from lens_d2.engine import build_optimizer
from lens_d2.inference.detector import build_inference
from lens_d2.inference.volume import VolumeInference, num_interpolated_slices
from lens_d2.structures.status import BoxStatus

CONFIG = "COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml"
NARROW = {  # a quarter of the channels; head and proposals as LENS's narrow config has them
    "RESNETS.STEM_OUT_CHANNELS": 16,
    "RESNETS.WIDTH_PER_GROUP": 16,
    "RESNETS.RES2_OUT_CHANNELS": 64,
    "FPN.OUT_CHANNELS": 64,
    "ROI_BOX_HEAD.FC_DIM": 128,
    "RPN.POST_NMS_TOPK_TEST": 200,
}


class Lens:
    """A peer: model, optimizer, batches, losses of a batch, inference over volumes."""

    def __init__(self, cfg: CfgNode, is_narrow: bool = True):
        """
        Args:
            cfg: of LENS: its datasets, intensities and pixel size are every peer's.
            is_narrow: whether the network is the narrow one, for a CPU.
        """
        self.cfg, self.is_narrow = cfg.clone(), is_narrow
        self.cfg.defrost()
        self.model = self.build_model()
        self.optimizer = self.build_optimizer()

    def build_model(self) -> nn.Module:
        """The detector, with random weights."""
        return build_model(self.cfg)

    def build_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer, before the first step."""
        return build_optimizer(self.cfg, self.model)

    def batches(self, steps: int = 0) -> Iterator:
        """Yield training batches endlessly, continuing after ``steps`` steps."""
        loader = build_train_loader(self.cfg)
        loader.batch_sampler.start_iter = steps
        return iter(loader)

    def losses(self, batch) -> dict[str, Tensor]:
        """The losses of a batch by name."""
        return self.model(batch)

    def inference(self) -> nn.Module:
        """Called with a list of records, it gives what the project's evaluators take."""
        return build_inference(self.cfg, self.model, refined=False)


class FasterRCNN(Lens):
    """One class; random weights, hence batch norms that learn and no frozen layers; linked along z as LENS's."""

    def build_model(self) -> nn.Module:
        """The detector, with random weights."""
        from detectron2 import model_zoo

        self.cfg.INPUT.NUM_SLICES = 3
        self.stock = get_cfg()
        self.stock.merge_from_file(model_zoo.get_config_file(CONFIG), allow_unsafe=False)
        self.stock.MODEL.WEIGHTS, self.stock.MODEL.DEVICE = "", self.cfg.MODEL.DEVICE
        self.stock.MODEL.ROI_HEADS.NUM_CLASSES = 1
        # Among COCO's 256 anchors and 512 regions an image's one or two lesions would hardly count.
        for sampled in ("ROI_HEADS", "RPN"):
            for key in ("BATCH_SIZE_PER_IMAGE", "POSITIVE_FRACTION"):
                self.stock.MODEL[sampled][key] = self.cfg.MODEL[sampled][key]
        self.stock.MODEL.RESNETS.NORM, self.stock.MODEL.BACKBONE.FREEZE_AT = "BN", 0
        self.stock.MODEL.RPN.IN_FEATURES = ["p2"]  # coarser maps have too few anchors for what is this small
        self.stock.MODEL.ANCHOR_GENERATOR.SIZES = self.cfg.MODEL.ANCHOR_GENERATOR.SIZES
        self.stock.MODEL.ROI_HEADS.SCORE_THRESH_TEST = self.cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST
        if self.is_narrow:
            self.stock.merge_from_list([x for key, width in NARROW.items() for x in (f"MODEL.{key}", width)])
        self.stock.SOLVER.BASE_LR *= self.cfg.SOLVER.IMS_PER_BATCH / self.stock.SOLVER.IMS_PER_BATCH
        return build_model(self.stock)

    def build_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer, before the first step."""
        return build_detectron2_optimizer(self.stock, self.model)

    def losses(self, batch: list[dict]) -> dict[str, Tensor]:
        """The losses of a batch of slices."""
        return self.model([{"image": x["image"], "instances": lesions(x["instances"])} for x in batch])

    def inference(self) -> nn.Module:
        """Inference over volumes, slice by slice."""
        return SliceBySlice(self.cfg, self.model)


def lesions(targets: Instances) -> Instances:
    """Targets without uncertain regions and hard negatives."""
    return targets[targets.gt_status == BoxStatus.LESION]


class SliceBySlice(VolumeInference):
    """Any of Detectron2's detectors over volumes, each slice on its own."""

    def __init__(self, cfg, model: nn.Module):
        super().__init__(cfg, model)
        self.mapper = SliceMapper(cfg, is_train=False)

    @torch.no_grad()
    def detect(self, volume) -> dict:
        """Boxes of all slices, linked along z."""
        ratio = self.slice_interval / volume.geometry.slice_interval
        found = []
        for level in range(num_interpolated_slices(volume, self.slice_interval)):
            image = torch.from_numpy(self.mapper.read(volume, level * ratio))
            (result,) = self.model([{"image": image, "height": image.shape[1], "width": image.shape[2]}])
            instances = result["instances"].to("cpu")
            instances.expert_scores = instances.scores[:, None]
            found.append(instances)
        return {"fused": self.link(found, volume)}

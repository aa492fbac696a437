"""MONAI's 3D RetinaNet (``pip install lens_d2[benchmark]``), narrow for a CPU, or with a ResNet-50 for a GPU.

Boxes here are x1, y1, z1, x2, y2, z2, edges, in pixels of the cache frame and levels of ``INPUT.SLICE_INTERVAL``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lens_d2.data.cache import CachedVolume
from lens_d2.data.loader import load_training_records
from lens_d2.data.mapper import window
from lens_d2.inference.volume import VolumeInference, num_interpolated_slices
from lens_d2.structures.boxes import hull
from lens_d2.structures.detections import VolumeDetections

from .slicewise import Lens

BATCH = 4  # patches
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Size:
    """Size of network and patches.

    Attributes:
        block, layers, planes: of the ResNet, by MONAI's names; its first two stages are used.
        channels: of the feature pyramid and the heads.
        patch: x, y, z of a patch for training, in pixels and levels.
        window: x, y, z of the sliding window at inference.
        sides: x, y, z of the anchors on the finest map.
    """

    block: str
    layers: tuple[int, int, int, int]
    planes: tuple[int, int, int, int]
    channels: int
    patch: tuple[int, int, int]
    window: tuple[int, int, int]
    sides: tuple[tuple[int, int, int], ...]


NARROW = Size(
    block="basic",
    layers=(1, 1, 1, 1),
    planes=(16, 32, 64, 128),
    channels=24,
    patch=(64, 64, 16),
    window=(128, 128, 32),
    sides=((4, 4, 2), (8, 8, 4), (14, 14, 6)),
)
FULL = Size(
    block="bottleneck",
    layers=(3, 4, 6, 3),
    planes=(64, 128, 256, 512),
    channels=256,
    patch=(160, 160, 32),
    window=(320, 320, 64),
    sides=((8, 8, 3), (16, 16, 6), (28, 28, 9)),
)


class RetinaNet(Lens):
    """One class; patches, seven of ten around lesions; whole volumes by MONAI's sliding window."""

    @property
    def size(self) -> Size:
        """Size of the network."""
        return NARROW if self.is_narrow else FULL

    def build_model(self) -> nn.Module:
        """MONAI's detector, with random weights."""
        from monai.apps.detection.networks.retinanet_detector import RetinaNetDetector
        from monai.apps.detection.networks.retinanet_network import RetinaNet as Network
        from monai.apps.detection.utils.anchor_utils import AnchorGeneratorWithAnchorShape
        from monai.networks.blocks.backbone_fpn_utils import BackboneWithFPN
        from monai.networks.blocks.feature_pyramid_network import LastLevelMaxPool
        from monai.networks.nets import ResNet

        size, stem = self.size, {"n_input_channels": 1, "conv1_t_stride": (2, 2, 1), "conv1_t_size": (7, 7, 7)}
        trunk = ResNet(size.block, list(size.layers), list(size.planes), spatial_dims=3, **stem)
        wider = 4 if size.block == "bottleneck" else 1
        extractor = BackboneWithFPN(
            trunk,
            {"layer1": "0", "layer2": "1"},
            [wider * size.planes[0], wider * size.planes[1]],
            size.channels,
            3,
            LastLevelMaxPool(3),
        )
        anchors = AnchorGeneratorWithAnchorShape(feature_map_scales=(1, 2, 4), base_anchor_shapes=size.sides)
        network = Network(3, 1, len(size.sides), feature_extractor=extractor, size_divisible=(16, 16, 8))
        detector = RetinaNetDetector(network, anchors)
        detector.set_target_keys(box_key="boxes", label_key="labels")
        detector.set_atss_matcher(num_candidates=4, center_in_gt=False)
        detector.set_hard_negative_sampler(
            batch_size_per_image=64, positive_fraction=0.5, pool_size=20, min_neg=16
        )
        detector.set_box_selector_parameters(
            score_thresh=0.02, topk_candidates_per_level=1000, nms_thresh=0.22, detections_per_img=100
        )
        detector.set_sliding_window_inferer(roi_size=size.window, overlap=0.25, sw_batch_size=1, mode="constant")
        return detector.to(self.cfg.MODEL.DEVICE)

    def build_optimizer(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE)

    def batches(self, steps: int = 0) -> Iterator[tuple[list[Tensor], list[dict]]]:
        """Endless batches of patches with the boxes that are mostly inside; others after other steps."""
        records = [record for record in load_training_records(self.cfg) if record["lesions"]]
        reader = VolumeReader(self.cfg)
        rng = np.random.default_rng([0, steps])
        while True:
            drawn = [self._draw(reader, records[rng.integers(len(records))], rng) for _ in range(BATCH)]
            yield [image for image, _ in drawn], [target for _, target in drawn]

    def _draw(self, reader: VolumeReader, record: dict, rng) -> tuple[Tensor, dict]:
        """A patch of a record, around a lesion in seven of ten cases, with its target."""
        volume, size, device = reader.cache.open(record), self.size.patch, self.cfg.MODEL.DEVICE
        boxes = reader.boxes(record, volume)
        around = boxes[rng.integers(len(boxes))] if rng.random() < 0.7 else None
        image, corner = reader.patch(volume, around, size, rng)
        moved = boxes - np.tile(corner, 2)
        clipped = np.concatenate([moved[:, :3].clip(0), moved[:, 3:].clip(max=size)], axis=1)
        inside = ((clipped[:, 3:] - clipped[:, :3]) > 0.5 * (moved[:, 3:] - moved[:, :3])).all(axis=1)
        target = torch.as_tensor(clipped[inside], dtype=torch.float32, device=device)
        labels = torch.zeros(len(target), dtype=torch.long, device=device)
        return image.to(device), {"boxes": target, "labels": labels}

    def losses(self, batch) -> dict[str, Tensor]:
        """The losses of a batch by name."""
        return self.model(*batch)

    def inference(self) -> nn.Module:
        """Inference over whole volumes."""
        return WholeVolume(self.cfg, self.model)


class VolumeReader(VolumeInference):
    """Volumes as (1, x, y, z) in 0..1, and the lesions of records in the same frame."""

    def __init__(self, cfg):
        super().__init__(cfg, nn.Identity())

    def image(self, volume: CachedVolume, levels: np.ndarray) -> Tensor:
        """(1, x, y, z) intensities at levels, in 0..1."""
        ratio = self.slice_interval / volume.geometry.slice_interval
        slices = window(volume.read(levels * ratio), self.hu_window) / 255
        return torch.from_numpy(np.ascontiguousarray(slices.transpose(2, 1, 0)))[None]

    def boxes(self, record: dict, volume: CachedVolume) -> np.ndarray:
        """(n, 6) x1, y1, z1, x2, y2, z2, edges of pixels and levels, of every lesion.

        Its 3D extent where that is known, else the slices that have boxes.
        """
        boxes = np.array([x["box3d"] or hull(np.array(x["boxes"])) for x in record["lesions"]], dtype=float)
        flat = volume.geometry.boxes_to_cache(boxes[:, [0, 1, 3, 4]])
        z = np.sort(np.stack([volume.geometry.slices_to_cache(boxes[:, i]) for i in (2, 5)], axis=1), axis=1)
        z = (z + [-0.5, 0.5]) * volume.geometry.slice_interval / self.slice_interval + 0.5  # to edges
        return np.column_stack([flat[:, :2], z[:, 0], flat[:, 2:], z[:, 1]])

    def patch(
        self, volume: CachedVolume, around: np.ndarray | None, size: tuple[int, int, int], rng
    ) -> tuple[Tensor, np.ndarray]:
        """A patch of a size (x, y, z) that holds the middle of a box, or any, and its lower corner."""
        levels = num_interpolated_slices(volume, self.slice_interval)
        room = np.maximum(np.array([volume.shape[2], volume.shape[1], levels]) - size, 0)
        if around is None:
            corner = rng.integers(0, room + 1)
        else:
            middle = (around[:3] + around[3:]) / 2
            corner = (middle - np.array(size) * rng.uniform(0.3, 0.7, 3)).round().astype(int).clip(0, room)
        x, y, z = corner
        image = self.image(volume, np.arange(z, z + size[2]))[:, x : x + size[0], y : y + size[1]]
        missing = [n - m for n, m in zip(size, image.shape[1:], strict=True)]
        return nn.functional.pad(image, (0, missing[2], 0, missing[1], 0, missing[0])), corner


class WholeVolume(VolumeReader):
    """MONAI's detector over volumes."""

    def __init__(self, cfg, model: nn.Module):
        super().__init__(cfg)
        self.cfg, self.detector = cfg, model

    @torch.no_grad()
    def detect(self, volume: CachedVolume) -> dict[str, VolumeDetections]:
        image = self.image(volume, np.arange(num_interpolated_slices(volume, self.slice_interval)))
        (found,) = self.detector([image.to(self.cfg.MODEL.DEVICE)], use_inferer=True)
        boxes, scores = (found[key].double().cpu().numpy() for key in ("boxes", "labels_scores"))
        flat = volume.geometry.boxes_to_volume(boxes[:, [0, 1, 3, 4]])
        ratio = self.slice_interval / volume.geometry.slice_interval
        z = np.stack([(boxes[:, 2] - 0.5) * ratio + 0.5, (boxes[:, 5] - 0.5) * ratio - 0.5], axis=1)
        z = np.sort(np.stack([volume.geometry.slices_to_volume(z[:, i]) for i in (0, 1)], axis=1), axis=1)
        z = z.round().clip(0, volume.shape[0] - 1)
        owner = np.repeat(np.arange(len(z)), (z[:, 1] - z[:, 0]).astype(int) + 1)
        slices = np.concatenate([np.zeros(0), *(np.arange(a, b + 1) for a, b in z)])
        return {
            "fused": VolumeDetections(
                np.column_stack([flat[:, :2], z[:, 0], flat[:, 2:], z[:, 1]]),
                scores,
                np.column_stack([slices, flat[owner], scores[owner]]),
                owner,
            )
        }

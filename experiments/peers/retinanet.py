"""MONAI's 3D RetinaNet (``pip install lens_d2[benchmark]``), with a ResNet-10 trunk and small patches for a CPU.

Boxes here are x1, y1, z1, x2, y2, z2, edges, in pixels of the cache frame and levels of ``INPUT.SLICE_INTERVAL``.
"""

from __future__ import annotations

from collections.abc import Iterator

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

PATCH = (64, 64, 16)  # x, y, z
SIDES = ((4, 4, 2), (8, 8, 4), (14, 14, 6))  # of the anchors on the finest map
LEARNING_RATE = 1e-3


class RetinaNet(Lens):
    """One class; patches around lesions and elsewhere in turn; whole volumes by MONAI's sliding window."""

    def build_model(self) -> nn.Module:
        """MONAI's detector, with random weights."""
        from monai.apps.detection.networks.retinanet_detector import RetinaNetDetector
        from monai.apps.detection.networks.retinanet_network import RetinaNet as Network
        from monai.apps.detection.networks.retinanet_network import resnet_fpn_feature_extractor
        from monai.apps.detection.utils.anchor_utils import AnchorGeneratorWithAnchorShape
        from monai.networks.nets import resnet10

        trunk = resnet10(spatial_dims=3, n_input_channels=1, conv1_t_stride=(2, 2, 1), conv1_t_size=(7, 7, 7))
        extractor = resnet_fpn_feature_extractor(trunk, 3, returned_layers=(1, 2))
        anchors = AnchorGeneratorWithAnchorShape(feature_map_scales=(1, 2, 4), base_anchor_shapes=SIDES)
        network = Network(3, 1, len(SIDES), feature_extractor=extractor, size_divisible=(16, 16, 8))
        detector = RetinaNetDetector(network, anchors)
        detector.set_target_keys(box_key="boxes", label_key="labels")
        detector.set_atss_matcher(num_candidates=4, center_in_gt=False)
        detector.set_hard_negative_sampler(
            batch_size_per_image=64, positive_fraction=0.5, pool_size=20, min_neg=16
        )
        detector.set_box_selector_parameters(
            score_thresh=0.02, topk_candidates_per_level=1000, nms_thresh=0.22, detections_per_img=100
        )
        detector.set_sliding_window_inferer(roi_size=PATCH, overlap=0.25, sw_batch_size=1, mode="constant")
        return detector

    def build_optimizer(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE)

    def batches(self, steps: int = 0) -> Iterator[tuple[list[Tensor], list[dict]]]:
        """Endless patches, one at a time, with the boxes that are mostly inside; others after other steps."""
        records = [record for record in load_training_records(self.cfg) if record["lesions"]]
        reader = VolumeReader(self.cfg)
        rng = np.random.default_rng([0, steps])
        while True:
            record = records[rng.integers(len(records))]
            volume = reader.cache.open(record)
            boxes = reader.boxes(record, volume)
            around = boxes[rng.integers(len(boxes))] if rng.random() < 0.7 else None
            image, corner = reader.patch(volume, around, rng)
            moved = boxes - np.tile(corner, 2)
            clipped = np.concatenate([moved[:, :3].clip(0), moved[:, 3:].clip(max=PATCH)], axis=1)
            inside = ((clipped[:, 3:] - clipped[:, :3]) > 0.5 * (moved[:, 3:] - moved[:, :3])).all(axis=1)
            target = torch.as_tensor(clipped[inside], dtype=torch.float32)
            yield [image], [{"boxes": target, "labels": torch.zeros(len(target), dtype=torch.long)}]

    def losses(self, batch) -> dict[str, Tensor]:
        """The losses of a patch by name."""
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
        """(n, 6) of every lesion: its 3D extent where that is known, else the slices that have boxes."""
        boxes = np.array([x["box3d"] or hull(np.array(x["boxes"])) for x in record["lesions"]], dtype=float)
        flat = volume.geometry.boxes_to_cache(boxes[:, [0, 1, 3, 4]])
        z = np.sort(np.stack([volume.geometry.slices_to_cache(boxes[:, i]) for i in (2, 5)], axis=1), axis=1)
        z = (z + [-0.5, 0.5]) * volume.geometry.slice_interval / self.slice_interval
        return np.column_stack([flat[:, :2], z[:, 0], flat[:, 2:], z[:, 1]])

    def patch(self, volume: CachedVolume, around: np.ndarray | None, rng) -> tuple[Tensor, np.ndarray]:
        """A patch that holds the middle of a box, or any, and its lower corner."""
        size = np.array([volume.shape[2], volume.shape[1], num_interpolated_slices(volume, self.slice_interval)])
        room = np.maximum(size - PATCH, 0)
        if around is None:
            corner = rng.integers(0, room + 1)
        else:
            middle = (around[:3] + around[3:]) / 2
            corner = (middle - np.array(PATCH) * rng.uniform(0.3, 0.7, 3)).round().astype(int).clip(0, room)
        x, y, z = corner
        image = self.image(volume, np.arange(z, z + PATCH[2]))[:, x : x + PATCH[0], y : y + PATCH[1]]
        missing = [n - m for n, m in zip(PATCH, image.shape[1:], strict=True)]
        return nn.functional.pad(image, (0, missing[2], 0, missing[1], 0, missing[0])), corner


class WholeVolume(VolumeReader):
    """MONAI's detector over volumes."""

    def __init__(self, cfg, model: nn.Module):
        super().__init__(cfg)
        self.detector = model

    @torch.no_grad()
    def detect(self, volume: CachedVolume) -> dict[str, VolumeDetections]:
        image = self.image(volume, np.arange(num_interpolated_slices(volume, self.slice_interval)))
        (found,) = self.detector([image], use_inferer=True)
        boxes, scores = found["boxes"].double().numpy(), found["labels_scores"].double().numpy()
        flat = volume.geometry.boxes_to_volume(boxes[:, [0, 1, 3, 4]])
        ratio = self.slice_interval / volume.geometry.slice_interval
        z = np.stack([boxes[:, 2] * ratio + 0.5, boxes[:, 5] * ratio - 0.5], axis=1)
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

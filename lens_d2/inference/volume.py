"""Detection in whole volumes: every slice through the network, boxes linked along z, back to the file's frame.

Neighbouring slices share most of the work: each image of three slices runs through the trunk once per volume, and
only what follows the fusions runs once per slice (:mod:`lens_d2.inference.folded_backbone`); the experts' proposal
generators run as one (:mod:`lens_d2.inference.joint_afp`). The detections are those of slice-by-slice inference.

Slices in this file are interpolated to ``INPUT.SLICE_INTERVAL`` and numbered from 0 at the first native slice of
the cache frame; those of the volume are called native.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.structures import Instances
from torch import Tensor, nn

from ..data.augmentation import fit_scale
from ..data.cache import CachedVolume, VolumeCache, build_cache
from ..data.mapper import resize, window
from ..io.progress import Progress
from ..modeling.backbone import SLICES_PER_IMAGE
from ..structures.detections import VolumeDetections
from .folded_backbone import FoldedDenseNet25D
from .joint_afp import joint_proposals
from .linking import link_slices, stack_tracklets

Parts = tuple[Tensor, ...]


def _cat(tensors: Sequence[Tensor]) -> Tensor:
    """Joined along the first axis; one alone is not copied."""
    return torch.cat(tensors) if len(tensors) > 1 else tensors[0]


def num_interpolated_slices(volume: CachedVolume, interval: float) -> int:
    """Number of slices of a volume at ``interval`` mm, from the first to the last native slice."""
    return int((volume.shape[0] - 1) * volume.geometry.slice_interval / interval + 1e-6) + 1


class VolumeInference(nn.Module):
    """Runs a LENS over sub-volumes."""

    @configurable
    def __init__(
        self,
        model: nn.Module,
        *,
        cache: VolumeCache,
        slice_interval: float,
        hu_window: tuple[float, float],
        max_size: int,
        slices_per_batch: int = 8,
        link_iou: float = 0.5,
        link_score_thresh: float = 0.01,
        bf16: bool = False,
        shows_progress: bool = False,
    ):
        """
        Args:
            model: a LENS.
            cache: of the volumes.
            slice_interval: mm, ``INPUT.SLICE_INTERVAL``.
            hu_window: ``INPUT.HU_WINDOW``.
            max_size: ``INPUT.MAX_SIZE``.
            slices_per_batch: slices that go through the heads together.
            link_iou: theta.
            link_score_thresh: 2D boxes below it are not linked.
            bf16: whether convolutions and matrix products are in bfloat16.
            shows_progress: whether a bar tells how far a volume is.
        """
        super().__init__()
        self.model = model
        self.cache = cache
        self.slice_interval, self.hu_window, self.max_size = slice_interval, hu_window, max_size
        self.slices_per_batch = slices_per_batch
        self.link_iou, self.link_score_thresh = link_iou, link_score_thresh
        self.bf16, self.shows_progress = bf16, shows_progress

    @classmethod
    def from_config(
        cls, cfg: CfgNode, model: nn.Module, cache: VolumeCache | None = None, shows_progress: bool = False
    ):
        """Reads ``INPUT`` and ``TEST``."""
        return {
            "model": model,
            "cache": build_cache(cfg) if cache is None else cache,
            "shows_progress": shows_progress,
            "slice_interval": cfg.INPUT.SLICE_INTERVAL,
            "hu_window": tuple(cfg.INPUT.HU_WINDOW),
            "max_size": cfg.INPUT.MAX_SIZE,
            "slices_per_batch": cfg.TEST.SLICES_PER_BATCH,
            "link_iou": cfg.TEST.LINK_IOU,
            "link_score_thresh": cfg.TEST.LINK_SCORE_THRESH,
            "bf16": cfg.TEST.BF16,
        }

    def forward(self, records: list[dict]) -> list[dict]:
        """Detect in the volumes of records.

        Returns:
            For each {"volume": name, "detections": {"fused" or expert: :class:`VolumeDetections`}}, as the
            evaluators take it.
        """
        return [
            {"volume": record["volume"], "detections": self.detect(self.cache.open(record))} for record in records
        ]

    @torch.no_grad()
    def detect(self, volume: CachedVolume) -> dict[str, VolumeDetections]:
        """3D detections of one volume, in the frame of its file, fused and of each expert."""
        scale = fit_scale(volume.shape, self.max_size)
        slices: dict[str, list[Instances]] = {}
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.bf16):
            propose = joint_proposals(self.model.proposal_generators.values())
            for features, image_sizes in self._shown(self.slice_features(volume, scale), volume):
                for detected in self.model.detect(features, image_sizes, propose):
                    for name, instances in detected["experts"].items():
                        slices.setdefault(name, []).append(instances.to("cpu"))
        return {name: self._link(instances, volume) for name, instances in slices.items()}

    def _shown(self, batches: Iterator[tuple], volume: CachedVolume) -> Iterator[tuple]:
        """The batches of slices, with a bar if one is asked for."""
        count = num_interpolated_slices(volume, self.slice_interval) if self.shows_progress else 0
        with Progress(count, "slices", "slice", nested=True) as shown:
            for batch in batches:
                yield batch
                shown.update(len(batch[1]))

    @torch.no_grad()
    def slice_features(
        self, volume: CachedVolume, scale: float
    ) -> Iterator[tuple[dict[str, Tensor], list[tuple[int, int]]]]:
        """Feature maps of successive slices, ``slices_per_batch`` at a time, and the images' sizes.

        Args:
            volume: in the cache frame.
            scale: factor by which slices are resized.
        """
        backbone = FoldedDenseNet25D(self.model.backbone)
        count = num_interpolated_slices(volume, self.slice_interval)
        reach = backbone.num_images // 2 * SLICES_PER_IMAGE
        offsets = range(-reach, reach + 1, SLICES_PER_IMAGE)
        encoded: dict[int, Parts] = {}
        for start in range(0, count, self.slices_per_batch):
            centers = range(start, min(start + self.slices_per_batch, count))
            # Beyond the ends of a volume its first or last slice repeats, and so do the images from there on.
            wanted = range(max(centers[0] - reach, -1), min(centers[-1] + reach, count + 1) + 1)
            encoded = {center: parts for center, parts in encoded.items() if center in wanted}
            missing = [center for center in wanted if center not in encoded]
            for some in self._split(missing, self.slices_per_batch):
                images, size = self._images(volume, some, scale)
                for together, own in zip(self._split(some), images.split(self._together), strict=True):
                    parts = (part.split(1) for part in backbone.encode(own))
                    encoded.update(zip(together, zip(*parts, strict=True), strict=True))
            ends = wanted[0], wanted[-1]
            samples = [[encoded[int(np.clip(c + offset, *ends))] for offset in offsets] for c in centers]
            yield self._decode(backbone, samples), [size] * len(centers)

    def _decode(self, backbone, samples: list[list[Parts]]) -> dict[str, Tensor]:
        """Feature maps of slices from the parts of their images, from the lowest to the highest."""
        maps = []
        for some in self._split(samples):
            images = [zip(*of_role, strict=True) for of_role in zip(*some, strict=True)]
            maps.append(backbone.decode([tuple(_cat(part) for part in parts) for parts in images]))
        return {name: _cat([own[name] for own in maps]) for name in maps[0]}

    @property
    def _together(self) -> int:
        """Number of images that go through a network together; a CPU's caches hold one."""
        return 1 if self.model.device.type == "cpu" else self.slices_per_batch

    def _split(self, items: Sequence, length: int | None = None) -> list[Sequence]:
        length = length or self._together
        return [items[i : i + length] for i in range(0, len(items), length)]

    def _images(self, volume: CachedVolume, centers: Sequence[int], scale: float):
        """(n, 3, H, W) normalised images around slices, which lie in one run, and their size unpadded."""
        first = centers[0] - SLICES_PER_IMAGE // 2
        run = np.arange(first, centers[-1] + SLICES_PER_IMAGE // 2 + 1)
        positions = run * (self.slice_interval / volume.geometry.slice_interval)
        slices = resize(torch.from_numpy(window(volume.read(positions), self.hu_window)), scale)
        stacks = [slices[center - first - 1 : center - first + 2] for center in centers]
        batch = self.model.preprocess_image(stacks)
        return batch.tensor, tuple(batch.image_sizes[0])

    def _link(self, slices: list[Instances], volume: CachedVolume) -> VolumeDetections:
        """3D detections of one expert from its 2D boxes on all slices."""
        number = np.repeat(np.arange(len(slices)), [len(i) for i in slices])
        merged = Instances.cat(slices)
        boxes = merged.pred_boxes.tensor.double().numpy()
        scores = merged.scores.double().numpy()
        expert_scores = merged.expert_scores.double().numpy()
        keep = scores >= self.link_score_thresh
        number, boxes, scores, expert_scores = number[keep], boxes[keep], scores[keep], expert_scores[keep]

        height, width = merged.image_size
        boxes *= np.tile([volume.shape[2] / width, volume.shape[1] / height], 2)
        boxes = volume.geometry.boxes_to_volume(boxes).clip(0, np.tile(volume.geometry.size[:2], 2))
        native = volume.geometry.slices_to_cache(np.arange(volume.shape[0]))
        return link_detections(
            number,
            boxes,
            scores,
            expert_scores,
            self.link_iou,
            np.arange(len(slices)) * self.slice_interval,
            native * volume.geometry.slice_interval,
        )


def link_detections(
    slices: np.ndarray,
    boxes: np.ndarray,
    scores: np.ndarray,
    expert_scores: np.ndarray,
    link_iou: float,
    slice_mm: np.ndarray,
    native_mm: np.ndarray,
) -> VolumeDetections:
    """Stack 2D boxes on interpolated slices to 3D detections on the file's native slices (LENS, Section IV-C).

    A detection covers the native slices whose centres lie within half an interval of its interpolated ones, and at
    least the nearest; on each of them it has the box of its nearest interpolated slice.

    Args:
        slices: (n,) number of the 2D boxes' interpolated slices.
        boxes: (n, 4) XYXY in the file's pixels.
        scores: (n,).
        expert_scores: (n, E).
        link_iou: theta.
        slice_mm: position of every interpolated slice along z, evenly spaced.
        native_mm: position of every slice of the file along z.
    """
    tracklet = link_slices(slices, boxes, link_iou)
    boxes3d, scores3d = stack_tracklets(slices, boxes, scores, tracklet)
    order = np.lexsort((slices, tracklet))
    runs = np.split(order, np.searchsorted(tracklet[order], np.arange(1, len(boxes3d))))
    half = (slice_mm[1] - slice_mm[0]) / 2 if len(slice_mm) > 1 else 0.0
    slice_boxes, owners = [], []
    for number, run in enumerate(runs[: len(boxes3d)]):
        run_mm = slice_mm[slices[run]]
        covered = np.flatnonzero((native_mm >= run_mm[0] - half) & (native_mm < run_mm[-1] + half))
        if not len(covered):
            covered = np.abs(native_mm - run_mm.mean()).argmin(keepdims=True)
        nearest = run[np.abs(native_mm[covered, None] - run_mm).argmin(axis=1)]
        boxes3d[number, [2, 5]] = covered[0], covered[-1]
        slice_boxes.append(np.column_stack([covered, boxes[nearest], scores[nearest]]))
        owners.append(np.full(len(covered), number))
    if not len(boxes3d):
        return VolumeDetections(expert_scores=expert_scores[:0])
    best = np.zeros((len(boxes3d), expert_scores.shape[1]))
    np.maximum.at(best, tracklet, expert_scores)
    return VolumeDetections(boxes3d, scores3d, np.concatenate(slice_boxes), np.concatenate(owners), best)

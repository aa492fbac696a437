"""Detection in whole volumes: every slice through the network, boxes linked along z, back to the volume frame.

Neighbouring slices share most of the work: each image of three slices runs through the trunk once per volume, and
only what follows the fusions runs once per slice (:mod:`lens_d2.inference.folded_backbone`); the experts' proposal
generators run as one (:mod:`lens_d2.inference.joint_afp`). The detections are those of slice-by-slice inference.

Slices in this file are those that are looked at, numbered from 0 at the first native slice of the cache frame:
native ones, or interpolated to ``INPUT.SLICE_INTERVAL``. Either way the neighbours that a slice is seen with are
``INPUT.SLICE_INTERVAL`` apart. With several ``TEST.SCALES`` everything up to the 2D boxes runs once for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.structures import Instances
from torch import Tensor, nn

from ..data.augmentation import fit_scale
from ..data.cache import CachedVolume, VolumeCache, build_cache
from ..data.mapper import resize, window
from ..io.progress import Progress
from ..modeling.adapters import ExpertFeatures
from ..modeling.backbone import SLICES_PER_IMAGE
from ..structures.detections import VolumeDetections
from .folded_backbone import FoldedDenseNet25D
from .joint_afp import joint_proposals
from .linking import LINKER_REGISTRY, OverlapLinker, to_native_slices
from .multi_scale import fuse_scales

Parts = tuple[Tensor, ...]
Linker = Callable[[np.ndarray, int, np.ndarray], VolumeDetections]


def _cat(tensors: Sequence[Tensor]) -> Tensor:
    """Joined along the first axis; one alone is not copied."""
    return torch.cat(tensors) if len(tensors) > 1 else tensors[0]


def num_interpolated_slices(volume: CachedVolume, interval: float) -> int:
    """Number of slices of a volume at ``interval`` mm, from the first to the last native slice."""
    return int((volume.shape[0] - 1) * volume.geometry.slice_interval / interval + 1e-6) + 1


class VolumeDetector(nn.Module):
    """Detects in whole volumes, which it opens in a cache; a subclass says how (:meth:`detect`)."""

    def __init__(self, cache: VolumeCache):
        """
        Args:
            cache: of the volumes.
        """
        super().__init__()
        self.cache = cache

    def forward(self, records: list[dict]) -> list[dict]:
        """Detect in the volumes of records.

        Returns:
            For each {"volume": name, "detections": {"fused" or expert: :class:`VolumeDetections`}}, as the
            evaluators take it.
        """
        return [
            {"volume": record["volume"], "detections": self.detect(self.cache.open(record))} for record in records
        ]

    def detect(self, volume: CachedVolume) -> dict[str, VolumeDetections]:
        """3D detections of one volume, in the volume frame, fused and of each expert."""
        raise NotImplementedError


class VolumeInference(VolumeDetector):
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
        on_native_slices: bool = False,
        slices_per_batch: int = 8,
        linker: Linker | None = None,
        bf16: bool = False,
        shows_progress: bool = False,
        scales: Sequence[float] = (1.0,),
        score_floor: float = 0.01,
    ):
        """
        Args:
            model: a LENS.
            cache: of the volumes.
            slice_interval: mm between a slice and its neighbours, ``INPUT.SLICE_INTERVAL``.
            hu_window: ``INPUT.HU_WINDOW``.
            max_size: ``INPUT.MAX_SIZE``.
            on_native_slices: whether native slices are looked at, or interpolated ones.
            slices_per_batch: slices that go through the heads together.
            linker: of :data:`LINKER_REGISTRY`; None: an :class:`OverlapLinker`.
            bf16: whether convolutions and matrix products are in bfloat16.
            shows_progress: whether a bar tells how far a volume is.
            scales: factors by which slices are resized, each for a run of its own; their boxes are fused
                (:mod:`.multi_scale`).
            score_floor: of the model's detections.
        """
        super().__init__(cache)
        self.model = model
        self.slice_interval, self.hu_window, self.max_size = slice_interval, hu_window, max_size
        self.on_native_slices, self.slices_per_batch = on_native_slices, slices_per_batch
        self.linker = OverlapLinker() if linker is None else linker
        self.bf16, self.shows_progress = bf16, shows_progress
        self.scales, self.score_floor = scales, score_floor

    @classmethod
    def from_config(
        cls, cfg: CfgNode, model: nn.Module, cache: VolumeCache | None = None, shows_progress: bool = False
    ):
        """Read ``INPUT`` and ``TEST``."""
        linker = LINKER_REGISTRY.get(cfg.TEST.LINKER)
        return {
            "model": model,
            "cache": build_cache(cfg) if cache is None else cache,
            "shows_progress": shows_progress,
            "slice_interval": cfg.INPUT.SLICE_INTERVAL,
            "hu_window": tuple(cfg.INPUT.HU_WINDOW),
            "max_size": cfg.INPUT.MAX_SIZE,
            "on_native_slices": cfg.TEST.NATIVE_SLICES,
            "slices_per_batch": cfg.TEST.SLICES_PER_BATCH,
            "linker": linker.from_config(cfg, cfg.TEST.LINK_SCORE_THRESH),
            "bf16": cfg.TEST.BF16,
            "scales": tuple(cfg.TEST.SCALES),
            "score_floor": cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST,
        }

    def detect(self, volume: CachedVolume) -> dict[str, VolumeDetections]:
        """3D detections of one volume, in the volume frame, fused and of each expert."""
        return {name: self.link(slices, volume) for name, slices in self.detect_slices(volume).items()}

    @torch.no_grad()
    def detect_slices(self, volume: CachedVolume) -> dict[str, list[Instances]]:
        """2D detections on the slices of one volume, as of `detect`, in the pixels of the first scale."""
        count = len(self.slice_positions(volume)) * len(self.scales) if self.shows_progress else 0
        fitting = fit_scale(volume.shape, self.max_size)
        with Progress(count, "slices", "slice", nested=True) as shown:
            found = [self._detect_slices(volume, fitting * scale, shown) for scale in self.scales]
        if len(found) == 1:
            return found[0]
        limits = self.model.fusion_nms_thresh, self.model.detections_per_image, self.score_floor
        return {name: fuse_scales([own[name] for own in found], *limits) for name in found[0]}

    def _detect_slices(self, volume: CachedVolume, scale: float, shown: Progress) -> dict[str, list[Instances]]:
        """2D detections on slices resized by one factor, in their pixels; as of :meth:`detect_slices`."""
        slices: dict[str, list[Instances]] = {}
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.bf16):
            generators = self.model.proposal_generators.values()
            propose = None if self.model.domains else joint_proposals(generators)
            for features, image_sizes in self.slice_features(volume, scale):
                for detected in self.model.detect(features, image_sizes, propose):
                    for name, instances in detected["experts"].items():
                        slices.setdefault(name, []).append(instances)
                shown.update(len(image_sizes))
        return slices

    def slice_positions(self, volume: CachedVolume) -> np.ndarray:
        """(s,) mm from the first native slice of the cache frame to each slice that is looked at."""
        if self.on_native_slices:
            return np.arange(volume.shape[0]) * volume.geometry.slice_interval
        return np.arange(num_interpolated_slices(volume, self.slice_interval)) * self.slice_interval

    @torch.no_grad()
    def slice_features(
        self, volume: CachedVolume, scale: float
    ) -> Iterator[tuple[dict[str, Tensor] | ExpertFeatures, list[tuple[int, int]]]]:
        """Feature maps of successive slices, ``slices_per_batch`` at a time, and the images' sizes.

        With residual adapters the backbone runs once for each expert, and each has maps of its own.

        Args:
            volume: in the cache frame.
            scale: factor by which slices are resized.
        """
        backbone, domains = self.model.backbone, self.model.domains
        if not domains:
            yield from self._slice_features(FoldedDenseNet25D(backbone), volume, scale)
            return
        everyone = [self._slice_features(FoldedDenseNet25D(backbone, name), volume, scale) for name in domains]
        for batches in zip(*everyone, strict=True):
            maps = ExpertFeatures({name: own for name, (own, _) in zip(domains, batches, strict=True)})
            yield maps, batches[0][1]

    @torch.no_grad()
    def _slice_features(
        self, backbone: FoldedDenseNet25D, volume: CachedVolume, scale: float
    ) -> Iterator[tuple[dict[str, Tensor], list[tuple[int, int]]]]:
        """Feature maps of one backbone, as :meth:`slice_features` has them."""
        reach = backbone.num_images // 2 * SLICES_PER_IMAGE
        offsets = np.arange(-reach, reach + 1, SLICES_PER_IMAGE)
        last = (volume.shape[0] - 1) * volume.geometry.slice_interval / self.slice_interval
        # Centres of each slice's images, in intervals. Slices share the images whose centres are the same. Beyond
        # the ends of a volume its first or last slice repeats, and so do the images from there on.
        centers = (self.slice_positions(volume) / self.slice_interval)[:, None] + offsets
        centers = centers.clip(-1, last + 1).round(6).tolist()
        encoded: dict[float, Parts] = {}
        for batch in self._split(centers, self.slices_per_batch):
            encoded = {center: parts for center, parts in encoded.items() if center >= batch[0][0]}
            missing = sorted({center for own in batch for center in own} - encoded.keys())
            for some in self._split(missing, self.slices_per_batch):
                images, size = self._images(volume, some, scale)
                for together, own in zip(self._split(some), images.split(self._together), strict=True):
                    parts = (part.split(1) for part in backbone.encode(own))
                    encoded.update(zip(together, zip(*parts, strict=True), strict=True))
            samples = [[encoded[center] for center in own] for own in batch]
            yield self._decode(backbone, samples), [size] * len(batch)

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

    def _images(self, volume: CachedVolume, centers: Sequence[float], scale: float):
        """(n, 3, H, W) normalised images around centres, in intervals, and their size unpadded."""
        wanted = np.array(centers)[:, None] + np.arange(SLICES_PER_IMAGE) - SLICES_PER_IMAGE // 2
        positions, rows = np.unique(wanted.round(6), return_inverse=True)
        hu = volume.read(positions * (self.slice_interval / volume.geometry.slice_interval))
        slices = resize(torch.from_numpy(window(hu, self.hu_window)).to(self.model.device), scale)
        rows = torch.from_numpy(rows.reshape(wanted.shape)).to(self.model.device)
        batch = self.model.preprocess_image(list(slices[rows]))
        return batch.tensor, tuple(batch.image_sizes[0])

    def link(self, slices: list[Instances], volume: CachedVolume) -> VolumeDetections:
        """3D detections of one expert from its 2D boxes on all slices, those of :meth:`detect_slices`.

        The boxes leave the model's device here, those of all slices together.
        """
        number = np.repeat(np.arange(len(slices)), [len(i) for i in slices])
        merged = Instances.cat(slices).to("cpu")
        boxes = merged.pred_boxes.tensor.double().numpy()
        scores = merged.scores.double().numpy()
        expert_scores = merged.expert_scores.double().numpy()

        height, width = merged.image_size
        boxes *= np.tile([volume.shape[2] / width, volume.shape[1] / height], 2)
        boxes = volume.geometry.boxes_to_volume(boxes).clip(0, np.tile(volume.geometry.size[:2], 2))
        found = self.linker(np.column_stack([number, boxes, scores]), len(slices), expert_scores)
        native = volume.geometry.slices_to_cache(np.arange(volume.shape[0]))
        return to_native_slices(found, self.slice_positions(volume), native * volume.geometry.slice_interval)

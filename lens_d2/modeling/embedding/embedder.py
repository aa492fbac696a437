"""Embeddings of 2D boxes in volumes, for intra-patient matching (LENS, Section V-B)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from detectron2.config import CfgNode, configurable

from ...data.cache import VolumeCache, build_cache
from ...io.checkpoint import LENSCheckpointer, load_weights
from ...io.errors import DataError
from ...structures.boxes import PLANE, flat_boxes3d
from .lesanet import LesaNet

# A record, a slice and a box x1, y1, x2, y2 on it, both in the volume frame.
Item = tuple[dict, int, Sequence[float]]


def build_embed(cfg: CfgNode) -> Callable[[Sequence[Item]], np.ndarray]:
    """Build :meth:`LesionEmbedder.embed` of the network in ``MODEL.EMBEDDING.WEIGHTS``."""
    return LesionEmbedder(cfg).embed


def load_lesanet(cfg: CfgNode, path: str) -> LesaNet:
    """Load a trained network.

    Args:
        cfg: of the network; the number of labels is the file's.
        path: of the checkpoint.

    Raises:
        DataError: the checkpoint is absent, damaged or of another architecture.
    """
    state = load_weights(path)
    scores = state.get("model", state).get("label_scores.bias")
    if scores is None:
        raise DataError(path, "weights of another architecture: no key label_scores.bias")
    network = LesaNet(cfg, len(scores)).to(cfg.MODEL.DEVICE)
    LENSCheckpointer(network, whole=True).load(path)
    return network.eval()


class LesionEmbedder:
    """Embeds boxes, volume by volume."""

    @configurable
    def __init__(self, *, network: LesaNet, cache: VolumeCache, batch_size: int = 64):
        """
        Args:
            network: trained.
            cache: of the preprocessed volumes.
            batch_size: boxes that go through the network together.
        """
        self.network, self.cache, self.batch_size = network.eval(), cache, batch_size

    @classmethod
    def from_config(cls, cfg: CfgNode, network: LesaNet | None = None):
        """Read ``MODEL.EMBEDDING``; load the network unless it is given."""
        if network is None and not cfg.MODEL.EMBEDDING.WEIGHTS:
            raise DataError("MODEL.EMBEDDING.WEIGHTS", "is empty: train one with tools/train_embedding.py")
        return {
            "network": load_lesanet(cfg, cfg.MODEL.EMBEDDING.WEIGHTS) if network is None else network,
            "cache": build_cache(cfg),
            "batch_size": cfg.MODEL.EMBEDDING.BATCH_SIZE_TEST,
        }

    def embed(self, items: Sequence[Item]) -> np.ndarray:
        """Embed boxes.

        Args:
            items: n, in any order; every volume is opened once.

        Returns:
            (n, E) float32, rows of length 1, in the order of the items.

        Raises:
            DataError: a volume cannot be read.
        """
        embedding = np.zeros((len(items), self.network.embedding.out_features), dtype=np.float32)
        for numbers, patches, boxes in self._batches(items):
            embedding[numbers] = self._forward(patches, boxes)
        return embedding

    @torch.no_grad()
    def _forward(self, patches: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        device = next(self.network.parameters()).device
        output = self.network(torch.from_numpy(patches).to(device), torch.from_numpy(boxes).to(device))
        return output.embedding.float().cpu().numpy()

    def _batches(self, items: Sequence[Item]) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
        """Numbers of items, their patches and boxes in these; full batches, from as many volumes as it takes."""
        waiting: list[tuple[int, np.ndarray, np.ndarray]] = []
        for crops in self._crops(items):
            waiting += zip(*crops, strict=True)
            if len(waiting) >= self.batch_size:
                yield _stacked(waiting[: self.batch_size])
                del waiting[: self.batch_size]
        if waiting:
            yield _stacked(waiting)

    def _crops(self, items: Sequence[Item]) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
        """At most a batch's patches of one volume at a time, in order along z."""
        of_volume: dict[str, list[int]] = {}
        for number, (record, _, _) in enumerate(items):
            of_volume.setdefault(record["volume"], []).append(number)
        for numbers in of_volume.values():
            volume = self.cache.open(items[numbers[0]][0])
            numbers.sort(key=lambda number: items[number][1])
            for start in range(0, len(numbers), self.batch_size):
                group = numbers[start : start + self.batch_size]
                boxes = flat_boxes3d([items[i][1] for i in group], [items[i][2] for i in group])
                patches, inside = self.network.grid.crop(volume, boxes)
                yield group, patches, inside[:, PLANE]


def _stacked(crops: list[tuple[int, np.ndarray, np.ndarray]]) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Crops of single items as a batch."""
    numbers, patches, boxes = zip(*crops, strict=True)
    return list(numbers), np.stack(patches), np.stack(boxes)

"""Proposals of a trained model on the sub-volumes that are mined (LENS, Section III, step 2)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from detectron2.config import CfgNode
from torch import nn

from ..data.cache import build_cache
from ..data.datasets.catalog import partially_labelled
from ..data.loader import load_records, shared_name
from ..inference.detector import build_inference
from ..io.checkpoint import share_state
from ..io.errors import DataError
from ..structures.detections import FUSED, VolumeDetections
from .shards import ShardStore

# Keys of INPUT and MODEL that do not affect the proposals (paths, the device, other networks), and keys of TEST
# that do.
WITHOUT = (
    "INPUT.CACHE_DIR", "MODEL.WEIGHTS", "MODEL.DENSENET.WEIGHTS", "MODEL.DEVICE",
    "MODEL.FPR", "MODEL.LPC", "MODEL.EMBEDDING",
)  # fmt: skip
OF_TEST = (
    "LINKER", "LINK_IOU", "LINK_SCORE_THRESH", "TRACKER", "NATIVE_SLICES", "DETECTIONS_PER_IMAGE", "BF16",
)  # fmt: skip
PROPOSALS = "proposals"  # folder below OUTPUT_DIR


def mined_datasets(cfg: CfgNode) -> tuple[str, ...]:
    """Names of the datasets that are mined: ``MINING.DATASETS``, or the partially labelled training ones.

    Raises:
        DataError: no dataset is named or partially labelled, or one that is named is fully labelled.
    """
    partial = partially_labelled(cfg.MINING.DATASETS or cfg.DATASETS.TRAIN)
    whole = [name for name in cfg.MINING.DATASETS if name not in partial]
    if whole:
        raise DataError("MINING.DATASETS", f"{whole[0]} is fully labelled (fully_labelled): nothing is missing")
    names = tuple(partial)
    if not names:
        raise DataError("DATASETS.TRAIN", "no dataset is partially labelled, and MINING.DATASETS names none")
    return names


def mined_records(cfg: CfgNode) -> list[dict]:
    """Records of the datasets that are mined, with their given annotations."""
    return load_records(mined_datasets(cfg), build_cache(cfg))


def open_shards(cfg: CfgNode, model: nn.Module, folder: Path) -> ShardStore:
    """Open the folder of shards for a model's proposals; on several ranks, all of them call this.

    The model is switched to evaluation mode and takes the first rank's weights and buffers, so that all ranks
    propose the same.
    """
    share_state(model.eval())
    inference = build_inference(cfg, model, refined=False)
    return ShardStore(folder, fingerprint(cfg, model), lambda record: inference([record])[0]["detections"])


def propose(records: Sequence[dict], shards: ShardStore) -> None:
    """Make the shards of these sub-volumes that are absent, damaged or outdated; each rank makes its share.

    Raises:
        DataError: as of :func:`refuse_shared_names`.
    """
    refuse_shared_names(records)
    shards.complete(records, "proposals")


def refuse_shared_names(records: Sequence[dict], others: Sequence[dict] = ()) -> None:
    """Refuse to mine sub-volumes whose name, all that identifies them in shards and ledgers, another one has.

    Args:
        records: of the sub-volumes that are mined.
        others: that a ledger of theirs will be used with.

    Raises:
        DataError: names the sub-volume, and the experts of both.
    """
    names = {record["volume"] for record in records}
    if shared := shared_name(record for record in (*records, *others) if record["volume"] in names):
        volume, first, second = shared
        fault = f"a sub-volume of {first} and one of {second} have this name: what is mined needs names of its own"
        raise DataError(volume, fault)


class LazyProposals(Mapping):
    """{sub-volume: its detections}, read from the shards one by one when they are asked for."""

    def __init__(self, records: Sequence[dict], shards: ShardStore, group: str = FUSED):
        """
        Args:
            records: of the sub-volumes.
            shards: with their proposals.
            group: "fused" or an expert, whose detections are taken.
        """
        self._records = {record["volume"]: record for record in records}
        self._shards, self._group = shards, group

    def __getitem__(self, volume: str) -> VolumeDetections:
        return self._shards.read(self._records[volume])[self._group]

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)


def fingerprint(cfg: CfgNode, model: nn.Module) -> str:
    """Hash of a model's weights and of the settings that its proposals depend on."""
    settings = {f"TEST.{key}": cfg.TEST[key] for key in OF_TEST}
    for name in ("INPUT", "MODEL"):
        settings |= {path: str(value) for path, value in _flat(cfg[name], name)}
    hashed = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        hashed.update(name.encode())
        hashed.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return hashed.hexdigest()[:16]


def _flat(node: CfgNode, name: str) -> Iterator[tuple[str, object]]:
    """Dotted names and values of a node's settings, but for those :data:`WITHOUT`."""
    for key, value in node.items():
        path = f"{name}.{key}"
        if path in WITHOUT:
            continue
        if isinstance(value, CfgNode):
            yield from _flat(value, path)
        else:
            yield path, value

"""3D proposals of a round: raw proposals stacked by the tracker and scored by the classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from detectron2.config import CfgNode

from ...inference.rescoring import load_classifier, score_proposals
from ...inference.tracker import BoxTracker
from ...io.artifacts import digest, digest_of_file
from ...structures.detections import VolumeDetections
from ..shards import ShardStore

GROUP = "proposals"  # of detections in a shard of scored proposals

# The 3D proposals of a record's sub-volume: ``scores`` are s_g; ``fpr_scores`` are s_c, if they are scored.
Proposals = Callable[[dict], VolumeDetections]


def stack_proposals(cfg: CfgNode, shards: ShardStore) -> Proposals:
    """Make the 3D proposals that the tracker stacks from the generator's raw proposals above t_G.

    Args:
        cfg: of the run.
        shards: of raw proposals.
    """
    tracker, group = BoxTracker.from_config(cfg, cfg.HARVEST.SCORE_THRESH), cfg.HARVEST.PROPOSALS
    return lambda record: tracker(shards.read(record)[group].slice_boxes, record["num_slices"])


def score_proposals_3d(
    cfg: CfgNode, shards: ShardStore, weights: Sequence[str], folds: Mapping[str, int], folder: Path
) -> ShardStore:
    """Shards of the 3D proposals with both scores.

    Args:
        cfg: of the run.
        shards: of raw proposals.
        weights: files of the classifiers: the round's, then one for each fold.
        folds: by sub-volume, the fold whose classifier scores it; the round's classifier scores all others.
        folder: of the shards.
    """
    stacked, classifiers = stack_proposals(cfg, shards), [load_classifier(cfg, "LPC", path) for path in weights]

    def make(record: dict) -> dict[str, VolumeDetections]:
        found = stacked(record)
        classifier = classifiers[1 + folds.get(record["volume"], -1)]
        ((_, scores),) = score_proposals(cfg, classifier, [record], {record["volume"]: found.boxes})
        return {GROUP: replace(found, fpr_scores=scores)}

    keys = cfg.HARVEST
    made_from = [
        shards.made_from,
        list(map(digest_of_file, weights)),
        cfg.MODEL.LPC.dump(),
        cfg.TEST.TRACKER.dump(),
    ]
    return ShardStore(folder, digest([*made_from, keys.SCORE_THRESH, keys.PROPOSALS]), make)

"""Proposals on disk: one columnar file per sub-volume, so that memory does not grow with their number.

A shard holds the result of whole-volume inference for one sub-volume: a row for each slice box of every group of
detections ("fused" and each expert), in the volume frame.
"""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa

from ..data.cache import source_name
from ..data.ledger.table import BOX
from ..io.artifacts import TableStore
from ..structures.detections import VolumeDetections

BOX_3D = ("x1_3d", "y1_3d", "z1_3d", "x2_3d", "y2_3d", "z2_3d")
EXPERT_SCORE = "score_of_"  # and the number of the expert
CLASSIFIER_SCORE = "classifier_score"


class ShardStore(TableStore):
    """Folder of shards, one per sub-volume, by its record.

    The values are {"fused" or expert: :class:`VolumeDetections`}.
    """

    def name(self, record: dict) -> str:
        """The sub-volume."""
        return record["volume"]

    def header(self, record: dict) -> dict[str, str]:
        """Name and digest of a sound table, and the sub-volume's source."""
        return {**super().header(record), "source": source_name(record)}

    def encode(self, detections: dict[str, VolumeDetections]) -> pa.Table:
        """A table of the slice boxes of all groups."""
        tables = [_table(group, found) for group, found in detections.items() if len(found)]
        table = pa.concat_tables(tables, promote_options="default") if tables else _table("", VolumeDetections())
        groups = {group: len(found) for group, found in detections.items()}
        return table.replace_schema_metadata({"groups": json.dumps(groups)})

    def decode(self, table: pa.Table) -> dict[str, VolumeDetections]:
        """The detections of all groups."""
        columns = {name: table[name].to_numpy() for name in table.column_names}
        groups = json.loads(table.schema.metadata[b"groups"])
        return {group: _detections(group, count, columns) for group, count in groups.items()}


def _table(group: str, found: VolumeDetections) -> pa.Table:
    """A row for each slice box; columns of the whole detection are repeated, which compresses to nothing."""
    owner = found.slice_detection
    columns = {
        "group": pa.array(np.full(len(owner), group, dtype=object), pa.string()).dictionary_encode(),
        "detection": owner.astype(np.int32),
        "slice": found.slice_boxes[:, 0].astype(np.int32),
        **{key: found.slice_boxes[:, i].astype(np.float32) for i, key in enumerate(BOX, start=1)},
        "score": found.slice_boxes[:, 5].astype(np.float32),
        **{key: found.boxes[owner, i].astype(np.float32) for i, key in enumerate(BOX_3D)},
        "score_3d": found.scores[owner].astype(np.float32),
    }
    if found.expert_scores is not None:
        for number, scores in enumerate(found.expert_scores[owner].astype(np.float32).T):
            columns[f"{EXPERT_SCORE}{number}"] = scores
    if found.fpr_scores is not None:
        columns[CLASSIFIER_SCORE] = found.fpr_scores[owner].astype(np.float64)
    return pa.table(columns)


def _detections(group: str, count: int, columns: dict[str, np.ndarray]) -> VolumeDetections:
    """The detections of one group; ValueError if there are not ``count``."""
    rows = np.flatnonzero(columns["group"] == group)
    owner = columns["detection"][rows].astype(np.int64)
    numbers, first = np.unique(owner, return_index=True)
    if not np.array_equal(numbers, np.arange(count)):
        raise ValueError(f"{len(numbers)} of {count} detections of {group}")
    own = {key: column[rows].astype(np.float64) for key, column in columns.items() if key != "group"}
    scores = [own[key] for key in own if key.startswith(EXPERT_SCORE)]
    return VolumeDetections(
        boxes=np.stack([own[key][first] for key in BOX_3D], axis=1),
        scores=own["score_3d"][first],
        slice_boxes=np.stack([own[key] for key in ("slice", *BOX, "score")], axis=1),
        slice_detection=owner,
        expert_scores=np.stack(scores, axis=1)[first] if scores else None,
        fpr_scores=own[CLASSIFIER_SCORE][first] if CLASSIFIER_SCORE in own else None,
    )

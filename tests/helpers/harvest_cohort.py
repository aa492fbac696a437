"""The tiny blocks as V_M, V_H and V_H-test, and a generator that finds them without a network."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from helpers import blocks
from helpers.blocks import blocks_cfg, write_blocks
from lens_d2.inference.tracker import BoxTracker
from lens_d2.mining.shards import ShardStore

VERIFIED, PARTIAL, TEST = "blocks_vm", "blocks_vh", "blocks_vh_test"


def renamed(record, number):
    """The record with a name that DeepLesion's sub-volumes have; its lesions on their key slice alone."""
    name = f"{number:06d}_01_01_003-010"
    lesions = [
        {**x, "id": f"{name}/{i}", "boxes": [b for b in x["boxes"] if b[0] == x["key_slice"]], "box3d": None}
        for i, x in enumerate(record["lesions"])
    ]
    own = {"volume": name, "image_id": name, "series": name[:12], "patient": name[:6], "first_slice": 3}
    return {**record, **own, "lesions": lesions}


def register(folder) -> dict[str, list[dict]]:
    """Six volumes of two lesions: two are V_M; four V_H, with one mark each; two of these V_H-test."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    complete = [renamed(record, i) for i, record in enumerate(write_blocks(Path(folder), "deeplesion", 6))]
    partial = [{**r, "lesions": r["lesions"][:1]} for r in complete[2:]]
    sets = {VERIFIED: (complete[:2], True), PARTIAL: (partial, False), TEST: (complete[4:], True)}
    for name, (records, fully) in sets.items():
        blocks.register(name, records, "deeplesion", fully_labelled=fully, truth_is_3d=False, evaluator_type="p3d")
    return {name: records for name, (records, _) in sets.items()} | {"all": complete}


def harvest_cfg(folder, output, *opts):
    """A config of the stage "harvest" that takes seconds."""
    return blocks_cfg(
        folder, "STAGES", ("harvest",), "DATASETS.TRAIN", (VERIFIED, PARTIAL), "DATASETS.TEST", (),
        "MODEL.LENS.EXPERTS", ("deeplesion",), "MODEL.META_ARCHITECTURE", "CECN", "MODEL.CENTERNET.CONV_DIM", 8,
        "OUTPUT_DIR", str(output), "HARVEST.VERIFIED", VERIFIED, "HARVEST.TEST", TEST, "HARVEST.ROUNDS", 2,
        "HARVEST.FINETUNE.EPOCHS", 0, "HARVEST.FINETUNE.MAX_ITER", 2,
        "HARVEST.FINETUNE_LPC.EPOCHS", 0, "HARVEST.FINETUNE_LPC.MAX_ITER", 2, "SOLVER.MAX_ITER", 3,
        "SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.IMS_PER_BATCH", 2,
        "MODEL.LPC.NAME", "GLC_MV", "MODEL.LPC.BACKBONE_WEIGHTS", "", "MODEL.LPC.WIDTH", 4, "MODEL.LPC.FC_DIM", 8,
        "MODEL.LPC.PATCH_SIZE", (8, 32, 32), "MODEL.LPC.PATCH_SPACING", (3.0, 3.0, 3.0),
        "MODEL.LPC.SOLVER.EPOCHS", 0, "MODEL.LPC.SOLVER.EPOCH_STEPS", (), "MODEL.LPC.SOLVER.MAX_ITER", 3,
        "MODEL.LPC.SOLVER.IMS_PER_BATCH", 4, "MODEL.LPC.SOLVER.CHECKPOINT_PERIOD", 1,
        "HARVEST.PRECISION", 0.3, *opts,
    )  # fmt: skip


def slices_of(record, complete, draw) -> np.ndarray:
    """Slice boxes of a good generator: both blocks on three slices, and three boxes where there is nothing."""
    (truth,) = [r for r in complete if r["volume"] == record["volume"]]
    rows = []
    for lesion in truth["lesions"]:
        z, *box = lesion["boxes"][0]
        rows += [[z + d, *box, 0.95 - 0.1 * abs(d)] for d in (-1, 0, 1)]
    for i in range(3):
        x, y = draw.integers(40, 60), draw.integers(36, 48)
        rows += [[z, x, y, x + 9, y + 9, 0.9 - 0.2 * i - 0.01 * z] for z in range(2, 4 + i)]
    return np.array(rows, dtype=float)


def stand_in_shards(complete):
    """Replacement of ``open_shards``: shards of a generator that knows the truth, and depends on the weights."""

    def open_shards(cfg, model, folder):
        hashed = hashlib.sha256()
        for tensor in model.state_dict().values():
            hashed.update(tensor.numpy().tobytes())

        def make(record):
            draw = np.random.default_rng(int(record["volume"][:6]))
            boxes = slices_of(record, complete, draw)
            return {"fused": BoxTracker(extend=0)(boxes, record["num_slices"])}

        return ShardStore(folder, hashed.hexdigest()[:16], make)

    return open_shards

"""Small configs of the classifiers of detections, and bright blocks for them to find."""

import numpy as np
from detectron2.config import get_cfg

from helpers.blocks import write_blocks
from lens_d2 import add_lens_config
from lens_d2.structures.detections import VolumeDetections


def fpr_cfg(folder):
    """Config of a false-positive reduction that trains in a moment."""
    cfg = get_cfg()
    add_lens_config(cfg)
    cfg.MODEL.DEVICE, cfg.OUTPUT_DIR = "cpu", str(folder / "output")
    cfg.INPUT.CACHE_DIR, cfg.INPUT.PIXEL_SPACING = str(folder / "cache"), 2.0
    cfg.DATALOADER.NUM_WORKERS, cfg.SEED = 0, 3
    fpr = cfg.MODEL.FPR
    fpr.BACKBONE_WEIGHTS, fpr.WIDTH, fpr.FC_DIM = "", 4, 8
    fpr.PATCH_SIZE, fpr.PATCH_SPACING = (4, 24, 24), (3.0, 2.0, 2.0)
    fpr.SOLVER.IMS_PER_BATCH, fpr.SOLVER.BASE_LR, fpr.SOLVER.EPOCHS = 8, 0.005, 0
    fpr.SOLVER.OPTIMIZER, fpr.SOLVER.MAX_ITER = "AdamW", 30
    return cfg


def lpc_cfg(folder):
    """Config of a proposal classifier that trains in a moment."""
    cfg = get_cfg()
    add_lens_config(cfg)
    cfg.MODEL.DEVICE, cfg.OUTPUT_DIR = "cpu", str(folder / "output")
    cfg.INPUT.CACHE_DIR, cfg.INPUT.PIXEL_SPACING = str(folder / "cache"), 2.0
    cfg.DATALOADER.NUM_WORKERS, cfg.SEED = 0, 3
    lpc = cfg.MODEL.LPC
    lpc.BACKBONE_WEIGHTS, lpc.WIDTH, lpc.FC_DIM, lpc.POOLER_RESOLUTION = "", 4, 8, (4, 4, 4)
    lpc.PATCH_SIZE, lpc.PATCH_SPACING = (8, 32, 32), (3.0, 2.0, 2.0)
    lpc.SCALES = ((2, 8, 8), (4, 16, 16), (8, 32, 32))
    lpc.SOLVER.IMS_PER_BATCH, lpc.SOLVER.BASE_LR, lpc.SOLVER.EPOCHS = 8, 0.01, 0
    lpc.SOLVER.OPTIMIZER, lpc.SOLVER.MAX_ITER = "AdamW", 20
    return cfg


def detections_of(slice_boxes, owner):
    """Detections with the given slice boxes (z, x1, y1, x2, y2)."""
    slice_boxes = np.array([[*box, 0.5] for box in slice_boxes], dtype=float)
    owner = np.array(owner)
    boxes = []
    for i in range(owner.max() + 1):
        mine = slice_boxes[owner == i]
        low, high = mine[:, [1, 2, 0]].min(axis=0), mine[:, [3, 4, 0]].max(axis=0)
        boxes.append([*low, *high])
    return VolumeDetections(np.array(boxes), np.full(len(boxes), 0.5), slice_boxes, owner)


def lesion(status, *boxes):
    return {"id": "v/0", "status": status, "boxes": [list(box) for box in boxes]}


def fpr_blocks(folder):
    """Records of volumes with bright blocks as lesions, and detections of these and of dark places."""
    folder = folder / "blocks"
    folder.mkdir()
    records, detections = write_blocks(folder, "deeplesion", volumes=3), {}
    for record in records:
        boxes = [lesion["boxes"] for lesion in record["lesions"]]
        boxes += [[[z, x, 44, x + 14, 56] for z in (0, 1)] for x in (6, 24, 42, 60)]
        boxes = [b for b in boxes if b in boxes[:2] or not _meets(b, boxes[:2])]
        owner = np.repeat(np.arange(len(boxes)), [len(b) for b in boxes])
        detections[record["volume"]] = detections_of(sum(boxes, []), owner)
    return records, detections


def _meets(boxes, others):
    return any(
        a[0] == b[0] and a[1] < b[3] and b[1] < a[3] and a[2] < b[4] and b[2] < a[4]
        for a in boxes
        for other in others
        for b in other
    )


def lpc_blocks(folder):
    """Records of volumes with bright blocks, and by sub-volume the boxes of these and of places beside them."""
    folder = folder / "blocks"
    folder.mkdir()
    records = write_blocks(folder, "deeplesion", volumes=3)
    positives = {r["volume"]: np.array([lesion["box3d"] for lesion in r["lesions"]], float) for r in records}
    places = np.array([[x, 44, 0, x + 14, 56, 1] for x in (6, 24, 42, 60)], float)
    negatives = {name: places[_apart(places, boxes)] for name, boxes in positives.items()}
    return records, positives, negatives


def _apart(boxes, others):
    """(n,) bool: which boxes meet none of the others in the slice."""
    low, high = (
        np.maximum(boxes[:, None, :2], others[None, :, :2]),
        np.minimum(boxes[:, None, 3:5], others[None, :, 3:5]),
    )
    return ~(low < high).all(axis=2).any(axis=1)

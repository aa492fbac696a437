"""The tiny registered blocks, annotated as DeepLesion is: two series a patient, half the lesions, key slices."""

from pathlib import Path

from helpers.blocks import EXPERTS, blocks_cfg, register, write_blocks
from lens_d2.mining.lens.strategies import STRATEGIES, IntraPatient


def register_partly(folder):
    """Register ``blocks_<expert>`` below a folder; written once, read by any process."""
    for expert in EXPERTS:
        name, target = f"blocks_{expert}", Path(folder) / expert
        target.mkdir(parents=True, exist_ok=True)
        records = write_blocks(target, expert)
        if expert == "deeplesion":
            records = [partly(record, number) for number, record in enumerate(records)]
        register(name, records, expert)


def partly(record, number):
    lesions = [{**x, "boxes": x["boxes"][1:2], "box3d": None} for x in record["lesions"][: 1 + number % 2]]
    return {**record, "patient": f"p{number // 2}", "series": f"s{number}", "lesions": lesions}


def embed_by_size(items):
    """Boxes of one size are alike."""
    import numpy as np

    sides = np.array([[box[2] - box[0], box[3] - box[1]] for _, _, box in items], dtype=np.float32)
    return sides / np.linalg.norm(sides, axis=1, keepdims=True)


class MatchBySize(IntraPatient):
    """Intra-patient matching without a network."""

    def __init__(self, cfg):
        super().__init__(embed=embed_by_size, distance=cfg.MINING.INTRA_PATIENT.DISTANCE)


def mining_cfg(folder, *opts):
    """A config whose strategies find something in what an untrained network proposes."""
    if "MatchBySize" not in STRATEGIES:
        STRATEGIES.register(MatchBySize)
    return blocks_cfg(
        folder, "MINING.STRATEGIES", ("CrossSlice", "MatchBySize", "CrossDataset"), "MINING.IOU", 0.02,
        "MINING.CROSS_DATASET.SCORE_THRESH", 0.45, "TEST.DETECTIONS_PER_IMAGE", 20, "TEST.OVERLAYS", 0,
        "INPUT.PIXEL_SPACING", 2.0, "INPUT.SLICE_INTERVAL", 2.0, "DATASETS.TEST", (), *opts,
    )  # fmt: skip

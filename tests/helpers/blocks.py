"""Registered datasets of a few tiny volumes with bright blocks: enough to train a step on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog

from lens_d2 import add_lens_config
from lens_d2.structures.records import make_lesion, make_record

ROOT = Path(__file__).resolve().parents[2]
EXPERTS = ("deeplesion", "luna", "lits", "nih_ln")


def write_blocks(folder: Path, expert: str, volumes: int = 4) -> list[dict]:
    """Volumes of 8 slices of 3 mm, each with two blocks that are lesions, as records; written once."""
    rng = np.random.default_rng(EXPERTS.index(expert))
    records = []
    for number in range(volumes):
        array = np.full((8, 64, 80), -1000, np.int16)
        array[:, 4:60, 4:76] = rng.normal(40, 20, (8, 56, 72)).astype(np.int16)
        name, lesions = f"{expert}_{number}", []
        for k in range(2):
            x, y, z = int(rng.integers(8, 50)), int(rng.integers(8, 40)), int(rng.integers(1, 4))
            array[z : z + 3, y : y + 12, x : x + 14] = 300
            box3d = [x, y, z, x + 14, y + 12, z + 2]
            boxes = [[s, x, y, x + 14, y + 12] for s in range(z, z + 3)]
            lesions.append(make_lesion(f"{name}/{k}", boxes, box3d=box3d, key_slice=z + 1))
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((2.0, 2.0, 3.0))
        path = folder / f"{name}.nii"
        if not path.exists():  # another time of a file would be another scan
            sitk.WriteImage(image, str(path))
        records.append(
            make_record(
                path, volume=name, expert=expert, patient=name, size=(80, 64, 8), spacing=(2.0, 2.0, 3.0),
                lesions=lesions,
            )
        )  # fmt: skip
    return records


def register(name: str, records: list[dict], expert: str, **metadata) -> None:
    """Register records as a dataset, in place of one of this name; evaluated as LENS's unless told otherwise."""
    for catalog in (DatasetCatalog, MetadataCatalog):
        if name in catalog.list():
            catalog.remove(name)
    DatasetCatalog.register(name, lambda: records)
    usual = {"fully_labelled": expert != "deeplesion", "truth_is_3d": True, "evaluator_type": "lens3d"}
    MetadataCatalog.get(name).set(thing_classes=["lesion"], expert=expert, **(usual | metadata))


def register_blocks(folder: Path) -> tuple[str, ...]:
    """Write and register ``blocks_<expert>`` for all experts; safe to be called in several processes."""
    names = []
    for expert in EXPERTS:
        name = f"blocks_{expert}"
        target = Path(folder) / expert
        target.mkdir(parents=True, exist_ok=True)
        register(name, write_blocks(target, expert), expert)
        names.append(name)
    return tuple(names)


def blocks_cfg(folder: Path, *opts) -> CfgNode:
    """A config of LENS, small enough for a step in a moment, on the registered blocks."""
    cfg = get_cfg()
    add_lens_config(cfg)
    cfg.merge_from_file(str(ROOT / "configs/phantom/lens_multi.yaml"))
    cfg.DATASETS.TRAIN = tuple(f"blocks_{expert}" for expert in EXPERTS)
    cfg.DATASETS.TEST = ("blocks_deeplesion",)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.DENSENET.WEIGHTS = ""
    cfg.MODEL.DENSENET.GROWTH_RATE = 4
    cfg.MODEL.DENSENET.BLOCK_CONFIG = (2, 2, 2)
    cfg.MODEL.DENSENET.INIT_FEATURES = 8
    cfg.MODEL.DENSENET.OUT_CHANNELS = 16
    cfg.MODEL.AFP.CONV_DIM = 8
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 16
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = 4, ()
    cfg.INPUT.CACHE_DIR = str(Path(folder) / "cache")
    cfg.OUTPUT_DIR = str(Path(folder) / "output")
    cfg.merge_from_list(list(opts))
    Path(cfg.OUTPUT_DIR).mkdir(parents=True, exist_ok=True)
    return cfg

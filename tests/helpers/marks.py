"""Marks with labels for the lesion embedding."""

import json

import SimpleITK as sitk
from detectron2.config import get_cfg

from helpers.blocks import write_blocks
from lens_d2 import add_lens_config
from lens_d2.structures.records import make_lesion


def embedding_cfg(folder):
    """Config of a lesion embedding that trains in a moment."""
    cfg = get_cfg()
    add_lens_config(cfg)
    cfg.MODEL.DEVICE, cfg.OUTPUT_DIR = "cpu", str(folder / "output")
    cfg.INPUT.CACHE_DIR, cfg.INPUT.PIXEL_SPACING = str(folder / "cache"), 2.0
    cfg.DATALOADER.NUM_WORKERS, cfg.SEED = 0, 5
    keys = cfg.MODEL.EMBEDDING
    keys.WIDTH, keys.FC_DIM, keys.DIM, keys.PATCH_SIZE, keys.PATCH_SPACING = 2, 8, 16, (3, 32, 32), (2.0, 2.0, 2.0)
    keys.LABELS, keys.ONTOLOGY = str(folder / "labels.json"), str(folder / "ontology.csv")
    keys.TRIPLETS, keys.RHEM_DRAWS, keys.BACKBONE_WEIGHTS = 200, 500, ""
    keys.SOLVER.IMS_PER_BATCH, keys.SOLVER.EPOCHS, keys.SOLVER.MAX_ITER = 8, 0, 40
    keys.SOLVER.BASE_LR, keys.SOLVER.OPTIMIZER = 0.01, "AdamW"
    return cfg


def marked_blocks(folder):
    """Volumes with two bright blocks; the second of each is made dark. Rows number them through."""
    folder = folder / "blocks"
    folder.mkdir()
    records = write_blocks(folder, "deeplesion", volumes=6)
    for number, record in enumerate(records):
        image = sitk.ReadImage(record["file_name"])
        array = sitk.GetArrayFromImage(image)
        x1, y1, z1, x2, y2, z2 = (int(v) for v in record["lesions"][1]["box3d"])
        array[z1 : z2 + 1, y1:y2, x1:x2] = -700
        dark = sitk.GetImageFromArray(array)
        dark.CopyInformation(image)
        sitk.WriteImage(dark, record["file_name"])
        for k, lesion in enumerate(record["lesions"]):
            lesion["id"], lesion["recist"] = f"{record['volume']}/{2 * number + k}", [0.0] * 8
            lesion["boxes"] = [lesion["boxes"][1]]
    return records


def write_labels(cfg):
    """Terms bright and dark, mutually exclusive, dark implying hole."""
    content = {"term_list": ["bright", "dark", "hole"]}
    for split in ("train", "val", "test"):
        content |= {f"{split}_{part}": [] for part in ("lesion_idxs", "relevant_labels", "uncertain_labels")}
    content |= {
        "train_lesion_idxs": list(range(12)), "train_relevant_labels": [[0], [1]] * 6,
        "train_uncertain_labels": [[]] * 12,
    }  # fmt: skip
    with open(cfg.MODEL.EMBEDDING.LABELS, "w") as file:
        json.dump(content, file)
    with open(cfg.MODEL.EMBEDDING.ONTOLOGY, "w") as file:
        file.write(
            "class,term,term_exclusive,term_parents\nattribute,bright,dark,\nattribute,dark,,hole\ntype,hole,,\n"
        )


def record_of(patient, series, *lesions):
    volume = f"{series}_001-020"
    made = [make_lesion(f"{volume}/{row}", [[z, *box]], key_slice=z, recist=[0.0] * 8) for row, z, box in lesions]
    return {"volume": volume, "patient": patient, "series": series, "lesions": made}

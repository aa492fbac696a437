"""A dataset of two studies with its hidden truth, and a ledger of what was mined in it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from lens_d2.data.ledger.table import LedgerRow, to_table, write_ledger

from .mining_proposals import record

A, B = "000001_01_01_001-020", "000001_02_01_001-020"
LESION = np.array([10.0, 10, 30, 30])
OTHER = np.array([60.0, 60, 70, 70])


@contextmanager
def hidden_dataset(folder: Path) -> Iterator[str]:
    """Two studies of a patient: lesion 1 is annotated in the first, 3 in the second, 2 never."""
    records = [record("000001_01_01", lesions=[(5, LESION)]), record("000001_02_01", lesions=[(15, OTHER)])]
    hidden = {
        A: [hidden_lesion(1, LESION, 4, 7), hidden_lesion(2, OTHER, 10, 12)],
        B: [hidden_lesion(1, LESION, 5, 6), hidden_lesion(3, OTHER, 15, 15)],
    }
    truth = {"volumes": {name: {"lesions": x, "spacing": [1.0, 1.0, 2.0]} for name, x in hidden.items()}}
    (folder / "hidden_truth.json").write_text(json.dumps(truth))
    DatasetCatalog.register("hidden", lambda: records)
    MetadataCatalog.get("hidden").set(root=str(folder), expert="deeplesion", fully_labelled=False)
    yield "hidden"
    DatasetCatalog.remove("hidden")
    MetadataCatalog.remove("hidden")


def hidden_lesion(instance, box, first, last):
    x1, y1, x2, y2 = box
    boxes = [[z, *box] for z in range(first, last + 1)]
    kind, contrast = ("nodule", -30.0) if instance == 1 else ("cyst", 10.0)
    box3d = [x1, y1, first, x2, y2, last]
    return {"instance": instance, "boxes": boxes, "box3d": box3d, "type": kind, "contrast": contrast}


def rows(volume, lesion, strategy, box, slices, **columns):
    values = {"annotation": "", "status": "annotation", "distance": np.nan, **columns}
    return [
        LedgerRow(
            id=f"{lesion}@{z}", volume=volume, slice=z, x1=box[0], y1=box[1], x2=box[2], y2=box[3], lesion=lesion,
            strategy=strategy, round=1, score=0.9, **values,
        )
        for z in slices
    ]  # fmt: skip


def write_mined_ledger(path: Path) -> Path:
    """Three of four slices followed, one of them beside; one match right, one wrong; two regions, one a lesion."""
    mined = [
        *rows(A, f"{A}/0", "CrossSlice", LESION, [4, 6], annotation=f"{A}/0"),
        *rows(A, f"{A}/0", "CrossSlice", LESION + 15, [7], annotation=f"{A}/0"),
        *rows(B, f"{B}/fused-0", "IntraPatient", LESION, [5, 6], annotation=f"{A}/0", distance=0.1),
        *rows(B, f"{B}/fused-1", "IntraPatient", LESION + 40, [5], annotation=f"{A}/0", distance=0.1),
        *rows(A, f"{A}/luna-0", "CrossDataset", OTHER, [10, 11], status="uncertain"),
        *rows(A, f"{A}/luna-1", "CrossDataset", OTHER - 30, [10], status="uncertain"),
        *rows(A, f"{A}/luna-2", "CrossDataset", OTHER, [12], status="rejected"),
    ]
    write_ledger(path, [to_table(mined)])
    return path

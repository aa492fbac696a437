"""Two volumes with two lesions and four detections, in other programs' files; their FROC is known by hand.

In descending score: a lesion of volume a, a false positive in a, one in b, the other lesion of a. So half of the
lesions are found without a false positive, and all at one false positive per volume.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np

from lens_d2.io.tables import VOXEL_COLUMNS, WORLD_COLUMNS
from lens_d2.structures.geometry import VolumeGeometry

FPS, SENSITIVITY = (0.5, 1.0), [0.5, 1.0]
AT_FPS = ("--fps", *FPS)

# x1, y1, z1, x2, y2, z2: pixel edges, first and last slice
LESIONS = {"a": [[10, 10, 2, 20, 20, 5], [40, 40, 8, 50, 52, 9]], "b": []}
BOXES = {
    "a": [[10, 10, 2, 20, 20, 5], [70, 70, 2, 80, 80, 4], [41, 41, 8, 49, 50, 9]],
    "b": [[5, 5, 1, 9, 9, 2]],
}
SCORES = {"a": [0.9, 0.8, 0.6], "b": [0.7]}

SIZE, SPACING, ORIGIN = (100, 90, 12), (0.5, 0.75, 2.0), (-30.0, 20.0, -100.0)
DIRECTION = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)  # x runs to the patient's right
AFFINE = np.eye(4)
AFFINE[:3] = np.column_stack([np.reshape(DIRECTION, (3, 3)) * SPACING, ORIGIN])
GEOMETRY = VolumeGeometry(SIZE, AFFINE)


def write_nndetection(folder: Path, **changes) -> Path:
    """A pickle for each volume; the ends lie one voxel outside, in the order z, y, z, y, x, x."""
    folder.mkdir()
    for name, boxes in BOXES.items():
        x1, y1, z1, x2, y2, z2 = np.array(boxes, dtype=np.float32).T
        content = {
            "pred_boxes": np.column_stack([z1 - 1, y1 - 1, z2 + 1, y2, x1 - 1, x2]),
            "pred_scores": np.array(SCORES[name], dtype=np.float32),
            "pred_labels": np.zeros(len(boxes)),
            "restore": True,
            "original_size_of_raw_data": np.array(SIZE[::-1]),
            "itk_origin": ORIGIN,
            "itk_spacing": SPACING,
            "itk_direction": DIRECTION,
        }
        (folder / f"{name}_boxes.pkl").write_bytes(pickle.dumps(content | changes))
    return folder


def write_nndetection_json(folder: Path) -> Path:
    """The same as JSON."""
    folder.mkdir()
    for name, boxes in BOXES.items():
        rows = [[z1 - 1, y1 - 1, z2 + 1, y2, x1 - 1, x2] for x1, y1, z1, x2, y2, z2 in boxes]
        found = {
            str(number): {"score": score, "label": 0, "box": box}
            for number, (box, score) in enumerate(zip(rows, SCORES[name], strict=True), start=1)
        }
        (folder / f"{name}_boxes.json").write_text(json.dumps(found))
    return folder


def monai_entries(boxes: dict, scores: dict | None = None, to_world=(1, 1, 1, 1, 1, 1)) -> list[dict]:
    """MONAI's list of images with centres and sizes in mm."""
    entries = []
    for name, rows in boxes.items():
        world = GEOMETRY.boxes3d_to_world(rows)
        centres = np.hstack([(world[:, :3] + world[:, 3:]) / 2, world[:, 3:] - world[:, :3]]) * to_world
        entry = {"image": f"/data/images/{name}.nii.gz", "box": centres.tolist(), "label": [0] * len(rows)}
        entries.append(entry if scores is None else entry | {"score": scores[name]})
    return entries


def table_text(boxes: dict, scores: dict | None, world: bool = False) -> str:
    """CSV with the columns of detections.csv; volumes without boxes have an empty row."""
    columns = ["volume", *(WORLD_COLUMNS if world else VOXEL_COLUMNS), *([] if scores is None else ["score"])]
    lines = [",".join(columns)]
    for name, rows in boxes.items():
        rows = (GEOMETRY.boxes3d_to_world(rows) if world else np.reshape(rows, (-1, 6)) + 0.0).tolist()
        cells = [[name, *row, *([] if scores is None else [scores[name][i]])] for i, row in enumerate(rows)]
        lines += [",".join(map(str, each)) for each in cells or [[name, *[""] * (len(columns) - 1)]]]
    return "\n".join(lines) + "\n"

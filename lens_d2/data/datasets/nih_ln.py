"""NIH-LN ("CT Lymph Nodes"): 388 mediastinal nodes on 90 scans, 595 abdominal ones on 86 (LENS, Section VI-A).

The scans are DICOM series, the masks NIfTI files in which every lymph node has a number of its own; if a mask has
only one number, every connected component is a node. The masks have the voxels of their series, but neither its
origin nor always the direction of its axes: they are transposed and flipped until their axes lead where those of
the series do. Remaining contradictions become warnings.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from ...io.errors import DataError
from ...io.files import visible_files
from ...structures.geometry import VolumeGeometry
from ...structures.records import make_record
from ..volume import read_header, read_mask
from .catalog import Dataset, Faults, cache_folder, register, split_of
from .index import Job, computed
from .masks import MIN_VOXELS, components, lesions_in

VERSION = f"3, at least {MIN_VOXELS} voxels"  # counts up when what is in the index changes
KINDS = {"MED": "mediastinal lymph node", "ABD": "abdominal lymph node"}


def read_nodes(mask: Path, geometry: VolumeGeometry, warn: Callable[[str], None] | None = None) -> np.ndarray:
    """Read the lymph nodes of a mask, numbered from 1, as a (z, y, x) array in the volume frame of its series.

    Args:
        mask: the file.
        geometry: of the series.
        warn: as in :func:`lens_d2.data.volume.read_mask`.

    Raises:
        DataError: the mask cannot be read, has another shape than the series, or negative labels.
    """
    labels = read_mask(mask, geometry, warn)
    if labels.min() < 0:
        raise DataError(mask, f"the label {labels.min()}; labels count from 0")
    inside = labels[labels > 0]
    has_numbers = inside.size and inside.min() < inside.max()
    return labels if has_numbers else components(labels > 0)


def read_pair(patient: str, series: Path, mask: Path) -> dict:
    """Read one patient: keywords of :func:`lens_d2.structures.records.make_record`, and warnings.

    Raises:
        DataError: the series or the mask cannot be read, or they differ in shape.
    """
    geometry = read_header(series)
    kind, warnings = KINDS.get(patient[:3], "lymph node"), list[str]()
    nodes = read_nodes(mask, geometry, warnings.append)
    return {
        "size": list(geometry.size),
        "spacing": list(geometry.spacing),
        "z_direction": geometry.z_direction,
        "lesions": lesions_in(nodes, patient, geometry.spacing, kind),
        "warnings": warnings,
    }


def find_series(folder: Path) -> Path:
    """Find the folder below a patient's with most DICOM files: the CT, if there is a segmentation object too.

    Raises:
        DataError: there is no DICOM file.
    """
    counts: dict[Path, int] = {}
    for file in visible_files(folder):
        if file.suffix == ".dcm":
            counts[file.parent] = counts.get(file.parent, 0) + 1
    if not counts:
        raise DataError(folder, "no DICOM file (*.dcm)")
    return max(sorted(counts), key=counts.__getitem__)


def find_mask(folder: Path) -> Path:
    """Find a patient's mask.

    Raises:
        DataError: no mask, or several.
    """
    files = [file for file in visible_files(folder) if file.parent == folder and "mask" in file.name]
    masks = [file for file in files if file.name.endswith((".nii", ".nii.gz"))]
    if len(masks) != 1:
        names = ", ".join(mask.name for mask in masks)
        raise DataError(folder, f"one mask (*mask*.nii.gz) belongs here, found {names or 'none'}")
    return masks[0]


def read_split(split: str, root: Path, faults: Faults, processes: int = 1) -> list[dict]:
    """Read the records of a split ("train" or "val"), with boxes from the index as far as it has them."""
    scans, masks = root / "NIH-LN" / "DICOM", root / "NIH-LN" / "masks"
    patients = sorted(path.name for path in scans.glob("[!.]*") if path.is_dir())
    if not patients:
        raise DataError(scans, "no folder of a patient (MED_LYMPH_001, ABD_LYMPH_001, ...)")
    splits, jobs = split_of(patients), {}
    for patient in patients:
        if splits[patient] != split:
            continue
        try:
            files = (find_series(scans / patient), find_mask(masks / patient))
        except DataError as error:
            faults.add(patient, error)
            continue
        jobs[patient] = Job(files, partial(read_pair, patient, *files))
    results = computed(cache_folder(root) / "index" / "nih_ln.json", VERSION, jobs, faults, processes)
    for name, result in results.items():
        faults.warn(name, result.pop("warnings"))
    return [
        make_record(jobs[name].files[0], volume=name, patient=name, **result) for name, result in results.items()
    ]


for _split in ("train", "val"):
    register(Dataset(name=f"nih_ln_{_split}", read=partial(read_split, _split), expert="nih_ln"))

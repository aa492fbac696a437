"""LiTS: liver tumours of 131 CT scans, all of them outlined (Bilic et al.; LENS, Section VI-A).

A tumour is a connected component of label 2 in ``segmentation-N.nii``. A mask lies on its volume voxel by voxel,
whatever its own header says, unless both headers agree on the place of each voxel and the axes of the mask merely
run in another order or direction.

The volumes 28 to 47 are those of 3D-IRCADb-01, stored with an identity affine: their spacing of 1 mm is wrong.
:data:`IRCAD` has the published spacing; a volume is corrected by an entry with as many slices. An optional file
``LiTS/spacing.csv`` (columns volume, x, y, z, axes) corrects any volume and takes precedence: mm per voxel along
the file's three axes, and optionally their directions ("LPS": to the patient's left, back and head; or R, A, I),
for volumes that turn out to be flipped or rotated.
"""

from __future__ import annotations

import logging
import re
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...io.errors import DataError
from ...io.tables import read_rows
from ...structures.records import make_record
from ..checks import check_mask
from ..sources import open_source
from ..volume import read_header, read_mask
from .catalog import Dataset, Faults, cache_folder, register, split_of
from .index import Job, computed
from .masks import MIN_VOXELS, components, lesions_in

logger = logging.getLogger(__name__)

VERSION = f"3, at least {MIN_VOXELS} voxels"  # counts up when what is in the index changes
TUMOUR = 2
MAX_OFFSET = 0.1  # voxels between a mask and its volume that lie at the same place

IDENTITY_VOLUMES = range(28, 48)
# Slices, pixel size and slice interval (mm) of the 20 patients of 3D-IRCADb-01, which the volumes 28 to 47 are.
IRCAD = (
    (129, 0.57, 1.6), (172, 0.78, 1.6), (200, 0.62, 1.25), (91, 0.74, 2.0), (139, 0.78, 1.6), (135, 0.78, 1.6),
    (151, 0.78, 1.6), (124, 0.56, 1.6), (111, 0.87, 2.0), (122, 0.73, 1.6), (132, 0.72, 1.6), (260, 0.68, 1.0),
    (122, 0.67, 1.6), (113, 0.72, 1.6), (125, 0.78, 1.6), (155, 0.70, 1.6), (119, 0.74, 1.6), (74, 0.74, 2.5),
    (124, 0.70, 4.0), (225, 0.81, 2.0),
)  # fmt: skip
AXES = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}
_FILE_NAME = re.compile(r"(volume|segmentation)-(\d+)\.nii(\.gz)?")


class Correction(NamedTuple):
    """A row of ``spacing.csv``.

    Attributes:
        spacing: mm along the file's axes.
        axes: their directions, or "".
    """

    spacing: tuple[float, float, float]
    axes: str


def read_corrections(path: Path) -> dict[int, Correction]:
    """Read ``spacing.csv``: ``{number of the volume: correction}``; empty if there is no such file.

    Raises:
        DataError: the table lacks a column, or a row makes no sense.
    """
    if not path.exists():
        return {}
    found = {}
    for line, row in read_rows(path, ("volume", "x", "y", "z", "axes")):
        try:
            number, spacing = int(row["volume"]), (float(row["x"]), float(row["y"]), float(row["z"]))
        except ValueError:
            raise DataError(path, f"line {line}: not a volume's number and three spacings") from None
        axes = row["axes"].strip().upper()
        body = sorted({"R": "L", "A": "P", "I": "S"}.get(letter, letter) for letter in axes)
        if not all(np.isfinite(spacing)) or min(spacing) <= 0 or (axes and body != sorted("LPS")):
            raise DataError(path, f"line {line}: spacings must be positive, and axes like LPS or RAS")
        if number in found:
            raise DataError(path, f"line {line}: volume {number} appears twice")
        found[number] = Correction(spacing, axes)
    return found


def corrected_affine(
    number: int, size: tuple[int, int, int], affine: np.ndarray, corrections: dict[int, Correction]
) -> np.ndarray | None:
    """The affine that a volume should have; None if its own is not known to be wrong.

    Args:
        number: of the volume.
        size, affine: of its header, in the file's axis order; LPS mm.
        corrections: see :func:`read_corrections`.

    Raises:
        ValueError: the affine is known to be wrong, but the right one is not known.
    """
    if number in corrections:
        spacing, axes = corrections[number]
    elif number in IDENTITY_VOLUMES and np.allclose(np.abs(affine), np.eye(4)):
        same = [i for i, (slices, _, _) in enumerate(IRCAD) if slices == size[2]]
        if not same:
            raise ValueError(
                f"an identity affine, so its spacing is wrong, and no known spacing for {size[2]} slices; give it "
                "in LiTS/spacing.csv"
            )
        nearest = min(same, key=lambda i: abs(i - (number - IDENTITY_VOLUMES[0])))
        spacing, axes = (IRCAD[nearest][1], *IRCAD[nearest][1:]), ""
    else:
        return None
    right = np.array(affine, dtype=np.float64)
    columns = right[:3, :3] / np.linalg.norm(right[:3, :3], axis=0)
    right[:3, :3] = (np.array([AXES[letter] for letter in axes]).T if axes else columns) * spacing
    return right


def read_pair(number: int, volume: Path, mask: Path, corrections: dict[int, Correction]) -> dict:
    """Read one volume: keywords of :func:`lens_d2.structures.records.make_record`, and warnings.

    Raises:
        DataError: a file cannot be read, or the mask has another shape than the volume, or unknown labels.
    """
    size, own = open_source({"file_name": volume}).header()
    try:
        corrected = corrected_affine(number, size, own, corrections)
    except ValueError as error:
        raise DataError(volume, str(error)) from None
    affine = own if corrected is None else corrected
    geometry = read_header(volume, affine=affine)
    warnings: list[str] = []
    turn = _turn(open_source({"file_name": mask}).header()[1], own, size)
    labels = read_mask(mask, geometry, warnings.append, affine=affine @ turn)
    warnings += _meeting(mask, volume)
    if labels.min() < 0 or labels.max() > TUMOUR:
        raise DataError(mask, f"labels from {labels.min()} to {labels.max()} where 0, 1 and 2 belong")
    tumours = components(labels == TUMOUR)
    return {
        "size": list(geometry.size),
        "spacing": list(geometry.spacing),
        "z_direction": geometry.z_direction,
        "affine": None if corrected is None else corrected.tolist(),
        "lesions": lesions_in(tumours, f"volume-{number}", geometry.spacing, "liver tumour"),
        "warnings": warnings,
    }


def _turn(mask: np.ndarray, volume: np.ndarray, size: tuple[int, int, int]) -> np.ndarray:
    """(4, 4) map of a mask's voxels to those of its volume that lie at the same place by their headers.

    It is the identity unless the axes merely run in another order or direction.

    Args:
        mask, volume: affines of their headers.
        size: of the volume, in the file's axis order.
    """
    if not np.isfinite([mask, volume]).all() or abs(np.linalg.det(volume)) < 1e-9:
        return np.eye(4)
    turn = np.linalg.inv(volume) @ mask
    whole = np.rint(turn)
    steps, far = np.abs(whole[:3, :3]), np.array(size) - 1
    begins = np.where(whole[:3, :3].min(axis=1) < 0, far, 0)
    is_turn = (steps.sum(axis=0) == 1).all() and (steps.sum(axis=1) == 1).all() and (whole[:3, 3] == begins).all()
    return whole if is_turn and np.abs(turn - whole).max() < MAX_OFFSET else np.eye(4)


def _meeting(mask: Path, volume: Path) -> list[str]:
    """Contradictions between the headers of a mask and its volume, whether or not the two are right."""
    try:
        return check_mask(read_header(mask), read_header(volume))
    except DataError as error:
        return [f"the header of {Path(error.path).name} does not say where its voxels are ({error.fault})"]


def find_pairs(folder: Path, faults: Faults) -> dict[int, tuple[Path, Path]]:
    """Find volumes and masks in a folder: ``{number: (volume, mask)}``; a file without its partner is a fault.

    Raises:
        DataError: there is no volume at all.
    """
    found: dict[str, dict[int, Path]] = {"volume": {}, "segmentation": {}}
    for path in sorted(folder.glob("*.nii*"), reverse=True):  # .nii wins over .nii.gz
        if match := _FILE_NAME.fullmatch(path.name):
            found[match[1]][int(match[2])] = path
    volumes, masks = found["volume"], found["segmentation"]
    if not volumes:
        raise DataError(folder, "no volume-N.nii or volume-N.nii.gz")
    for number in volumes.keys() - masks.keys():
        faults.add(f"volume-{number}", DataError(volumes[number], f"no segmentation-{number}.nii(.gz)"))
    for number in masks.keys() - volumes.keys():
        faults.add(f"volume-{number}", DataError(masks[number], f"no volume-{number}.nii(.gz)"))
    return {number: (volumes[number], masks[number]) for number in sorted(volumes.keys() & masks.keys())}


def read_split(split: str, root: Path, faults: Faults, processes: int = 1) -> list[dict]:
    """Read the records of a split ("train" or "val"), with boxes from the index as far as it has them."""
    folder = root / "LiTS"
    table = folder / "spacing.csv"
    corrections = read_corrections(table)
    every_fault = Faults()
    pairs = find_pairs(folder, every_fault)
    unknown = sorted(number for number in corrections if number not in pairs)
    if unknown:
        logger.warning("%s: no volume with its mask for %s", table, ", ".join(map(str, unknown)))
    # A volume without its mask counts in the split too, so that faults do not move others to the other side.
    splits = split_of({f"volume-{number}" for number in pairs} | every_fault.keys())
    faults.update({name: error for name, error in every_fault.items() if splits[name] == split})
    jobs = {
        f"volume-{number}": Job(
            (*pair, *([table] if corrections else [])), partial(read_pair, number, *pair, corrections)
        )
        for number, pair in pairs.items()
        if splits[f"volume-{number}"] == split
    }
    results = computed(cache_folder(root) / "index" / "lits.json", VERSION, jobs, faults, processes)
    touched = [name for name, result in results.items() if result["affine"] is not None]
    if touched:
        logger.info(f"lits_{split}: the spacing of these volumes was wrong and is corrected: {', '.join(touched)}")
    for name, result in results.items():
        faults.warn(name, result.pop("warnings"))
    return [
        make_record(jobs[name].files[0], volume=name, patient=name, **result) for name, result in results.items()
    ]


for _split in ("train", "val"):
    register(Dataset(name=f"lits_{_split}", read=partial(read_split, _split), expert="lits"))

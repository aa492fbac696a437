"""LUNA16: 1,186 lung nodules in 888 CT scans, all of them marked (Setio et al.; LENS, Section VI-A).

``annotations.csv`` gives the centre of a nodule in world (LPS) millimetres and its diameter. Some scans are stored
with x and y reversed; their direction matrix leads from the world to voxels.
"""

from __future__ import annotations

import logging
from functools import partial
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...io.errors import DataError
from ...io.files import visible_files
from ...io.tables import read_number, read_rows
from ...structures.boxes import hull
from ...structures.geometry import VolumeGeometry
from ...structures.records import make_lesion, make_record
from ..volume import read_header
from .catalog import Dataset, Faults, register, split_of

logger = logging.getLogger(__name__)

COLUMNS = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm")


class Nodule(NamedTuple):
    """A row of ``annotations.csv``.

    Attributes:
        center: x, y, z LPS mm.
        diameter: mm.
        line: of the file.
    """

    center: tuple[float, float, float]
    diameter: float
    line: int


def read_nodules(path: str | PathLike, faults: Faults | None = None) -> dict[str, list[Nodule]]:
    """Read ``annotations.csv``: ``{seriesuid: nodules}``.

    Args:
        path: the file.
        faults: collects the errors of single rows, by series; without it the first one is raised.

    Raises:
        DataError: the file is missing, is no table or lacks a column; or a number is missing or makes no sense.
    """
    nodules: dict[str, list[Nodule]] = {}
    for line, row in read_rows(path, COLUMNS):
        series, *texts = row.values()
        try:
            x, y, z, diameter = map(read_number, texts)
        except ValueError:
            x, y, z, diameter = (np.nan,) * 4
        if np.isfinite([x, y, z, diameter]).all() and diameter > 0:
            nodules.setdefault(series, []).append(Nodule((x, y, z), diameter, line))
            continue
        error = DataError(path, f"line {line} ({series}): no centre and diameter: {', '.join(texts)}")
        if faults is None:
            raise error
        faults.add(series, error)
    return nodules


def sphere_boxes(geometry: VolumeGeometry, center: np.ndarray, diameter: float) -> np.ndarray:
    """Boxes around the circles in which a sphere intersects the slices.

    Args:
        geometry: of the volume.
        center: x, y, z LPS mm.
        diameter: mm.

    Returns:
        (n, 5) z, x1, y1, x2, y2 in the volume frame, clipped to the image, on every slice whose circle is at least
        a pixel across. Without one, a box of the sphere's own diameter, on the nearest slice.
    """
    spacing, (width, height, num_slices) = np.array(geometry.spacing), geometry.size
    x, y, z = geometry.world_to_index(np.array([center]))[0] + [0.5, 0.5, 0.0]  # x and y: to edges
    slices = np.arange(num_slices)
    squares = (diameter / 2) ** 2 - ((slices - z) * spacing[2]) ** 2
    radii = np.sqrt(np.maximum(squares, 0.0))
    met = np.flatnonzero(2 * radii >= spacing[:2].max())
    if not len(met):
        met = np.array([int(np.clip(np.floor(z + 0.5), 0, num_slices - 1))])
        radii[met] = diameter / 2
    rx, ry = radii[met] / spacing[0], radii[met] / spacing[1]
    boxes = np.column_stack([met, x - rx, y - ry, x + rx, y + ry])
    boxes[:, 1:] = np.clip(boxes[:, 1:], 0, [width, height, width, height])
    return boxes


def _lesion(lesion_id: str, geometry: VolumeGeometry, nodule: Nodule) -> dict:
    """The lesion of a nodule; ValueError if that lies outside the volume."""
    center = geometry.world_to_index(np.array([nodule.center]))[0]
    if (center < -0.5).any() or (center > np.array(geometry.size) - 0.5).any():
        text = ", ".join(f"{x:.1f}" for x in center)
        raise ValueError(f"the nodule's centre is voxel {text} of {' x '.join(map(str, geometry.size))}")
    boxes = sphere_boxes(geometry, np.array(nodule.center), nodule.diameter)
    return make_lesion(
        lesion_id,
        boxes,
        box3d=hull(boxes),
        diameter_mm=nodule.diameter,
        kind="lung nodule",
    )


def _record(header: Path, nodules: list[Nodule], csv: Path) -> dict:
    geometry = read_header(header)
    name, lesions = header.stem, []
    for i, nodule in enumerate(nodules):
        try:
            lesions.append(_lesion(f"{name}/{i}", geometry, nodule))
        except ValueError as error:
            raise DataError(csv, f"line {nodule.line} ({name}): {error}") from None
    return make_record(
        header,
        volume=name,
        patient=name,
        size=geometry.size,
        spacing=geometry.spacing,
        z_direction=geometry.z_direction,
        lesions=lesions,
    )


def find_scans(folder: Path) -> dict[str, Path]:
    """Find the scans in and below ``folder/subset*``: ``{seriesuid: .mhd file}``.

    Raises:
        DataError: no scan, or a series twice.
    """
    scans: dict[str, Path] = {}
    files = [file for subset in sorted(folder.glob("subset*")) for file in visible_files(subset)]
    for header in [file for file in files if file.suffix == ".mhd"]:
        if header.stem in scans:
            raise DataError(header, f"the same series as {scans[header.stem]}")
        scans[header.stem] = header
    if not scans:
        raise DataError(folder, "no scan subset*/<seriesuid>.mhd")
    return scans


def read_split(split: str, root: Path, faults: Faults, processes: int = 1) -> list[dict]:
    """Read the records of a split ("train" or "val"); scans without a nodule have no lesions."""
    folder = root / "LUNA16"
    csv = folder / "annotations.csv"
    scans, row_faults = find_scans(folder), Faults()
    nodules = read_nodules(csv, row_faults)
    splits, records = split_of(scans), []
    for name, header in scans.items():
        if splits[name] != split:
            continue
        try:
            if name in row_faults:
                raise row_faults[name]
            records.append(_record(header, nodules.get(name, []), csv))
        except DataError as error:
            faults.add(name, error)
    if scans and not nodules and not row_faults:
        logger.warning(
            "%s: has no nodule, so that all %d scans count as free of them; is it cut?", csv, len(scans)
        )
    elsewhere = len(nodules.keys() - scans.keys())
    if elsewhere and elsewhere == len(nodules):
        raise DataError(
            csv,
            f"its {elsewhere} scans with nodules are none of those in {folder}, which would all count as free of "
            "nodules: put annotations.csv and the scans of one release there",
        )
    if elsewhere:
        logger.warning("%s: has nodules of %d scans that are not in %s", csv, elsewhere, folder)
    return records


for _split in ("train", "val"):
    register(Dataset(name=f"luna_{_split}", read=partial(read_split, _split), expert="luna"))

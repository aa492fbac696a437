"""The dataset record: a plain dict for each sub-volume, the one form in which all datasets meet.

A record can be pickled or written as JSON. It holds everything about a sub-volume but its voxels:

- ``file_name``: absolute path of the source (a folder of PNG or DICOM slices, or a volume file).
- ``volume``: unique name of the sub-volume; ``image_id`` is the same.
- ``expert``: name of the expert that learns from it.
- ``patient``, ``study``, ``series``: names, unique in the dataset.
- ``width``, ``height``, ``num_slices``: voxels. ``first_slice``: the source's number of slice 0.
- ``spacing``: [x, y, z] mm, all positive. ``z_direction``: +1 if the slices run to the head, -1 to the feet.
- ``lesions``: list of dicts, see :func:`make_lesion`; a mined one may have a ``weight`` in [0, 1] in the losses of
  classification, without it 1.
- if needed ``affine`` (4x4, replaces a wrong header, see :func:`lens_d2.data.volume.read_header`), and ``weight``
  (how often an epoch draws each of its samples, 1 by default, see ``DATASETS.WEIGHTS``).

Everything is in the volume frame: x and y in pixel edges (pixel i spans [i, i + 1]), slices counted from 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from os import PathLike, path

from ..io.errors import DataError
from .boxes import boxes_through

# Annotations are given; mined and accepted lesions are to be found as well; uncertain and unsure regions are
# neither lesions nor background.
STATUSES = ("annotation", "mined", "accepted", "uncertain", "unsure", "hard_negative")

# Slices by which a 3D box may stick out of its sub-volume: some of the released ones count half a slice further.
Z_TOLERANCE = 0.5


def make_lesion(
    lesion_id: str,
    boxes: Iterable[Sequence[float]] = (),
    *,
    box3d: Sequence[float] | None = None,
    key_slice: int | None = None,
    recist: Sequence[float] | None = None,
    diameter_mm: float | None = None,
    kind: str | None = None,
    status: str = "annotation",
) -> dict:
    """Lesion of a record.

    Args:
        lesion_id: unique among all lesions of the dataset; starts with the sub-volume's name.
        boxes: (n, 5) z, x1, y1, x2, y2 on every slice on which the lesion's box is known.
        box3d: x1, y1, z1, x2, y2, z2 if the 3D extent is known; z1 and z2 are the first and last slice, both
            included, and may be fractional.
        key_slice: slice of the RECIST mark.
        recist: ends of the mark, x1, y1, .. x4, y4, the long axis first.
        diameter_mm: the longest one, in the slice or in 3D.
        kind: of lesion, if the dataset says so ("liver", "lymph node"); the record's ``type``.
        status: one of :data:`STATUSES`.
    """
    return {
        "id": lesion_id,
        "boxes": [[int(z), *map(float, box)] for z, *box in boxes],
        "box3d": None if box3d is None else [float(x) for x in box3d],
        "key_slice": None if key_slice is None else int(key_slice),
        "recist": None if recist is None else [float(x) for x in recist],
        "diameter_mm": None if diameter_mm is None else float(diameter_mm),
        "type": kind,
        "status": status,
    }


def make_record(
    file_name: str | PathLike,
    *,
    volume: str,
    patient: str,
    size: Sequence[int],
    spacing: Sequence[float],
    lesions: Sequence[dict] = (),
    study: str | None = None,
    series: str | None = None,
    first_slice: int = 0,
    z_direction: int = 1,
    affine: Sequence[Sequence[float]] | None = None,
    expert: str = "",
) -> dict:
    """Checked record of a sub-volume; a lesion with a 3D box alone gets its outline on each slice.

    Args:
        file_name: source of the voxels.
        size: x, y, z in voxels.
        study, series: names; the sub-volume's by default.
        expert: that of its dataset if left out, which :func:`lens_d2.data.datasets.catalog.read` fills in.
        volume, patient, spacing, lesions, first_slice, z_direction, affine: see the module's docstring.

    Raises:
        DataError: see :func:`check_record`.
    """
    record = {
        "file_name": path.abspath(file_name),
        "volume": volume,
        "image_id": volume,
        "expert": expert,
        "patient": patient,
        "study": study or volume,
        "series": series or volume,
        "width": int(size[0]),
        "height": int(size[1]),
        "num_slices": int(size[2]),
        "first_slice": int(first_slice),
        "spacing": [float(x) for x in spacing],
        "z_direction": int(z_direction),
        "lesions": [_with_slice_boxes(lesion, int(size[2])) for lesion in lesions],
    }
    if affine is not None:
        record["affine"] = [[float(x) for x in row] for row in affine]
    check_record(record)
    return record


def _with_slice_boxes(lesion: dict, num_slices: int) -> dict:
    if lesion["boxes"] or lesion["box3d"] is None:
        return lesion
    return {**lesion, "boxes": [[int(z), *box] for z, *box in boxes_through(lesion["box3d"], num_slices).tolist()]}


def given_lesions(record: dict) -> list[dict]:
    """The lesions that the dataset gives, without mined or judged ones, which are not truth."""
    return [lesion for lesion in record["lesions"] if lesion["status"] == "annotation"]


def check_record(record: dict, source: str | PathLike | None = None) -> None:
    """Refuse a record that contradicts itself.

    Args:
        record: to be checked.
        source: file that the error names; the record's own by default.

    Raises:
        DataError: a size or spacing is not positive and finite, or :func:`fault_of` finds fault with a lesion;
            names the sub-volume.
    """
    source = record["file_name"] if source is None else source
    if not all(record[side] > 0 for side in ("width", "height", "num_slices")):
        raise DataError(source, f"{record['volume']}: it has no voxels")
    if not _is_finite(record["spacing"]) or min(record["spacing"]) <= 0:
        numbers = " x ".join(f"{step:g}" for step in record["spacing"])
        raise DataError(source, f"{record['volume']}: the spacing is {numbers} mm; it must be positive")
    for lesion in record["lesions"]:
        fault = fault_of(lesion, (record["width"], record["height"], record["num_slices"]))
        if fault:
            raise DataError(source, f"{record['volume']}: {fault}")


def fault_of(lesion: dict, size: Sequence[int]) -> str | None:
    """Fault of a lesion in a sub-volume of ``size`` x, y, z voxels; None if it is sound.

    Boxes must lie inside the image and have an area. Slices must lie inside the sub-volume; a 3D box may reach
    half a slice (:data:`Z_TOLERANCE`) further. Nothing may be NaN.
    """
    width, height, num_slices = size
    if lesion["status"] not in STATUSES:
        return f"a lesion with the status {lesion['status']!r}; one of {', '.join(STATUSES)} is needed"
    if not lesion["boxes"] and lesion["box3d"] is None:
        return "a lesion without a box"
    planes = [(z, box) for z, *box in lesion["boxes"]]
    if lesion["box3d"] is not None:
        planes.append((None, [lesion["box3d"][i] for i in (0, 1, 3, 4)]))
    for z, box in planes:
        fault = _fault_of_box(box, width, height)
        if fault:
            text, where = ", ".join(f"{x:g}" for x in box), "3D" if z is None else f"slice {z}"
            return f"the box {text} ({where}) {fault}"
    slices = [z for z, *_ in lesion["boxes"]] + ([lesion["key_slice"]] if lesion["key_slice"] is not None else [])
    if any(not 0 <= z < num_slices for z in slices):
        return f"a box on slice {[z for z in slices if not 0 <= z < num_slices][0]} of {num_slices}"
    if lesion["box3d"] is not None:
        first, last = lesion["box3d"][2], lesion["box3d"][5]
        if not (-Z_TOLERANCE <= first <= last <= num_slices - 1 + Z_TOLERANCE):
            return f"a 3D box on the slices {first:g} to {last:g} of {num_slices}"
    return None


def _fault_of_box(box: Sequence[float], width: int, height: int) -> str | None:
    if len(box) != 4 or not _is_finite(box):
        return "is not four numbers"
    x1, y1, x2, y2 = box
    if x1 >= x2 or y1 >= y2:
        return "has no area"
    if x1 < 0 or y1 < 0 or x2 > width or y2 > height:
        return f"lies outside the image of {width} x {height} pixels"
    return None


def _is_finite(numbers: Sequence[float]) -> bool:
    return all(map(math.isfinite, numbers))

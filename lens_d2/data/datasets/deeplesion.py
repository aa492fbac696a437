"""DeepLesion: 32,735 RECIST marks on 10,594 CT studies, and the sets in which all lesions are annotated.

One record is one sub-volume: a run of slices with consecutive numbers in one series. The marks of ``DL_info.csv``
are partial (a quarter to a half of the lesions) and on their key slice only.

Sets (Yan et al., LENS, Section VI-A; Cai et al., Lesion-Harvester, Section IV-A):

- ``deeplesion_{train,val,test}``: the official split with its marks. Training includes V_M and V_H-test, with
  their original marks only, as the algorithms may see no others.
- ``deeplesion_1k_{val,test}``: LENS's 200 and 800 sub-volumes of the official test split, 3D boxes.
- ``deeplesion_vm``: V_M, 744 training sub-volumes with all lesions marked. ``deeplesion_vh``: V_H, the rest of
  the training split with its marks. ``deeplesion_vh_test``: 100 of these with all lesions marked, to measure
  harvesting. ``deeplesion_vd_test``: 1,071 of the official test split. ``deeplesion_vd3d_test``: 272 of those
  with 3D boxes.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...io.errors import DataError
from ...io.formats import HARVESTER, LENS, FileFrame, VolumeName, read_boxes3d, read_lens_set, read_revised
from ...io.tables import read_number, read_rows
from ...structures.boxes import boxes_through
from ...structures.records import fault_of, make_lesion, make_record
from .catalog import Dataset, Faults, register

logger = logging.getLogger(__name__)

MARK_TABLE = "DeepLesion/DL_info.csv"
COLUMNS = (
    "File_name", "Key_slice_index", "Measurement_coordinates", "Bounding_boxes", "Lesion_diameters_Pixel_",
    "Coarse_lesion_type", "Possibly_noisy", "Slice_range", "Spacing_mm_px_", "Image_size", "Train_Val_Test",
)  # fmt: skip
SPLITS = {"train": 1, "val": 2, "test": 3}
# Coarse_lesion_type; -1: not known (the whole training split).
TYPES = {
    1: "bone", 2: "abdomen", 3: "mediastinum", 4: "liver", 5: "lung", 6: "kidney", 7: "soft tissue", 8: "pelvis",
}  # fmt: skip
BOX_MARGIN = 5.0  # pixels of a box around its mark, which may stick out of the image
RELEASED_MM = 30.0  # mm above and below a key slice within which slices are released, as far as the scan reaches

_FILE_NAME = re.compile(r"(\d{6}_\d{2,}_\d{2,})_(\d{3,})\.png")


@dataclass(frozen=True)
class Mark:
    """One row of ``DL_info.csv``, in the file's own numbers.

    Attributes:
        row: number of the row, from 0; LesaNet's labels refer to it.
        interval: third number of Spacing_mm_px_; may be negative, zero or NaN.
    """

    row: int
    series: str
    key_slice: int
    recist: tuple[float, ...]
    box: tuple[float, ...]
    diameters: tuple[float, ...]
    kind: int
    noisy: bool
    slices: tuple[int, int]
    pixel_spacing: tuple[float, float]
    interval: float
    size: tuple[int, int]
    split: int


class SubVolume(NamedTuple):
    """A sub-volume according to the table.

    Attributes:
        name: of the sub-volume.
        marks: on it.
        spacing: x, y, z mm.
        z_direction: +1 if the slices run to the head, -1 to the feet.
    """

    name: VolumeName
    marks: list[Mark]
    spacing: tuple[float, float, float]
    z_direction: int

    @property
    def size(self) -> tuple[int, int, int]:
        """x, y, z voxels."""
        return (*self.marks[0].size, self.name.num_slices)


def read_mark_table(path: str | PathLike, faults: Faults | None = None) -> list[Mark]:
    """Read all rows of ``DL_info.csv``, also noisy ones.

    Args:
        path: the file.
        faults: collects the errors of single rows; without it the first one is raised.

    Raises:
        DataError: the file is missing, is no table or lacks a column; or in a row, a number is missing or makes no
            sense, or the path is none of the dataset's.
    """
    marks = []
    for row, (line, values) in enumerate(read_rows(path, COLUMNS)):
        try:
            marks.append(_mark(row, values))
        except ValueError as error:
            fault = DataError(path, f"line {line} ({values['File_name']}): {error}")
            if faults is None:
                raise fault from None
            faults.add(f"{Path(path).name}, line {line}", fault)
    return marks


def _mark(row: int, values: Mapping[str, str]) -> Mark:
    """The mark of a row; ValueError if that makes no sense."""
    match = _FILE_NAME.fullmatch(values["File_name"])
    if not match:
        raise ValueError("File_name is not <patient>_<study>_<series>_<slice>.png")
    (key_slice,) = _whole_numbers(values, "Key_slice_index", 1)
    if int(match[2]) != key_slice:
        raise ValueError(f"Key_slice_index is {key_slice}, and File_name is of another slice")
    first, last = _whole_numbers(values, "Slice_range", 2)
    if not first <= key_slice <= last:
        raise ValueError(f"the key slice {key_slice} is not in the Slice_range {first} to {last}")
    *pixel, interval = _numbers(values, "Spacing_mm_px_", 3, may_be_missing=(2,))
    pixel_spacing = (pixel[0], pixel[1])
    if min(pixel_spacing) <= 0:
        raise ValueError(f"the pixel spacing is {pixel_spacing[0]:g} x {pixel_spacing[1]:g} mm")
    (split,) = _whole_numbers(values, "Train_Val_Test", 1)
    if split not in SPLITS.values():
        raise ValueError(f"Train_Val_Test is {split}, not one of {', '.join(map(str, SPLITS.values()))}")
    width, height = _whole_numbers(values, "Image_size", 2)
    if min(width, height) <= 0:
        raise ValueError(f"the Image_size is {width} x {height} pixels")
    return Mark(
        row=row,
        series=match[1],
        key_slice=key_slice,
        recist=_numbers(values, "Measurement_coordinates", 8),
        box=_numbers(values, "Bounding_boxes", 4),
        diameters=_numbers(values, "Lesion_diameters_Pixel_", 2),
        kind=int(_numbers(values, "Coarse_lesion_type", 1)[0]),
        noisy=_numbers(values, "Possibly_noisy", 1)[0] != 0,
        slices=(first, last),
        pixel_spacing=pixel_spacing,
        interval=interval,
        size=(width, height),
        split=split,
    )


def _whole_numbers(values: Mapping[str, str], column: str, count: int) -> tuple[int, ...]:
    numbers = _numbers(values, column, count)
    if any(number % 1 for number in numbers):
        raise ValueError(f"{column} is {values[column]!r}; whole numbers belong there")
    return tuple(map(int, numbers))


def _numbers(values: Mapping[str, str], column: str, count: int, may_be_missing=()) -> tuple[float, ...]:
    """The numbers of one cell; NaN is accepted only at the places ``may_be_missing``."""
    try:
        numbers = tuple(read_number(text) if text.strip() else np.nan for text in values[column].split(","))
    except ValueError:
        raise ValueError(f"{column} is {values[column]!r}") from None
    if len(numbers) != count:
        raise ValueError(f"{column} has {len(numbers)} numbers, not {count}: {values[column]!r}")
    for i, number in enumerate(numbers):
        if not np.isfinite(number) and not (i in may_be_missing and np.isnan(number)):
            raise ValueError(f"{column} is missing or not a number: {values[column]!r}")
    return numbers


def sub_volumes(marks: Iterable[Mark]) -> dict[str, SubVolume]:
    """Group marks into sub-volumes, by name.

    Rows of a series whose Slice_ranges touch or overlap are one sub-volume, as their slices have consecutive
    numbers.
    """
    series: dict[str, list[Mark]] = {}
    for mark in marks:
        series.setdefault(mark.series, []).append(mark)
    found = {}
    for name, rows in series.items():
        runs: list[tuple[int, int, list[Mark]]] = []
        for mark in sorted(rows, key=lambda mark: mark.slices):
            first, last = mark.slices
            if runs and first <= runs[-1][1] + 1:
                runs[-1] = (runs[-1][0], max(last, runs[-1][1]), [*runs[-1][2], mark])
            else:
                runs.append((first, last, [mark]))
        for first, last, members in runs:
            volume = _sub_volume(VolumeName(name, first, last), sorted(members, key=lambda mark: mark.row), rows)
            found[str(volume.name)] = volume
    return found


def _sub_volume(name: VolumeName, marks: list[Mark], series: list[Mark]) -> SubVolume:
    """A sub-volume with its geometry by its marks, or by others of the series if they give no interval."""
    intervals = [m.interval for m in [*marks, *series] if np.isfinite(m.interval) and m.interval != 0]
    if intervals:
        interval = intervals[0]
    else:
        keys = [mark.key_slice for mark in marks]
        interval = RELEASED_MM / max(min(keys) - name.first, name.last - max(keys), 1)
        logger.info(
            f"{name}: DL_info.csv gives no slice interval; {interval:.2f} mm fits the {RELEASED_MM:g} mm that the "
            "release keeps around a key slice"
        )
    # Slices run from head to feet if the interval is positive: Normalized_lesion_location grows with the slice
    # number.
    return SubVolume(name, marks, (*marks[0].pixel_spacing, abs(interval)), -1 if interval > 0 else 1)


def _record(root: Path, volume: SubVolume, lesions: list[dict]) -> dict:
    series = volume.name.series
    patient, study, _ = series.split("_")
    folder = root / "DeepLesion" / "Images_png" / series
    missing = _missing_slices(folder, volume.name, lesions)
    record = make_record(
        folder,
        volume=str(volume.name),
        patient=patient,
        study=f"{patient}_{study}",
        series=series,
        size=volume.size,
        first_slice=volume.name.first,
        spacing=volume.spacing,
        z_direction=volume.z_direction,
        lesions=lesions,
    )
    return {**record, "missing_slices": missing} if missing else record


def _missing_slices(folder: Path, name: VolumeName, lesions: Iterable[Mapping]) -> list[int]:
    """Slices, from 0 in the sub-volume, that the release lacks; the nearest ones replace them.

    Empty if a key slice or more than half of the sub-volume is absent: that is a broken download, which reading
    the volume reports. Empty also if there is no folder to look into.
    """
    if not folder.is_dir():
        return []
    present = set(os.listdir(folder))
    missing = [z for z in range(name.num_slices) if f"{name.first + z:03d}.png" not in present]
    broken = 2 * len(missing) > name.num_slices or any(lesion["key_slice"] in missing for lesion in lesions)
    return [] if broken else missing


def _mark_lesion(mark: Mark, volume: SubVolume) -> dict:
    """The lesion of a RECIST mark, in the volume frame."""
    (box,) = HARVESTER.to_volume(np.array([mark.box]), volume.name.first)
    z = mark.key_slice - volume.name.first
    return make_lesion(
        f"{volume.name}/{mark.row}",
        [[z, *_within(box, mark.size)]],
        key_slice=z,
        recist=np.array(mark.recist) - 0.5,  # pixel 1's centre is half a pixel from the edge of the image
        diameter_mm=max(mark.diameters) * mark.pixel_spacing[0],
        kind=TYPES.get(mark.kind),
    )


def _within(box: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """The (4,) box of a mark, cut at the edge of the image if no more than its margin sticks out."""
    limits = np.array([*size[:2], *size[:2]])
    sticks_out = (box < -BOX_MARGIN).any() or (box > limits + BOX_MARGIN).any()
    return box if sticks_out else np.clip(box, 0, limits)


def read_split(split: str, root: Path, faults: Faults, processes: int = 1) -> list[dict]:
    """Read the records of an official split ("train", "val" or "test") with its marks, without the noisy ones.

    Sub-volumes with noisy marks only are left out, as nothing is known of them.
    """
    records = _records_of(split, root, faults)
    _warn_of_gaps(f"deeplesion_{split}", records, faults)
    return records


def _records_of(split: str, root: Path, faults: Faults) -> list[dict]:
    csv = root / MARK_TABLE
    records = []
    for name, volume in sub_volumes(read_mark_table(csv, faults)).items():
        marks = [m for m in volume.marks if m.split == SPLITS[split] and not m.noisy]
        lesions = [_mark_lesion(mark, volume) for mark in marks]
        wrong = [(m, fault) for m, x in zip(marks, lesions, strict=True) if (fault := fault_of(x, volume.size))]
        if wrong:
            faults.add(name, DataError(csv, f"line {wrong[0][0].row + 2} ({name}): {wrong[0][1]}"))
        elif lesions:
            records.append(_record(root, volume, lesions))
    return records


def read_rest(split: str, file: str, root: Path, faults: Faults, processes: int = 1) -> list[dict]:
    """Read records as :func:`read_split`, but none that shares a slice with a sub-volume of a released file."""
    path = root / "DeepLesion" / "annotations" / file
    taken: dict[str, list[VolumeName]] = {}
    for name in read_revised(path):
        parsed = VolumeName.parse(name, path)
        taken.setdefault(parsed.series, []).append(parsed)
    records = [
        record
        for record in _records_of(split, root, faults)
        if not any(_share_slices(record, name) for name in taken.get(record["series"], ()))
    ]
    _warn_of_gaps(f"deeplesion_{split} without {file}", records, faults)
    return records


def _share_slices(record: dict, name: VolumeName) -> bool:
    first = record["first_slice"]
    return name.first <= first + record["num_slices"] - 1 and first <= name.last


# Reads a released file: {sub-volume: boxes}.
_Reader = Callable[[Path], Mapping[str, np.ndarray]]


def read_annotated(file: str, boxes_of: _Reader, root: Path, faults: Faults, processes: int = 1) -> list[dict]:
    """Read the records of a released annotation file, with its boxes instead of the marks.

    Args:
        file: its name in ``DeepLesion/annotations``.
        boxes_of: reads it: (n, 5) boxes on single slices, or (n, 6) 3D boxes, by sub-volume.
        root: folder of the datasets.
        faults: collects the errors of sub-volumes.
        processes: not used.
    """
    path = root / "DeepLesion" / "annotations" / file
    annotated = boxes_of(path)
    marks = read_mark_table(root / MARK_TABLE, Faults())
    known = sub_volumes(marks)
    series = {volume.name.series: volume for volume in known.values()}
    records = []
    for name, boxes in annotated.items():
        parsed = VolumeName.parse(name, path)
        volume = known.get(name) or series.get(parsed.series)
        if volume is None:
            faults.add(name, DataError(path, f"{name}: DL_info.csv has no such series"))
            continue
        volume = volume._replace(name=parsed)
        lesions = [_box_lesion(f"{name}/{i}", box, volume.size) for i, box in enumerate(boxes)]
        wrong = [fault for lesion in lesions if (fault := fault_of(lesion, volume.size))]
        if wrong:
            faults.add(name, DataError(path, f"{name}: {wrong[0]}"))
        else:
            records.append(_record(root, volume, lesions))
    _warn_of_gaps(file, records, faults)
    return records


def _box_lesion(lesion_id: str, box: np.ndarray, size: tuple[int, int, int]) -> dict:
    """The lesion of a released box: z, x1, y1, x2, y2 on a slice, or x1, y1, z1, x2, y2, z2."""
    if len(box) == 5:
        return make_lesion(lesion_id, [[box[0], *_within(box[1:], size)]], key_slice=box[0])
    return make_lesion(lesion_id, boxes_through(box, size[2]), box3d=box)


def _warn_of_gaps(name: str, records: list[dict], faults: Faults) -> None:
    gaps = [record for record in records if "missing_slices" in record]
    for record in gaps:
        count = f"{len(record['missing_slices'])} of {record['num_slices']}"
        faults.warn(record["volume"], [f"{count} slices do not exist, the nearest ones stand in for them"])
    if gaps:
        slices = sum(len(record["missing_slices"]) for record in gaps)
        logger.warning(
            f"{name}: {slices} slices of {len(gaps)} sub-volumes do not exist, the nearest ones stand in for them "
            f"({gaps[0]['volume']} and others)"
        )


def _register(
    name: str,
    read: Callable[..., list[dict]],
    *,
    fully_labelled: bool,
    truth_is_3d: bool,
    file_frame: FileFrame = HARVESTER,
) -> None:
    register(
        Dataset(
            name=f"deeplesion_{name}",
            read=read,
            expert="deeplesion",
            fully_labelled=fully_labelled,
            truth_is_3d=truth_is_3d,
            evaluator_type="lens3d" if truth_is_3d else "p3d",
            file_frame=file_frame,
            mark_table=MARK_TABLE,
        )
    )


for _split in SPLITS:
    _register(_split, partial(read_split, _split), fully_labelled=False, truth_is_3d=False)
_register("vh", partial(read_rest, "train", "Revised-Train744.pkl"), fully_labelled=False, truth_is_3d=False)
for _part in ("val", "test"):
    _read = partial(read_annotated, "DeepLesion_manual_1K_test_release.pkl", partial(read_lens_set, part=_part))
    _register(f"1k_{_part}", _read, fully_labelled=True, truth_is_3d=True, file_frame=LENS)
for _name, _file, _boxes_of, _is_3d in (
    ("vm", "Revised-Train744.pkl", read_revised, False),
    ("vh_test", "Revised-Train100.pkl", read_revised, False),
    ("vd_test", "Revised-Test1071.pkl", read_revised, False),
    ("vd3d_test", "3D-Box.pkl", read_boxes3d, True),
):
    _register(_name, partial(read_annotated, _file, _boxes_of), fully_labelled=True, truth_is_3d=_is_3d)

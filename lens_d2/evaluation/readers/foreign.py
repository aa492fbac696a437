"""Boxes that other programs have written, brought into one form and to the protocols.

A format is a :class:`BoxReader` in :data:`BOX_READERS`. It gives boxes in the coordinates of this package: of
voxels, of the world, or of both.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import numpy as np
from fvcore.common.registry import Registry

from ...io.errors import DataError, did_you_mean
from ...io.files import read_bytes
from ...io.formats import FileFrame, slice_range
from ...structures.boxes import PLANE, slices_of
from ...structures.geometry import VolumeGeometry
from ..sets import BoxDetections, BoxTruth, Candidates, Tracklets
from .published import (
    box_faults,
    check_entries,
    match_volumes,
    spread,
    warn_of_boxes,
    warn_of_doubles,
    warn_of_empty,
    warn_of_lesions,
    warn_of_tracklets,
)

logger = logging.getLogger(__name__)

BOX_READERS = Registry("BOX_READER")
BOX_READERS.__doc__ = """
Formats of other programs' boxes by the name that ``tools/evaluate.py --format`` takes: subclasses of
:class:`BoxReader`.
"""

# Numbers of boxes in the world, whose ends count as cells of 1 mm: overlaps are those of the boxes themselves.
MILLIMETRES = FileFrame(numbered_slices=False)
SCAN_SUFFIXES = (".nii.gz", ".nii", ".mhd", ".mha", ".nrrd")


@dataclass(frozen=True)
class VolumeBoxes:
    """Boxes of one volume; ``voxels``, ``world`` or both are known.

    Attributes:
        name: of the volume.
        scores: (n,), or None in a truth.
        voxels: (n, 6) x1, y1, z1, x2, y2, z2: x and y are pixel edges (pixel i spans i to i + 1), z the first and
            the last slice, counted from 0 in the volume, both included.
        world: (n, 6) smallest x, y, z and largest x, y, z in LPS mm, at the outer faces of the voxels.
        detection: (n,) detection that each box belongs to, if boxes lie on single slices; None for 3D boxes.
        array: (n, 6) lowest and highest outer face of the voxels along the axes i, j, k of the scan's file, for
            formats that know these alone. ``voxels`` are then those of a scan whose slices are axial.
    """

    name: str
    scores: np.ndarray | None
    voxels: np.ndarray | None = None
    world: np.ndarray | None = None
    detection: np.ndarray | None = None
    array: np.ndarray | None = None

    def __len__(self) -> int:
        return next(len(each) for each in (self.voxels, self.world) if each is not None)


class BoxReader(ABC):
    """A file format of boxes.

    Attributes:
        patterns: names of its files in a folder, if it has a file for each volume.
    """

    patterns: tuple[str, ...] = ()

    @abstractmethod
    def recognizes(self, data: bytes) -> bool:
        """Tell whether a file with this content is in the format."""

    @abstractmethod
    def read(self, path: Path, split: str | None, images: str | PathLike | None) -> Iterator[VolumeBoxes]:
        """Read one file.

        Args:
            path: the file.
            split: "train", "val" or "test": part to take of a file with several.
            images: file that says which slice of which volume each image is, for formats that number images.

        Raises:
            DataError: the file is damaged or lacks something.
        """

    def files(self, path: Path) -> list[Path]:
        """Files of the format at a path, which is one of them or a folder."""
        if not path.is_dir():
            return [path]
        return sorted(file for pattern in self.patterns for file in path.rglob(pattern))

    def read_all(
        self, path: str | PathLike, split: str | None = None, images: str | PathLike | None = None
    ) -> ForeignBoxes:
        """Read the file at a path, or all those of a folder.

        Args:
            path: a file, or a folder with a file for each volume.
            split, images: as for :meth:`read`.

        Raises:
            DataError: a file is damaged, incomplete or unsafe, or the folder has none; names it and the entry.
        """
        volumes: dict[str, VolumeBoxes] = {}
        files = self.files(Path(path))
        if not files:
            raise DataError(path, f"the folder holds no {' or '.join(self.patterns) or 'file of this format'}")
        for file in files:
            for volume in self.read(file, split, images):
                if volume.name in volumes:
                    raise DataError(file, f"volume {volume.name} appears twice")
                _check_corners(file, volume)
                volumes[volume.name] = volume
        _warn_of_flat(path, volumes.values())
        return ForeignBoxes(path, volumes)


@dataclass(frozen=True)
class ForeignBoxes:
    """Boxes of several volumes.

    Attributes:
        path: file or folder that they come from.
        volumes: boxes by name, in the order of the file.
    """

    path: str | PathLike
    volumes: dict[str, VolumeBoxes]

    def knows(self, field: str) -> bool:
        """Whether all volumes have this field of :class:`VolumeBoxes`."""
        return all(getattr(volume, field) is not None for volume in self.volumes.values())

    def of(self, name: str) -> ForeignBoxes:
        """The boxes of one volume."""
        return replace(self, volumes={name: self.volumes[name]})

    def locate(
        self, geometry: Callable[[str], VolumeGeometry], axes: Callable[[str], np.ndarray] | None = None
    ) -> ForeignBoxes:
        """Add the voxels to boxes of the world, and the reverse.

        Args:
            geometry: gives that of a volume by its name, such as ``partial(scan_geometry, folder)``.
            axes: gives the axes of a volume's file that are x, y, z, such as ``partial(scan_axes, folder)``; None:
                all slices are axial.

        Raises:
            DataError: boxes of which both are given lie in two places.
        """
        located = {}
        for name, volume in self.volumes.items():
            if volume.array is not None and axes is not None:
                volume = replace(volume, voxels=voxels_of(volume.array, axes(name)), array=None)
            if volume.voxels is None:
                volume = replace(volume, voxels=geometry(name).boxes3d_from_world(volume.world))
            elif volume.world is None:
                volume = replace(volume, world=geometry(name).boxes3d_to_world(volume.voxels))
            elif volume.array is None:
                _check_places(self.path, volume, geometry(name))
            located[name] = volume
        return ForeignBoxes(self.path, located)

    def arrays(self, protocol: str, frame: str = "voxels") -> dict[str, object]:
        """Boxes as :func:`lens_d2.evaluation.froc` takes them.

        Args:
            protocol: ``lens3d``, ``p3d`` or ``luna16``.
            frame: of ``lens3d``: "voxels", or "world" for LPS mm; that of truth and detections must be the same.

        Raises:
            DataError: the protocol needs boxes of another kind.
            ValueError: no such protocol or frame.
        """
        for given, known in ((protocol, _ARRAYS), (frame, ("voxels", "world"))):
            if given not in known:
                raise ValueError(f"{given!r}: one of {', '.join(known)} belongs here")
        return {name: _ARRAYS[protocol](self, volume, frame) for name, volume in self.volumes.items()}

    def need(self, field: str, volume: VolumeBoxes | None = None):
        """A volume's value of a field of :class:`VolumeBoxes`.

        Raises:
            DataError: the field is not known of all volumes.
        """
        if not self.knows(field):
            raise DataError(self.path, NEEDED[field])
        return getattr(volume, field, None)

    def need_3d(self) -> None:
        """Raise a DataError if boxes lie on single slices."""
        if self.volumes and self.knows("detection"):
            raise DataError(self.path, "holds boxes on single slices: the protocol p3d scores these")

    def need_no_scores(self) -> None:
        """Raise a DataError if any boxes have scores, so that predictions are not taken for a truth."""
        if any(volume.scores is not None and len(volume.scores) for volume in self.volumes.values()):
            raise DataError(self.path, "holds boxes with scores, as predictions do: a truth has none")


NEEDED = {
    "scores": "holds boxes without scores",
    "voxels": "holds boxes in millimetres alone: name the folder of the scans by --scans",
    "world": "holds boxes in voxels alone: name the folder of the scans by --scans",
    "detection": "holds 3D boxes, and the truth of p3d are boxes on single slices",
}


def find_reader(path: str | PathLike, name: str | None = None) -> BoxReader | None:
    """Reader of a file or folder: the one of that name, else by content; None for a protocol's own layout.

    Raises:
        DataError: no format of that name, the path cannot be read, or a folder has no files of a known format.
    """
    known = {key: kind() for key, kind in BOX_READERS}
    if name is not None:
        if name not in known:
            raise DataError("--format", f"no format {name!r}{did_you_mean(name, known)}")
        return known[name]
    if Path(path).is_dir():
        readers = [reader for reader in known.values() if reader.files(Path(path))]
        if len(readers) != 1:
            patterns = ", ".join(pattern for reader in known.values() for pattern in reader.patterns)
            found = "files of several formats: choose one by --format" if readers else f"none of {patterns}"
            raise DataError(path, f"the folder holds {found}")
        return readers[0]
    data = read_bytes(path)
    return next((reader for reader in known.values() if reader.recognizes(data)), None)


def read_boxes(
    path: str | PathLike,
    format: str | None = None,
    *,
    split: str | None = None,
    images: str | PathLike | None = None,
) -> ForeignBoxes:
    """Read the boxes of another program.

    Args:
        path: a file, or a folder with a file for each volume.
        format: name in :data:`BOX_READERS`; by content if None.
        split: "train", "val" or "test": part to take of a file with several.
        images: COCO's dataset, if ``path`` holds COCO's results, which name images by number.

    Raises:
        DataError: the format is not known, or a file is damaged, incomplete or unsafe; names it and the entry.
    """
    reader = find_reader(path, format)
    if reader is None:
        raise DataError(path, f"in no format that is known: {', '.join(name for name, _ in BOX_READERS)}")
    return reader.read_all(path, split, images)


def find_scan(folder: str | PathLike, name: str) -> Path:
    """Path of the scan ``<folder>/<name>.nii.gz`` (or .nii, .mhd, .mha, .nrrd, or a folder of DICOM).

    Args:
        folder: of all scans.
        name: of the scan, with or without the ending.

    Raises:
        DataError: the scan is not there, or the name leads out of the folder.
    """
    if not name or Path(name).name != name or name == "..":
        raise DataError(folder, f"{name!r} is not the name of a scan in this folder")
    for suffix in (*SCAN_SUFFIXES, ""):
        path = Path(folder) / f"{name}{suffix}"
        if path.exists():
            return path
    raise DataError(folder, f"no scan {name} ({', '.join(SCAN_SUFFIXES)} or a folder)")


def scan_geometry(folder: str | PathLike, name: str) -> VolumeGeometry:
    """Geometry of a scan; arguments as of :func:`find_scan`.

    Raises:
        DataError: as :func:`find_scan`, or the scan cannot be read.
    """
    from ...data.volume import read_header  # loads SimpleITK, which most evaluations do without

    return read_header(find_scan(folder, name))


def scan_axes(folder: str | PathLike, name: str) -> np.ndarray:
    """(3,) axes i, j, k of a scan's file that are x, y and z; arguments and errors as of :func:`scan_geometry`."""
    from ...data.volume import read_axes

    return read_axes(find_scan(folder, name))


def voxels_of(array: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """(n, 6) boxes of outer faces along i, j, k as :attr:`VolumeBoxes.voxels`.

    Args:
        array: (n, 6) lowest and highest face along each axis.
        axes: (3,) which of i, j, k are x, y and z.
    """
    corners = array.reshape(-1, 2, 3)[:, :, list(axes)]
    return corners.reshape(-1, 6) - [0, 0, 0, 0, 0, 1]


def to_box_truth(boxes: ForeignBoxes, frame: FileFrame) -> BoxTruth:
    """3D truth in the numbers of a frame; in millimetres for :data:`MILLIMETRES`."""
    boxes.need_3d()
    boxes.need_no_scores()
    return _truth(boxes, frame)


def to_mark_truth(boxes: ForeignBoxes, frame: FileFrame) -> BoxTruth:
    """Truth on single slices in the numbers of a frame."""
    boxes.need("detection")
    boxes.need_no_scores()
    return _truth(boxes, frame)


def to_box_detections(boxes: ForeignBoxes, truth: BoxTruth, of_truth: str, frame: FileFrame) -> BoxDetections:
    """3D boxes with scores for a truth in the numbers of a frame; rows in the truth's order."""
    boxes.need_3d()
    volume, members = _matched(boxes, truth.volumes, of_truth)
    rows = _stack([_numbers(boxes, member, frame) for member in members], 6)
    scores = _stack([member.scores for member in members])
    warn_of_boxes(boxes.path, truth, len(members), volume, np.column_stack([rows, scores]))
    return BoxDetections(volume, rows, scores)


def to_tracklets(boxes: ForeignBoxes, truth: BoxTruth, of_truth: str, frame: FileFrame) -> Tracklets:
    """Detections on slices for a truth on single slices; a 3D box has the same outline on each of its slices."""
    boxes.need("voxels")
    volume, members = _matched(boxes, truth.volumes, of_truth)
    marked = truth.boxes[:, 2]
    span = (marked.min(), marked.max()) if len(marked) else (0, -1)
    parts, owner, scores = [], [], []
    for index, member in zip(dict.fromkeys(volume), _with_boxes(members), strict=True):
        found = np.column_stack([_numbers(boxes, member, frame), member.scores])
        if member.detection is None:
            tracks = [spread(row, span) for row in found]
            scores += found[:, 6].tolist()
        else:
            tracks = grouped(found[:, [2, *PLANE, 6]], member.detection)
            scores += [track[:, 5].max() for track in tracks]
        parts += tracks
        owner += [index] * len(tracks)
    found = Tracklets.of_rows(np.array(owner, dtype=np.int64), parts, scores)
    warn_of_tracklets(boxes.path, truth, len(members), found)
    return found


def to_candidates(boxes: ForeignBoxes, volumes: list[str], of_truth: str) -> Candidates:
    """Centres of the boxes in LPS mm, as LUNA16's candidates."""
    boxes.need("world")
    volume, members = _matched(boxes, volumes, of_truth)
    centres = _centres(_stack([member.world for member in members], 6))
    scores = _stack([member.scores for member in members])
    warn_of_empty(boxes.path, volumes, len(members), volume)
    warn_of_doubles(boxes.path, "detections", volumes, volume, np.column_stack([centres, scores]))
    return Candidates(volume, centres, scores)


def _matched(boxes: ForeignBoxes, volumes: list[str], of_truth: str) -> tuple[np.ndarray, list[VolumeBoxes]]:
    """(n,) ascending index of each box's volume, and the volumes in that order."""
    boxes.need("scores")
    index = match_volumes(boxes.path, list(boxes.volumes), volumes, of_truth)
    members = sorted(boxes.volumes.values(), key=lambda member: index[member.name])
    volume = np.repeat(np.array([index[m.name] for m in members], np.int64), [len(m) for m in members])
    return volume, members


def _with_boxes(members: list[VolumeBoxes]) -> list[VolumeBoxes]:
    return [member for member in members if len(member)]


def _truth(boxes: ForeignBoxes, frame: FileFrame) -> BoxTruth:
    if not boxes.volumes:
        raise DataError(boxes.path, "holds no volume")
    rows = [_numbers(boxes, volume, frame) for volume in boxes.volumes.values()]
    owner = np.repeat(np.arange(len(rows)), [len(each) for each in rows])
    truth = BoxTruth(list(boxes.volumes), owner, _stack(rows, 6))
    warn_of_lesions(boxes.path, truth.volumes, truth.volume, truth.boxes)
    return truth


def _numbers(boxes: ForeignBoxes, volume: VolumeBoxes, frame: FileFrame) -> np.ndarray:
    """(n, 6) boxes of a volume that count both ends, as the protocols do."""
    if frame is MILLIMETRES:
        return boxes.need("world", volume) - [0, 0, 0, 1, 1, 1]
    slices = slice_range(volume.name)
    return frame.numbers(boxes.need("voxels", volume), slices[0] if slices else 0)


def _centres(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, :3] + boxes[:, 3:]) / 2


def _stack(rows: list, columns: int | None = None) -> np.ndarray:
    empty = np.zeros(0 if columns is None else (0, columns))
    return np.concatenate([empty, *rows])


def _check_corners(path, volume: VolumeBoxes) -> None:
    for boxes in (volume.voxels, volume.world):
        if boxes is not None:
            kind = "lesion" if volume.scores is None else "detection"
            rows = np.arange(len(boxes))
            check_entries(path, kind, [volume.name], np.zeros(len(boxes), int), rows, box_faults(boxes))


def _check_places(path, volume: VolumeBoxes, geometry: VolumeGeometry) -> None:
    """Refuse boxes whose voxels and millimetres are more than a voxel apart."""
    apart = np.abs(geometry.boxes3d_from_world(volume.world) - volume.voxels).max(axis=1, initial=0)
    if (apart > 1).any():
        row, fault = int(apart.argmax()), "voxels and its millimetres are not the same place in the scan"
        raise DataError(path, f"volume {volume.name}: box {row}: its {fault}: leave one of them out")


def _warn_of_flat(path, volumes: Iterable[VolumeBoxes]) -> None:
    """Warn of boxes without width, height or, in millimetres, depth."""
    names = []
    for volume in volumes:
        is_flat = np.zeros(len(volume), dtype=bool)
        for boxes, axes in ((volume.voxels, 2), (volume.world, 3)):
            if boxes is not None:
                is_flat |= (boxes[:, :axes] >= boxes[:, 3 : 3 + axes]).any(axis=1)
        names += [volume.name] * int(is_flat.sum())
    if names:
        text = "%s: %d boxes without extent, which can neither hit nor be hit (volume %s)"
        logger.warning(text, path, len(names), names[0])


def grouped(rows: np.ndarray, owner: np.ndarray) -> list[np.ndarray]:
    """The rows of each owner, in the order in which the owners first appear.

    Args:
        rows: (n, k).
        owner: (n,) number of the detection or volume that each row belongs to.
    """
    order = np.argsort(owner, kind="stable")
    starts = np.unique(owner[order], return_index=True)[1]
    parts = np.split(rows[order], starts[1:])
    return [parts[i] for i in np.argsort(order[starts])]


def _lens3d(boxes: ForeignBoxes, volume: VolumeBoxes, frame: str) -> np.ndarray:
    boxes.need_3d()
    rows = boxes.need(frame, volume) - [0, 0, 0, 0, 0, frame == "world"]  # froc counts the last slice, or mm, too
    return rows if volume.scores is None else np.column_stack([rows, volume.scores])


def _p3d(boxes: ForeignBoxes, volume: VolumeBoxes, _frame: str) -> np.ndarray | list[np.ndarray]:
    voxels = boxes.need("voxels", volume)
    if volume.scores is None:
        boxes.need("detection")
        return voxels[:, [2, *PLANE]]
    if volume.detection is None:  # 3D boxes
        detection, z = slices_of(voxels, boxes.path)
        rows = np.column_stack([z, voxels[detection][:, PLANE], volume.scores[detection]])
    else:
        detection, rows = volume.detection, np.column_stack([voxels[:, [2, *PLANE]], volume.scores])
    return grouped(rows, detection)


def _luna16(boxes: ForeignBoxes, volume: VolumeBoxes, _frame: str) -> np.ndarray:
    return np.column_stack([_centres(boxes.need("world", volume)), boxes.need("scores", volume)])


_ARRAYS: dict[str, Callable] = {"lens3d": _lens3d, "p3d": _p3d, "luna16": _luna16}

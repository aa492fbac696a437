"""Report of one scan: its detections and all that the writers of outputs need to know about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from math import isfinite
from pathlib import Path

import numpy as np

from ..data.cache import CachedVolume
from ..data.sources import DicomFolder, Source, open_source
from ..evaluation.operating_points import OperatingPoints
from ..io.errors import DataError
from ..structures.detections import Detection, VolumeDetections
from ..structures.geometry import VolumeGeometry, body_axes
from .dicom_headers import DicomHeaders, SliceHeader, read_headers, readable
from .findings import Finding, group_detections

NOT_A_MEDICAL_DEVICE = (
    "Research use only. Not a medical device: no output of this software may guide the care of a patient."
)


@dataclass(frozen=True)
class FileGrid:
    """The voxel grid of a file in its own axis order i, j, k (fastest first).

    Attributes:
        size: voxels along i, j, k.
        affine: (4, 4) voxel centre index i, j, k -> LPS mm.
    """

    size: tuple[int, int, int]
    affine: np.ndarray

    @cached_property
    def axes(self) -> np.ndarray:
        """(3,) places among i, j, k of the volume frame's x, y and z."""
        return body_axes(self.affine)

    def boxes_from_volume(self, boxes: np.ndarray) -> np.ndarray:
        """(n, 6) 3D boxes of the volume frame -> (n, 6) lowest and highest outer faces along i, j, k.

        Voxel i spans [i, i + 1] along all three axes.
        """
        corners = np.array(boxes, dtype=np.float64).reshape(-1, 2, 3)
        corners[:, 1, 2] += 1  # the far face of the last slice
        return corners[:, :, np.argsort(self.axes)].reshape(-1, 6)

    def covered(self, box: np.ndarray) -> tuple[slice, slice, slice]:
        """The voxels, as slices along i, j, k, whose centres lie in a box of faces; at least the nearest one."""
        first = np.ceil(np.asarray(box[:3]) - 0.5).astype(int)
        last = np.ceil(np.asarray(box[3:]) - 0.5).astype(int) - 1
        middle = np.floor((np.asarray(box[:3]) + box[3:]) / 2).astype(int)
        first, last = np.where(first > last, middle, first), np.where(first > last, middle, last)
        limit = np.array(self.size) - 1
        i, j, k = (
            slice(int(a), int(b) + 1) for a, b in zip(first.clip(0, limit), last.clip(0, limit), strict=True)
        )
        return i, j, k


@dataclass(frozen=True)
class ScanReport:
    """Detections of one scan, and the facts about it that outputs tell.

    Attributes:
        name: of the scan in the outputs.
        volume: the cached scan, for pictures.
        grid: of the file.
        detections: the best first.
        experts: names, in the order of the columns.
        score_threshold: detections below it are left out.
        left_out: detections above it that are left out too, being more than were asked for.
        provenance: of the detections, as label -> text.
        slice_labels: the source's names for its slices ("image 12"), in the order of the volume frame.
        headers: of the DICOM series; None for other formats, and if not every slice has a file of its own.
        patient: identity of the patient, as label -> text; empty unless asked for.
        keep_ids: whether outputs may name the patient.
        warnings: about the scan, a line each; every output shows them.
        operating_points: of the scores, on the validation patients; None for weights without.
        created: time at which the detections were made.
        source: file or folder that the scan was read from, for :func:`lens_d2.export.refuse_to_replace` alone;
            None for an array.
    """

    name: str
    volume: CachedVolume
    grid: FileGrid
    detections: Sequence[Detection]
    experts: tuple[str, ...] = ()
    score_threshold: float = 0.0
    left_out: int = 0
    provenance: Mapping[str, str] = field(default_factory=dict)
    slice_labels: Sequence[str] = ()
    headers: DicomHeaders | None = None
    patient: Mapping[str, str] = field(default_factory=dict)
    keep_ids: bool = False
    warnings: Sequence[str] = ()
    operating_points: OperatingPoints | None = None
    created: datetime = field(default_factory=lambda: datetime.now().astimezone())
    source: Path | None = None

    @property
    def geometry(self) -> VolumeGeometry:
        """Geometry of the scan's volume frame."""
        return self.volume.geometry

    def slice_label(self, z: int) -> str:
        """Name of a slice of the volume frame."""
        return self.slice_labels[z] if self.slice_labels else f"slice {z}"

    def header(self, z: int) -> SliceHeader | None:
        """Header of the DICOM image that is a slice of the volume frame; None if no image is."""
        return self.headers.slices[z] if self.headers and self.grid.axes[2] == 2 else None

    @cached_property
    def findings(self) -> list[Finding]:
        """Detections grouped for a radiologist, the best first; see :mod:`lens_d2.export.findings`."""
        return group_detections(self.detections, self.geometry)

    @cached_property
    def finding_of(self) -> dict[int, int]:
        """Number of the finding that each detection belongs to, by the detection's number."""
        return {member: each.whole.number for each in self.findings for member in each.members}

    @property
    def has_fpr_scores(self) -> bool:
        """Whether false-positive reduction has scored a detection."""
        return any(each.fpr_score is not None for each in self.detections)


def select_detections(
    found: VolumeDetections,
    geometry: VolumeGeometry,
    experts: Sequence[str] = (),
    score_threshold: float = 0.0,
    max_detections: int | None = None,
    operating_points: OperatingPoints | None = None,
) -> tuple[list[Detection], int]:
    """Choose the detections worth showing, the best first.

    Args:
        found: in the volume frame.
        geometry: of the scan.
        experts: names of the columns of ``found.expert_scores``. Scores that are no numbers count as unknown.
        score_threshold: detections below it are left out.
        max_detections: as many of the others are kept; None keeps all.
        operating_points: of the scores.

    Returns:
        The detections, numbered from 1, and how many above the threshold did not fit.

    Raises:
        DataError: ``max_detections`` is negative.
    """
    if max_detections is not None and max_detections < 0:
        raise DataError("max_detections", f"is {max_detections}; give 0 or more, or None for all")
    points = operating_points
    order = np.argsort(-np.asarray(found.scores), kind="stable")
    order = order[np.asarray(found.scores)[order] >= score_threshold]
    chosen = order[:max_detections]
    detections = []
    for number, row in enumerate(chosen, 1):
        own = found.boxes_of(row)
        scores = () if found.expert_scores is None else found.expert_scores[row].tolist()
        fpr_score = np.nan if found.fpr_scores is None else float(found.fpr_scores[row])
        detections.append(
            Detection.at(
                found.boxes[row],
                geometry,
                number=number,
                score=float(found.scores[row]),
                slice_boxes=own[np.argsort(own[:, 0], kind="stable")],
                expert_scores={n: s for n, s in zip(experts, scores, strict=bool(scores)) if isfinite(s)},
                fpr_score=fpr_score if isfinite(fpr_score) else None,
                probability=None if points is None else float(points.probability(found.scores[row])),
                false_positive_rate=None if points is None else points.rate(float(found.scores[row])),
            )
        )
    return detections, len(order) - len(chosen)


def make_report(
    name: str,
    record: Mapping | Source,
    volume: CachedVolume,
    found: VolumeDetections,
    *,
    experts: Sequence[str] = (),
    score_threshold: float = 0.0,
    max_detections: int | None = None,
    operating_points: OperatingPoints | None = None,
    provenance: Mapping[str, str] | None = None,
    keep_ids: bool = False,
) -> ScanReport:
    """Make the report of one scan.

    Args:
        name: of the scan in the outputs.
        record: an open source, or what opens one, see :func:`lens_d2.data.volume.read_header`.
        volume: the scan in the cache.
        found: the detections in it, in the volume frame.
        experts, score_threshold, max_detections, operating_points: see :func:`select_detections`.
        provenance: of the detections, as label -> text.
        keep_ids: whether the patient may be named.

    Raises:
        DataError: the source cannot be read, or ``max_detections`` is negative.
    """
    source = record if isinstance(record, Source) else open_source(record)
    size, affine = source.header()
    corrected = source.record.get("affine")
    affine = np.asarray(affine if corrected is None else corrected, dtype=np.float64)
    grid = FileGrid(size, affine)
    detections, left_out = select_detections(
        found, volume.geometry, experts, score_threshold, max_detections, operating_points
    )
    headers, fault = _headers(source, size[2])
    warnings = [*volume.warnings, *(headers.warnings(keep_ids) if headers and not fault else [])]
    if fault:
        warnings.append(f"no structured report and no segmentation are written: {fault}")
    elif headers and headers.frame_of_reference is None:
        warnings.append("no segmentation is written: the slices share no Frame of Reference UID")
    patient = {}
    if keep_ids:
        patient = {"File": readable(source.path.name), **(headers.patient() if headers else {})}
    return ScanReport(
        name=readable(name),
        volume=volume,
        grid=grid,
        detections=detections,
        experts=tuple(experts),
        score_threshold=score_threshold,
        left_out=left_out,
        operating_points=operating_points,
        provenance={label: readable(text) for label, text in (provenance or {}).items()},
        slice_labels=_slice_labels(source, headers) if grid.axes[2] == 2 else (),
        headers=headers,
        patient=patient,
        keep_ids=keep_ids,
        warnings=tuple(map(readable, warnings)),
        source=source.path,
    )


def _headers(source: Source, count: int) -> tuple[DicomHeaders | None, str | None]:
    """Headers of a DICOM series of ``count`` slices, and the reason why no report can refer to them, if any."""
    if not isinstance(source, DicomFolder):
        return None, None
    files = source.slice_files()
    if len(files) != count:
        return None, "not every slice has a file of its own (frames of one file, or interpolated slices)"
    try:
        headers = read_headers(files)
    except DataError as error:
        return None, error.fault
    return headers, headers.fault


def _slice_labels(source: Source, headers: DicomHeaders | None) -> list[str]:
    """Names of the slices along k, in viewers for DICOM, else those of the files."""
    if isinstance(source, DicomFolder):
        return headers.labels() if headers else []
    return [f"file {file.stem}" for file in source.slice_files()]

"""Lesion detection as a function: a scan in, findings out."""

from __future__ import annotations

import hashlib
import html
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from . import model_zoo
from .config import load_config
from .data.cache import CachedVolume, VolumeInMemory, build_cache
from .data.checks import refuse_impossible_sizes
from .data.sources import ArraySource, PngFolder, Source, open_source
from .data.volume import read_volume
from .evaluation.operating_points import OperatingPoints
from .export import CsvTable, Detection, HtmlReport, ScanReport, Written, make_report, write_report
from .inference.detector import absent_classifier, build_inference
from .io.checkpoint import LENSCheckpointer, load_weights
from .io.device import fall_back_to_cpu, find_device
from .io.errors import DataError
from .io.zoo import local_path

if TYPE_CHECKING:
    import SimpleITK as sitk

    Scannable = str | os.PathLike | Mapping | Source | np.ndarray | sitk.Image

SCORE_THRESHOLD = 0.1  # for weights without operating points
FRAME_HEIGHT = 800  # pixels of a report in a notebook


@dataclass(frozen=True, repr=False)
class Findings(Sequence[Detection]):
    """Detections in one scan, the best first.

    Attributes:
        report: all that is known of the scan and its detections.
    """

    report: ScanReport

    def __getitem__(self, index):
        return self.report.detections[index]

    def __len__(self) -> int:
        return len(self.report.detections)

    def __repr__(self) -> str:
        return f"<Findings: {len(self)} detections in {self.report.name!r}>"

    @property
    def warnings(self) -> Sequence[str]:
        """Warnings about the scan, a line each."""
        return self.report.warnings

    def to_dataframe(self) -> pd.DataFrame:
        """Table with a row for each detection and the columns of ``detections.csv``."""
        table = pd.read_csv(io.BytesIO(CsvTable().render(self.report)))
        return table[table["detection"] > 0]

    def save(self, folder: str | os.PathLike) -> Written:
        """Write every format that applies to the scan into a folder.

        Raises:
            DataError: the path is empty, or the scan itself would be replaced.
            WriteError: a file cannot be written.
        """
        if not os.fspath(folder):
            raise DataError("folder", "an empty path")
        return write_report(self.report, folder)

    def show(self) -> None:
        """Display the report in a notebook."""
        from IPython.display import display

        display(self)

    def _repr_html_(self) -> str:
        page = html.escape(HtmlReport().render(self.report).decode())
        return f'<iframe srcdoc="{page}" style="width: 100%; height: {FRAME_HEIGHT}px; border: 0"></iframe>'


@dataclass(frozen=True)
class ReadScan:
    """A scan that has been read.

    Attributes:
        source: that it comes from.
        volume: its voxels in the cache frame.
        warnings: about it, that reading it does not give, a line each.
    """

    source: Source
    volume: CachedVolume
    warnings: tuple[str, ...] = ()


class LesionDetector:
    """A trained detector.

    ::

        detector = LesionDetector.from_zoo("phantom/lens_multi")
        findings = detector("scan.nii.gz")
        findings.to_dataframe()

    Scans are preprocessed in memory, or kept in ``INPUT.CACHE_DIR`` if the config names one.
    """

    def __init__(
        self,
        config: CfgNode | str | os.PathLike,
        weights: str | os.PathLike = "",
        *,
        device: str | None = None,
        shows_progress: bool = False,
        allow_random_weights: bool = False,
    ):
        """
        Args:
            config: a config, its file, or the name of one that comes with the package.
            weights: a checkpoint or an address; ``MODEL.WEIGHTS`` of the config if empty.
            device: of the model; that of the config if None.
            shows_progress: whether a bar tells how far a scan is.
            allow_random_weights: whether a detector without weights may be made, to try things out.

        Raises:
            DataError: the config or the weights cannot be used.
        """
        cfg = config.clone() if isinstance(config, CfgNode) else load_config(config)
        cfg.defrost()
        if weights:
            cfg.MODEL.WEIGHTS = str(weights)
        if device is not None:
            cfg.MODEL.DEVICE = str(find_device(device, "device"))
        fall_back_to_cpu(cfg)
        cfg.freeze()
        if not cfg.MODEL.WEIGHTS and not allow_random_weights:
            raise DataError("MODEL.WEIGHTS", "no weights: name a checkpoint, or lens_d2://phantom/lens_multi")
        self.cfg = cfg
        torch.manual_seed(max(cfg.SEED, 0))  # random weights, where they are allowed, are the same every time
        model = build_model(cfg).eval()
        # All that the checkpoint holds beside the weights.
        beside = LENSCheckpointer(model, whole=True).load(cfg.MODEL.WEIGHTS) if cfg.MODEL.WEIGHTS else {}
        self.cache = build_cache(cfg)
        self.inference = build_inference(cfg, model, self.cache, shows_progress)
        self.experts: tuple[str, ...] = model.experts
        path = cfg.MODEL.FPR.WEIGHTS or cfg.MODEL.WEIGHTS  # the classifier's points if it has one
        scored = load_weights(path) if cfg.MODEL.FPR.WEIGHTS else beside
        self.operating_points = operating_points_in(path, scored, cfg.MODEL.LENS.OUTPUT)
        self.notes: tuple[str, ...] = tuple(filter(None, (beside.get("note", ""), absent_classifier(cfg))))
        self.provenance = {
            "Weights": describe_weights(cfg.MODEL.WEIGHTS),
            "Output": cfg.MODEL.LENS.OUTPUT,
        }
        if cfg.MODEL.FPR.WEIGHTS:
            self.provenance["False-positive reduction"] = describe_weights(cfg.MODEL.FPR.WEIGHTS)

    @classmethod
    def from_zoo(cls, name: str, device: str | None = None, **options: Any) -> LesionDetector:
        """Detector with weights that come with the package.

        Args:
            name: such as ``phantom/lens_multi``; see :func:`lens_d2.model_zoo.names`.
            device, options: as the constructor takes them.

        Raises:
            DataError: no config, or no weights, of that name come with the package.
        """
        detector = cls(model_zoo.get_config(name, trained=True), device=device, **options)
        detector.provenance = {"Model": name, **detector.provenance}
        return detector

    def __call__(
        self,
        scan: Scannable | ReadScan,
        *,
        spacing: Sequence[float] | None = None,
        origin: Sequence[float] | None = None,
        direction: Sequence[float] | np.ndarray | None = None,
        score_threshold: float | None = None,
        max_detections: int | None = 100,
        name: str = "Scan",
        keep_ids: bool = False,
    ) -> Findings:
        """Find lesions in one scan.

        Args:
            scan: a file or folder of CT, a dataset record, a ``SimpleITK.Image``, or (z, y, x) HU; or what
                :meth:`read` has given for one of them.
            spacing: (3,) mm along x, y, z, of an array or of PNG slices.
            origin: (3,) LPS mm, centre of an array's first voxel; None: 0, 0, 0.
            direction: (9,) direction cosines of an array, as in SimpleITK; None: x, y, z are the patient's axes.
            score_threshold: detections below it are left out. None: the operating point with the most false
                positives that the weights know of, or 0.1.
            max_detections: as many of the others are kept; None: all.
            name: of the scan in the outputs.
            keep_ids: whether outputs may name the patient and the file.

        Raises:
            DataError: the scan cannot be read, or an argument does not go with it or is no number.
        """
        known = score_threshold is None or isinstance(score_threshold, Real) and math.isfinite(score_threshold)
        if not known:
            raise DataError("score_threshold", f"{score_threshold!r} where a number belongs")
        if max_detections is not None and not (isinstance(max_detections, Integral) and int(max_detections) >= 0):
            raise DataError("max_detections", f"{max_detections!r} where a whole number or None belongs")
        if isinstance(scan, ReadScan):
            _refuse_place(scan.source, spacing, origin, direction)
        read = scan if isinstance(scan, ReadScan) else self.read(scan, spacing, origin, direction)
        found = self.inference.detect(read.volume)[self.cfg.MODEL.LENS.OUTPUT]
        if score_threshold is None:
            points = self.operating_points
            score_threshold = min(points.thresholds.values()) if points else SCORE_THRESHOLD
        report = make_report(
            name,
            read.source,
            read.volume,
            found,
            experts=self.experts,
            score_threshold=score_threshold,
            max_detections=max_detections,
            operating_points=self.operating_points,
            provenance=self.provenance,
            keep_ids=keep_ids,
        )
        return Findings(replace(report, warnings=(*read.warnings, *report.warnings, *self.notes)))

    def read(
        self,
        scan: Scannable,
        spacing: Sequence[float] | None = None,
        origin: Sequence[float] | None = None,
        direction: Sequence[float] | np.ndarray | None = None,
    ) -> ReadScan:
        """Read a scan, for a later call; a thread may do so while the detector is at work on another.

        Args:
            scan, spacing, origin, direction: as in a call.

        Raises:
            DataError: the scan cannot be read, or has a geometry of its own beside the one that is given.
        """
        if isinstance(scan, np.ndarray):
            source: Source = ArraySource(scan, spacing, origin, direction)
        else:
            source = self._source(scan, spacing)
            _refuse_place(source, None if isinstance(source, PngFolder) else spacing, origin, direction)
        return ReadScan(source, self._volume(source))

    @staticmethod
    def _source(scan, spacing) -> Source:
        if isinstance(scan, Source):
            return scan
        if isinstance(scan, Mapping):
            if "file_name" not in scan:
                raise DataError("record", "a dataset record has a file_name")
            return open_source(scan)
        if isinstance(scan, str | os.PathLike):
            if not os.fspath(scan):
                raise DataError("scan", "an empty path")
            return open_source({"file_name": str(scan)} | ({} if spacing is None else {"spacing": list(spacing)}))
        if not hasattr(scan, "GetNumberOfComponentsPerPixel"):
            allowed = "a path, a dataset record, a SimpleITK.Image or a NumPy array belongs here"
            raise DataError("scan", f"{type(scan).__name__}: {allowed}")
        return ArraySource.from_image(scan)

    def _volume(self, source: Source) -> CachedVolume:
        """The scan in the cache frame."""
        if self.cfg.INPUT.CACHE_DIR and not isinstance(source, ArraySource):
            return self.cache.open(source.record)
        volume = read_volume(source)
        refuse_impossible_sizes(source.path, volume.geometry)
        return VolumeInMemory(volume, self.cache.params, source.path)


def _refuse_place(source: Source, *place) -> None:
    if any(each is not None for each in place):
        fault = "it has a geometry of its own: spacing, origin and direction are for arrays"
        raise DataError(source.path, f"{fault}, and a spacing for PNG slices")


def operating_points_in(path: str, checkpoint: Mapping, output: str) -> OperatingPoints | None:
    """Operating points that come with weights; None without any for this output.

    Args:
        path: of the checkpoint, for errors.
        checkpoint: its content.
        output: "fused", or an expert.

    Raises:
        DataError: the operating points are damaged.
    """
    content = checkpoint.get("operating_points")
    if content is None:
        return None
    try:
        return OperatingPoints.from_dict(content[output])
    except KeyError:
        return None
    except (TypeError, ValueError) as error:
        raise DataError(path, str(error)) from None


def describe_weights(path: str) -> str:
    """Name and checksum of a file of weights."""
    if not path:
        return "random: for trying the tool, the detections mean nothing"
    with open(local_path(path), "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    return f"{path if '://' in path else Path(path).name} (sha256 {digest})"

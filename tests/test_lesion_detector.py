"""LesionDetector: every way of giving it a scan leads to the same findings, and nothing stays on disk."""

import csv
import io

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from detectron2.modeling import build_model
from helpers.scan_files import make_affine, write_pngs, write_volume

from lens_d2 import LesionDetector
from lens_d2.config import load_config
from lens_d2.data.sources import open_source
from lens_d2.evaluation.operating_points import OperatingPoints
from lens_d2.io.errors import DataError

SPACING, ORIGIN = (4.0, 4.0, 3.0), (-90.0, -70.0, 100.0)
SMALL = [
    "MODEL.DENSENET.BLOCK_CONFIG",
    "(1,1,1)",
    "MODEL.DENSENET.GROWTH_RATE",
    "4",
    "MODEL.DENSENET.INIT_FEATURES",
    "4",
]
SMALL += ["MODEL.DENSENET.OUT_CHANNELS", "8", "MODEL.AFP.CONV_DIM", "8", "MODEL.ROI_BOX_HEAD.FC_DIM", "16"]


@pytest.fixture(scope="module")
def cfg():
    return load_config("phantom/lens_multi.yaml", SMALL)


@pytest.fixture(scope="module")
def detector(cfg):
    return LesionDetector(cfg, allow_random_weights=True)


@pytest.fixture(scope="module")
def findings(detector, array):
    return detector(array, spacing=SPACING, origin=ORIGIN, score_threshold=0.0, max_detections=5)


def image_of(array: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    return image


def assert_same(findings, others):
    assert len(findings) == len(others) > 0
    for one, other in zip(findings, others, strict=True):
        assert one.world_box == pytest.approx(other.world_box) and one.score == pytest.approx(other.score)


@pytest.mark.parametrize("kind", ["file", "record", "source", "image", "float array"])
def test_a_scan_can_be_given_in_many_ways(detector, array, findings, tmp_path, kind):
    path = write_volume(tmp_path / "ct.nii.gz", array, make_affine((4, 4, 3), origin=ORIGIN))
    scan = {
        "file": path,
        "record": {"file_name": str(path)},
        "source": open_source({"file_name": str(path)}),
        "image": image_of(array),
        "float array": array.astype(np.float32),
    }[kind]
    place = {"spacing": SPACING, "origin": ORIGIN} if kind == "float array" else {}
    assert_same(findings, detector(scan, score_threshold=0.0, max_detections=5, **place))


def test_a_gate_gives_the_findings(cfg, array):
    cfg = cfg.clone()
    cfg.MODEL.ROI_HEADS.NAME = "GatedROIHeads"
    torch.manual_seed(0)
    found = LesionDetector(cfg, allow_random_weights=True)(array, spacing=SPACING, score_threshold=0.0)
    assert len(found) > 0 and set(found[0].expert_scores) == {"deeplesion", "luna", "lits", "nih_ln"}


def test_an_image_with_turned_axes_gives_the_same_places(detector, array, findings):
    turned = sitk.PermuteAxes(image_of(array), [2, 0, 1])
    found = detector(turned, score_threshold=0.0, max_detections=5)
    assert_same(findings, found)
    assert found.report.grid.size == turned.GetSize()


def test_png_slices_take_their_spacing(detector, array, tmp_path):
    write_pngs(tmp_path / "series", array)
    assert len(detector(tmp_path / "series", spacing=SPACING, score_threshold=0.0, max_detections=3)) == 3


def test_findings_are_a_sequence_a_table_files_and_a_page(findings, tmp_path):
    table = findings.to_dataframe()
    assert table["detection"].tolist() == [1, 2, 3, 4, 5] == [each.number for each in findings]
    assert table["score"].tolist() == pytest.approx([each.score for each in findings], abs=1e-6)
    written = findings.save(tmp_path / "out")
    names = {path.name for path in written.files}
    assert {"report.html", "detections.csv", "detections.json", "detections.nii.gz"} <= names
    assert findings._repr_html_().startswith("<iframe srcdoc=")
    assert repr(findings) == "<Findings: 5 detections in 'Scan'>"
    assert np.allclose(
        sitk.ReadImage(str(tmp_path / "out/detections.nii.gz")).GetOrigin(), ORIGIN
    )  # the array's own grid


def test_nothing_stays_on_disk(detector, array, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    detector(array, spacing=SPACING)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("scan", "options", "message"),
    [
        (np.zeros((5, 8, 8)), {}, "array: an array needs spacing=(x, y, z) in mm"),
        (np.zeros((8, 8)), {"spacing": SPACING}, "array: shape (8, 8): a volume has three axes, slices first"),
        (np.zeros((0, 8, 8)), {"spacing": SPACING}, "array: shape (0, 8, 8): a volume has three axes"),
        (np.zeros((2, 8, 8), complex), {"spacing": SPACING}, "voxels of type complex128: HU are real numbers"),
        (np.full((2, 8, 8), np.nan), {"spacing": SPACING}, "128 voxels are NaN or infinite"),
        (np.zeros((2, 8, 8)), {"spacing": (1, 1)}, "spacing and origin have three finite numbers each"),
        (np.zeros((2, 8, 8)), {"spacing": (1, 0, 1)}, "the voxel spacing is 1 x 0 x 1 mm"),
        (sitk.Image([4, 4], sitk.sitkInt16), {}, "a scalar image of three dimensions belongs here"),
        (torch.zeros(2, 8, 8), {"spacing": SPACING}, "scan: Tensor: a path, a dataset record, a Simple"),
        ({"filename": "ct.nii"}, {}, "record: a dataset record has a file_name"),
        (np.zeros((2, 8, 8)), {"spacing": SPACING, "score_threshold": np.nan}, "score_threshold: nan where"),
        (np.zeros((2, 8, 8)), {"spacing": SPACING, "score_threshold": "1"}, "score_threshold: '1' where"),
        (np.zeros((2, 8, 8)), {"spacing": SPACING, "max_detections": 2.5}, "max_detections: 2.5 where"),
        (sitk.Image([4, 4, 4], sitk.sitkInt16), {"spacing": SPACING}, "it has a geometry of its own"),
        ("", {}, "scan: an empty path"),
    ],
)  # fmt: skip
def test_what_is_no_volume_is_refused_in_one_line(detector, scan, options, message):
    with pytest.raises(DataError) as error:
        detector(scan, **options)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_device_that_nobody_has(cfg):
    with pytest.raises(DataError, match="no device 'banana'"):
        LesionDetector(cfg, device="banana", allow_random_weights=True)


def test_files_replace_no_scan(detector, array, tmp_path):
    sitk.WriteImage(image_of(array), tmp_path / "detections.nii.gz")
    findings = detector(tmp_path / "detections.nii.gz")
    for folder, message in ((tmp_path, "the scan itself is detections.nii.gz"), ("", "an empty path")):
        with pytest.raises(DataError, match=message):
            findings.save(folder)


def test_sheared_arrays_are_told_of_as_files_are(detector, array):
    sheared = (1, 0, 0, 0, 1, 0.5, 0, 0, 0.75**0.5)
    (warning,) = [text for text in detector(array, spacing=SPACING, direction=sheared).warnings if "angle" in text]
    assert "its axes stand 30.0 degrees off the right angle" in warning


def test_weights_are_needed(cfg):
    with pytest.raises(DataError, match="no weights: name a checkpoint, or lens_d2://phantom/lens_multi"):
        LesionDetector(cfg)


def test_a_report_tells_of_a_classifier_that_is_not_named(cfg, array):
    cfg = cfg.clone()
    cfg.STAGES = ("train", "fpr")
    (told,) = (
        text
        for text in LesionDetector(cfg, allow_random_weights=True)(array, spacing=SPACING).report.warnings
        if "MODEL.FPR.WEIGHTS" in text
    )
    assert "scores are the detector's own" in told


def test_operating_points_of_the_weights_reach_every_output(cfg, array, tmp_path):
    torch.manual_seed(1)
    model = build_model(cfg)
    points = OperatingPoints({0.5: 0.6, 1.0: 0.4, 4.0: 0.02}, 1.5, -1.0, "validation patients")
    content = {"model": model.state_dict(), "operating_points": {"fused": points.to_dict()}}
    torch.save(content, tmp_path / "model.pth")
    detector = LesionDetector(cfg, tmp_path / "model.pth")
    findings = detector(array, spacing=SPACING, max_detections=None)
    assert findings.report.score_threshold == 0.02
    for each in findings:
        assert each.false_positive_rate == points.rate(each.score)
        assert each.probability == pytest.approx(points.probability(each.score).item())
    rows = list(
        csv.DictReader(
            io.StringIO((findings.save(tmp_path / "out").files and tmp_path / "out/detections.csv").read_text())
        )
    )
    assert len(rows) == len(findings)
    assert [float(row["probability"]) for row in rows] == pytest.approx(
        [e.probability for e in findings], abs=1e-4
    )
    torch.save(content | {"operating_points": {"fused": {"thresholds": 3}}}, tmp_path / "bad.pth")
    with pytest.raises(DataError, match="bad.pth: no operating points"):
        LesionDetector(cfg, tmp_path / "bad.pth")

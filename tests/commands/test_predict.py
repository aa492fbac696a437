"""The command ``predict`` from scans to files, with a small network of random weights."""

import json
import shlex

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch
from detectron2.modeling import build_model
from helpers.predicted import AFFINE, CONFIG, FILES, config_with, detections, names, worlds
from helpers.processes import run_line
from helpers.scan_files import make_affine, write_enhanced, write_pngs, write_series, write_volume
from scipy.special import expit, logit

from lens_d2.commands import predict
from lens_d2.modeling.classifiers import build_classifier

SMALL_CLASSIFIER = ["MODEL.FPR.WIDTH", "4", "MODEL.FPR.FC_DIM", "8", "MODEL.FPR.PATCH_SIZE", "(8, 24, 24)"]
NAME, ID = "Mustermann^Erika", "PID4711"


# One scan


@pytest.mark.parametrize("name", ["ct.nii.gz", "ct.mha", "ct.nrrd"])
def test_volume_file(predict_scans, array, tmp_path, name, capsys):
    assert predict_scans(write_volume(tmp_path / name, array, AFFINE)) == 0
    assert names(tmp_path / "out") == FILES
    assert len(detections(tmp_path / "out")) == 5
    assert "5 detections; look at" in capsys.readouterr().out


def test_real_ct_as_nifti_and_as_dicom_gives_the_same_in_world_coordinates(predict_scans, shared_dir, tmp_path):
    path = shared_dir / "ct/torso_3mm_30_slices.nii.gz"
    image = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
    affine = make_affine(image.GetSpacing(), np.reshape(image.GetDirection(), (3, 3)), image.GetOrigin())
    voxels = np.rint(sitk.GetArrayFromImage(image)).clip(-1024, 3071).astype(np.int16)
    series = write_series(tmp_path / "series", voxels, affine)
    assert predict_scans(path, output=tmp_path / "nifti") == predict_scans(series, output=tmp_path / "dicom") == 0
    assert names(tmp_path / "dicom") == sorted([*FILES, "detections.dcm", "detections.seg.dcm"])
    assert len(worlds(tmp_path / "nifti")) == 5
    np.testing.assert_allclose(worlds(tmp_path / "nifti"), worlds(tmp_path / "dicom"), atol=0.01)
    labels = [sitk.ReadImage(str(tmp_path / kind / "detections.nii.gz")) for kind in ("nifti", "dicom")]
    flipped = sitk.GetArrayFromImage(sitk.DICOMOrient(labels[0], "LPS"))
    np.testing.assert_array_equal(flipped, sitk.GetArrayFromImage(labels[1]))


def test_png_slices(predict_scans, array, tmp_path, capsys):
    folder = write_pngs(tmp_path / "000001_01_01", array)
    assert predict_scans(folder) == 2
    assert "PNG slices carry no spacing" in capsys.readouterr().err
    assert predict_scans(folder, "--spacing", "4", "4", "-3") == 0
    scan = json.loads((tmp_path / "out/detections.json").read_text())["scan"]
    assert scan["spacing_xyz_mm"] == [4, 4, 3] and scan["slice_labels"][0] == "file 001"


def test_several_series(predict_scans, array, tmp_path, capsys):
    folder = write_series(tmp_path / "s", array, AFFINE, "1.2.3", SeriesDescription="Thorax")
    write_series(folder, array[:3], AFFINE, "1.2.4")
    assert predict_scans(folder) == 2
    lines = capsys.readouterr().err.splitlines()
    assert any("pick one by its UID (--series UID)" in line for line in lines)
    assert "  1.2.3  5 images  CT  Thorax" in lines and "  1.2.4  3 images  CT" in lines
    assert predict_scans(folder, "--series", "1.2.3") == 0
    document = pydicom.dcmread(tmp_path / "out/detections.dcm")
    (study,) = document.PertinentOtherEvidenceSequence
    assert [series.SeriesInstanceUID for series in study.ReferencedSeriesSequence] == ["1.2.3"]
    assert predict_scans(folder, "--series", "9.9") == 2


def test_threshold(predict_scans, array, tmp_path):
    assert predict_scans(write_volume(tmp_path / "ct.nii.gz", array, AFFINE), "--score-threshold", "1.1") == 0
    assert detections(tmp_path / "out") == []


# Scans of DICOM that are not one file per slice


def test_frames_of_one_file(predict_scans, array, tmp_path):
    path = write_enhanced(tmp_path / "ct.dcm", array, AFFINE, [3, 1, 4, 0, 2])
    assert predict_scans(path, "--keep-ids") == 0
    assert names(tmp_path / "out") == FILES  # no structured report: its slices have no files
    series = write_series(tmp_path / "ct", array, AFFINE)
    assert predict_scans(series, output=tmp_path / "series") == 0
    np.testing.assert_allclose(worlds(tmp_path / "out"), worlds(tmp_path / "series"), atol=1e-6)


def test_a_slice_alone(predict_scans, array, tmp_path, capsys):
    folder = write_series(tmp_path / "ct", array, AFFINE)
    assert predict_scans(next(folder.iterdir())) == 2
    assert "one slice of a DICOM series: give the folder" in capsys.readouterr().err


def test_gaps_are_filled_if_asked_for(predict_scans, array, tmp_path, capsys):
    folder = write_series(tmp_path / "ct", array, AFFINE, change=lambda k, data: k != 2)
    assert predict_scans(folder) == 2
    assert "1 slice is missing (--fill-gaps interpolates up to 2 in a row)" in capsys.readouterr().err
    assert predict_scans(folder, "--fill-gaps") == 0
    assert json.loads((tmp_path / "out/detections.json").read_text())["scan"]["size_xyz"] == [48, 40, 5]


# Bad input


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("ct.nii.gz", b"\x1f\x8b nonsense", "ct.nii.gz: not a readable volume"),
        ("ct.mha", b"ObjectType = Image\nNDims = 3\n", "ct.mha: not a readable volume"),
        ("ct.txt", b"hello", "ct.txt: not a readable volume"),
    ],
)
def test_broken_scan(predict_scans, tmp_path, name, content, fault, capsys):
    (tmp_path / name).write_bytes(content)
    assert predict_scans(tmp_path / name) == 2
    errors = capsys.readouterr().err
    assert fault in errors and "Traceback" not in errors
    assert not (tmp_path / "out").exists()


def test_no_input(predict_scans, tmp_path, capsys):
    assert predict_scans(tmp_path / "absent") == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"{tmp_path / 'absent'}: no such file or folder"


def test_output_is_not_input(predict_scans, array, tmp_path, capsys):
    write_volume(tmp_path / "ct.nii.gz", array, AFFINE)
    assert predict_scans(tmp_path, output=tmp_path) == 2
    assert "both input and output" in capsys.readouterr().err


def test_the_scan_is_not_replaced(predict_scans, array, tmp_path, capsys):
    """Its name is that of an output; other people's files beside it are no report."""
    (tmp_path / "own").mkdir()
    scan = write_volume(tmp_path / "own/detections.nii.gz", array, AFFINE)
    (tmp_path / "own/report.html").write_text("mine")
    before = scan.read_bytes()
    assert predict_scans(scan, output=tmp_path / "own") == 2
    assert "the scan itself is detections.nii.gz there" in capsys.readouterr().err
    assert predict_scans(tmp_path / "absent.nii.gz", output=tmp_path / "own") == 2
    (tmp_path / "own/broken.nii").write_bytes(b"no scan")
    assert predict_scans(tmp_path / "own/broken.nii", output=tmp_path / "own") == 2
    assert scan.read_bytes() == before and (tmp_path / "own/report.html").read_text() == "mine"


def test_the_output_is_a_folder(predict_scans, array, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert predict_scans(write_volume(tmp_path / "ct.nii.gz", array, AFFINE), output=tmp_path / "file") == 2
    assert "is a file: give a folder as --output" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_told_before_the_detection(
    predict_scans, array, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(predict, "Predictor", None)
    scan = write_volume(tmp_path / "ct.nii.gz", array, AFFINE)
    assert predict_scans(scan, output="/proc/no/such/folder") == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("/proc/no/such/folder: cannot be written: ")


def test_a_spacing_is_for_png_slices(predict_scans, array, tmp_path, capsys):
    scan = write_volume(tmp_path / "ct.nii.gz", array, AFFINE)
    assert predict_scans(scan, "--spacing", "1", "1", "1") == 2
    assert "a spacing is given, which is for PNG slices" in capsys.readouterr().err


def test_weights_are_needed_unless_told_otherwise(predict_scans, array, tmp_path, capsys):
    path = write_volume(tmp_path / "ct.nii.gz", array, AFFINE)
    assert predict_scans(path, weights="--keep-ids") == 2
    assert "no weights: add MODEL.WEIGHTS" in capsys.readouterr().err
    assert predict_scans(path, opts=["MODEL.WEIGHTS", str(tmp_path / "absent.pth")]) == 2
    (tmp_path / "bad.pth").write_bytes(b"nonsense")
    assert predict_scans(path, opts=["MODEL.WEIGHTS", str(tmp_path / "bad.pth")]) == 2
    errors = capsys.readouterr().err
    assert "absent.pth: no such checkpoint" in errors and "bad.pth: not a file of weights" in errors


def test_weights_are_used_and_named(predict_scans, array, tmp_path):
    path = write_volume(tmp_path / "ct.nii.gz", array, AFFINE)
    cfg = config_with()
    torch.manual_seed(7)
    torch.save({"model": build_model(cfg).state_dict()}, tmp_path / "model.pth")
    assert predict_scans(path, output=tmp_path / "random") == 0
    weights = ["MODEL.WEIGHTS", str(tmp_path / "model.pth")]
    assert predict_scans(path, output=tmp_path / "loaded", weights="--keep-ids", opts=weights) == 0
    assert not np.allclose(worlds(tmp_path / "random"), worlds(tmp_path / "loaded"))
    provenance = json.loads((tmp_path / "loaded/detections.json").read_text())["provenance"]
    assert provenance["Model"] == "lens_multi.yaml" and provenance["Weights"].startswith("model.pth (sha256 ")


@pytest.mark.parametrize(
    ("opts", "fault"),
    [
        (["MODEL.NO_SUCH_KEY", "1"], "MODEL.NO_SUCH_KEY: no config key"),
        (["INPUT.PIXEL_SPACING", "wide"], "INPUT.PIXEL_SPACING: the configuration cannot be used"),
        (["INPUT.PIXEL_SPACING"], "INPUT.PIXEL_SPACING: a config key without a value"),
    ],
)
def test_bad_configuration(predict_scans, tmp_path, opts, fault, capsys):
    assert predict_scans(tmp_path, opts=opts) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(fault)


def test_one_expert_alone(predict_scans, array, tmp_path):
    assert (
        predict_scans(write_volume(tmp_path / "ct.nii.gz", array, AFFINE), opts=["MODEL.LENS.OUTPUT", "lits"]) == 0
    )
    found = detections(tmp_path / "out")
    assert found and all(each["score"] == pytest.approx(each["expert_scores"]["lits"]) for each in found)


def test_false_positive_reduction(predict_scans, array, tmp_path):
    path = write_volume(tmp_path / "ct.nii.gz", array, AFFINE)
    cfg = config_with(*SMALL_CLASSIFIER)
    torch.manual_seed(0)
    torch.save({"model": build_classifier(cfg).state_dict()}, tmp_path / "fpr.pth")
    assert predict_scans(path, opts=[*SMALL_CLASSIFIER, "MODEL.FPR.WEIGHTS", str(tmp_path / "fpr.pth")]) == 0
    for each in detections(tmp_path / "out"):
        detector = 2 * each["score"] - each["fpr_score"]
        assert 0 <= each["fpr_score"] <= 1 and 0 <= detector <= 1
    assert "fpr.pth (sha256 " in (tmp_path / "out/report.html").read_text()
    assert predict_scans(path, opts=["MODEL.FPR.WEIGHTS", str(tmp_path / "absent.pth")]) == 2


def test_scores_are_combined_as_the_evaluation_does(predict_scans, array, tmp_path):
    path = write_volume(tmp_path / "ct.nii.gz", array, AFFINE)
    cfg = config_with(*SMALL_CLASSIFIER)
    torch.save({"model": build_classifier(cfg).state_dict()}, tmp_path / "fpr.pth")
    weights = ["MODEL.FPR.WEIGHTS", str(tmp_path / "fpr.pth")]
    every = ["--max-detections", "10000", "--score-threshold", "0"]
    detectors = {}
    for combine, invert in (
        ("mean", lambda score, fpr: 2 * score - fpr),
        ("mean_log_odds", lambda score, fpr: expit(2 * logit(score) - logit(fpr))),
    ):
        assert predict_scans(path, *every, opts=[*SMALL_CLASSIFIER, *weights, "MODEL.FPR.COMBINE", combine]) == 0
        detectors[combine] = sorted(invert(x["score"], x["fpr_score"]) for x in detections(tmp_path / "out"))
    np.testing.assert_allclose(*detectors.values(), atol=1e-5)


# Privacy


def test_nobody_is_named_unless_asked(predict_scans, array, tmp_path, capfd):
    elements = {"PatientName": NAME, "PatientID": ID, "SeriesDescription": "Thorax"}
    folder = write_series(tmp_path / "in/Mustermann_Erika/ct", array, AFFINE, **elements)
    broken = write_series(tmp_path / "in/Mustermann_Erika/cut", array, AFFINE, **elements)
    sorted(broken.iterdir())[2].unlink()
    torn = write_series(tmp_path / "in/Mustermann_Erika/torn", array, AFFINE, **elements)
    file = sorted(torn.iterdir())[1]
    file.write_bytes(file.read_bytes()[:-500])
    file.rename(torn / "Mustermann.dcm")
    write_volume(tmp_path / "in/Mustermann.mha", array, AFFINE)
    (tmp_path / "in/Erika.nii.gz").write_bytes(b"\x1f\x8b not a volume")
    write_volume(tmp_path / "in/Erika  Mustermann.mha", array, AFFINE)
    header = (tmp_path / "in/Erika  Mustermann.mha").read_bytes().partition(b"ElementDataFile")[0]
    (tmp_path / "in/Erika  Mustermann.mha").write_bytes(header + b"ElementDataFile = Mustermann.raw\n")
    (tmp_path / "in/x.nrrd").write_text("NRRD0004\nMustermann Erika\n")
    (tmp_path / "in/y.nrrd").write_text("NRRD0004\ntype: Mustermann\ndimension: 3\nsizes: 2 Erika 2\n")
    assert predict_scans(tmp_path / "in") == 1
    assert len(list((tmp_path / "out").glob("scan_*"))) == 2
    captured = capfd.readouterr()
    everything = captured.out + captured.err + "".join(str(path) for path in (tmp_path / "out").rglob("*"))
    everything += b"".join(p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()).decode("latin-1")
    for word in ("Mustermann", "Erika", ID):
        assert word not in everything
    assert predict_scans(folder, "--keep-ids", output=tmp_path / "named") == 0
    assert "Mustermann^Erika" in (tmp_path / "named/report.html").read_text()
    document = pydicom.dcmread(tmp_path / "named/detections.dcm")
    assert (str(document.PatientName), document.PatientID) == (NAME, ID)
    predict_scans(tmp_path / "in", "--keep-ids", output=tmp_path / "all")
    assert names(tmp_path / "all") == ["Mustermann", "Mustermann_Erika_ct", "scans.csv"]
    table = (tmp_path / "all/scans.csv").read_text()
    assert 'Erika,failed,,"not a readable volume' in table and "data file Mustermann.raw is missing" in table
    assert "no field 'Mustermann Erika' exists" in table


def test_no_copy_of_the_scan_is_left_behind(predict_scans, array, tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    path = write_volume(tmp_path / "ct.nii.gz", array, AFFINE)
    assert predict_scans(path) == 0
    assert names(tmp_path / "tmp") == []
    assert predict_scans(path, opts=["INPUT.CACHE_DIR", str(tmp_path / "cache")]) == 0
    assert len(names(tmp_path / "cache")) == 1


# As a command


def test_command_line(repo_root, tmp_path):
    command = ["python", "demo/predict.py", "--config-file", CONFIG, "--allow-random-weights"]
    command += ["--input", str(tmp_path / "absent"), "--output", str(tmp_path / "out")]
    failed = run_line(shlex.join(command), repo_root)
    assert failed.returncode == 2 and "Traceback" not in failed.stderr
    assert failed.stderr.splitlines()[-1] == f"{tmp_path / 'absent'}: no such file or folder"

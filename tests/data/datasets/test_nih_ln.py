"""NIH-LN's masks become lymph nodes in the frame of their DICOM series."""

from functools import partial

import numpy as np
import pytest
from helpers.dataset_files import read_both, write_dicom, write_image

from lens_d2.data.datasets.catalog import Faults
from lens_d2.data.datasets.nih_ln import find_series, read_split
from lens_d2.io.errors import DataError

SHAPE = (6, 16, 20)  # z, y, x


def labels():
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[1:3, 2:5, 3:7] = 1
    mask[3:6, 10:14, 12:15] = 2
    return mask


def patient(root, name, mask=None, direction=(1, 1, 1), study="study"):
    folder = root / "NIH-LN"
    write_dicom(folder / "DICOM" / name / study / "series", np.zeros(SHAPE), spacing=(0.7, 0.8, 2.0))
    steps = tuple(slice(None, None, sign) for sign in reversed(direction))
    mask = (labels() if mask is None else mask)[steps]
    path = folder / "masks" / name / f"{name}_mask.nii.gz"
    write_image(path, mask, spacing=(0.7, 0.8, 2.0), direction=direction, origin=(40.0, -7.0, 3.0))


everything = partial(read_both, read_split)


@pytest.mark.parametrize("direction", [(1, 1, 1), (1, -1, 1), (-1, -1, 1), (-1, 1, -1)])
def test_a_label_is_a_node_wherever_the_mask_s_axes_lead(tmp_path, direction):
    patient(tmp_path, "MED_LYMPH_001", direction=direction)
    (record,) = everything(tmp_path).values()
    assert (record["width"], record["height"], record["num_slices"]) == (20, 16, 6)
    assert record["spacing"] == pytest.approx([0.7, 0.8, 2.0]) and record["z_direction"] == 1
    first, second = record["lesions"]
    assert first["boxes"] == [[1, 3.0, 2.0, 7.0, 5.0], [2, 3.0, 2.0, 7.0, 5.0]]
    assert second["box3d"] == [12.0, 10.0, 3.0, 15.0, 14.0, 5.0]
    assert first["type"] == "mediastinal lymph node"
    assert first["diameter_mm"] == pytest.approx(2.8, rel=1e-6)


@pytest.mark.parametrize("label", [1, 2, 255])
def test_a_mask_of_one_label_has_a_node_per_component(tmp_path, label):
    patient(tmp_path, "ABD_LYMPH_001", (labels() > 0).astype(np.uint8) * np.uint8(label))
    (record,) = everything(tmp_path).values()
    assert [lesion["box3d"][:3] for lesion in record["lesions"]] == [[3.0, 2.0, 1.0], [12.0, 10.0, 3.0]]
    assert {lesion["type"] for lesion in record["lesions"]} == {"abdominal lymph node"}


def test_a_label_in_two_pieces_is_one_node(tmp_path):
    mask = labels()
    mask[3:5, 2:5, 3:7][0] = 0
    mask[4, 2:5, 3:7] = 1
    patient(tmp_path, "MED_LYMPH_002", mask)
    (record,) = everything(tmp_path).values()
    assert len(record["lesions"]) == 2
    assert [box[0] for box in record["lesions"][0]["boxes"]] == [1, 2, 4]


def test_the_ct_is_the_series_with_most_files(tmp_path):
    patient(tmp_path, "MED_LYMPH_003")
    (tmp_path / "NIH-LN" / "masks" / "MED_LYMPH_003" / "._MED_LYMPH_003_mask.nii.gz").write_bytes(b"\0")
    (tmp_path / "NIH-LN" / "DICOM" / ".Trashes").mkdir()
    assert list(everything(tmp_path)) == ["MED_LYMPH_003"]
    folder = tmp_path / "NIH-LN" / "DICOM" / "MED_LYMPH_003"
    write_dicom(folder / "another" / "segmentation", np.zeros((1, 4, 4)), series="9.9")
    assert find_series(folder) == folder / "study" / "series"


def test_patients_at_fault_are_left_out_and_named(tmp_path):
    for number in range(1, 6):
        patient(tmp_path, f"MED_LYMPH_00{number}")
    folder = tmp_path / "NIH-LN"
    patient(tmp_path, "MED_LYMPH_002", np.zeros((5, 16, 20), dtype=np.uint8))
    (folder / "masks" / "MED_LYMPH_003" / "MED_LYMPH_003_mask.nii.gz").unlink()
    for file in (folder / "DICOM" / "MED_LYMPH_004").rglob("*.dcm"):
        file.unlink()
    (folder / "DICOM" / "MED_LYMPH_005" / "study" / "series" / "0003.dcm").unlink()
    faults = Faults()
    assert list(everything(tmp_path, faults)) == ["MED_LYMPH_001"]
    texts = {name: str(error) for name, error in faults.items()}
    assert "MED_LYMPH_002_mask.nii.gz: a mask of 20 x 16 x 5 voxels for" in texts["MED_LYMPH_002"]
    assert "one mask (*mask*.nii.gz) belongs here, found none" in texts["MED_LYMPH_003"]
    assert "MED_LYMPH_004: no DICOM file" in texts["MED_LYMPH_004"]
    assert "irregular slice spacing" in texts["MED_LYMPH_005"]


def test_no_patients(tmp_path):
    with pytest.raises(DataError, match="DICOM: no folder of a patient"):
        everything(tmp_path)

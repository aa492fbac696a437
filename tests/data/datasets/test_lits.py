"""LiTS's tumours become the right boxes, and volumes with a wrong affine are put right."""

import logging
from functools import partial

import nibabel as nib
import numpy as np
import pytest
from helpers.dataset_files import read_both, write_image, write_table
from nibabel import orientations

from lens_d2.data.datasets.catalog import Faults
from lens_d2.data.datasets.lits import IRCAD, corrected_affine, read_corrections, read_split
from lens_d2.data.volume import read_header
from lens_d2.io.errors import DataError

RAS = (-1, -1, 1)  # NIfTI's own axes, in LPS


def pair(root, number, tumours=(), shape=(8, 20, 30), mask_shape=None, **geometry):
    """Write a volume and its mask; ``tumours`` are (z, y, x) slices."""
    mask = np.ones(mask_shape or shape, dtype=np.uint8)
    for where in tumours:
        mask[where] = 2
    folder = root / "LiTS"
    write_image(folder / f"volume-{number}.nii", np.zeros(shape, dtype=np.int16), **geometry)
    write_image(folder / f"segmentation-{number}.nii", mask, **geometry)


everything = partial(read_both, read_split)


def test_connected_components_become_boxes(tmp_path):
    slanted = [np.s_[2, 4:7, 10:14], np.s_[3, 5:9, 12:15]]
    corner = [np.s_[5:7, 2:4, 2:4], np.s_[7, 4, 4]]  # they share a corner of a voxel
    speck = [np.s_[0, 15, 20:22]]
    pair(tmp_path, 3, [*slanted, *corner, *speck], spacing=(0.8, 0.7, 2.5))
    (record,) = everything(tmp_path).values()
    assert (record["volume"], record["width"], record["height"], record["num_slices"]) == ("volume-3", 30, 20, 8)
    np.testing.assert_allclose(record["spacing"], [0.8, 0.7, 2.5], rtol=1e-6)
    first, second = sorted(record["lesions"], key=lambda lesion: -lesion["box3d"][0])
    assert first["boxes"] == [[2, 10.0, 4.0, 14.0, 7.0], [3, 12.0, 5.0, 15.0, 9.0]]
    assert first["box3d"] == [10.0, 4.0, 2.0, 15.0, 9.0, 3.0]
    assert first["diameter_mm"] == pytest.approx(3.2, rel=1e-6)
    assert second["boxes"][-1] == [7, 4.0, 4.0, 5.0, 5.0] and second["box3d"] == [2.0, 2.0, 5.0, 5.0, 5.0, 7.0]


def test_boxes_follow_the_axes_of_the_body(tmp_path):
    """A file that stores y fastest: its boxes are in x, y, z order all the same."""
    direction = (0, 1, 0, 1, 0, 0, 0, 0, -1)  # first axis to the back, second to the left, third to the feet
    pair(tmp_path, 4, [np.s_[1, 2:5, 6:8]], spacing=(0.5, 0.6, 3.0), direction=direction)
    (record,) = everything(tmp_path).values()
    assert (record["width"], record["height"]) == (20, 30)
    np.testing.assert_allclose(record["spacing"], [0.6, 0.5, 3.0], rtol=1e-6)
    assert record["z_direction"] == -1
    assert record["lesions"][0]["boxes"] == [[1, 2.0, 6.0, 5.0, 8.0]]


def test_identity_affines_are_corrected_and_logged(tmp_path, caplog):
    """Volume 45 has the 74 slices of patient 18, 3 is no patient of 3D-IRCADb-01."""
    for number in (45, 3):
        pair(tmp_path, number, [np.s_[5:7, 2:5, 2:5]], shape=(74, 8, 8), direction=RAS)
    with caplog.at_level(logging.INFO, logger="lens_d2.data.datasets.lits"):
        records = everything(tmp_path)
    assert records["volume-45"]["spacing"] == [0.74, 0.74, 2.5]
    assert records["volume-3"]["spacing"] == [1.0, 1.0, 1.0] and "affine" not in records["volume-3"]
    header = read_header(records["volume-45"])
    np.testing.assert_allclose(header.spacing, [0.74, 0.74, 2.5])
    assert header.flips == (True, True, False)  # as the file says
    assert records["volume-45"]["lesions"][0]["diameter_mm"] == pytest.approx(3 * 0.74)
    touched = [text for text in caplog.messages if "corrected" in text]
    assert len(touched) == 1 and touched[0].endswith("corrected: volume-45")


def test_a_volume_is_found_among_those_of_as_many_slices():
    identity = np.diag([-1.0, -1.0, 1.0, 1.0])
    for number in (37, 40):  # patients 10 and 13, 122 slices both
        affine = corrected_affine(number, (512, 512, 122), identity, {})
        np.testing.assert_allclose(np.abs(np.diag(affine))[:3], [IRCAD[number - 28][1]] * 2 + [1.6])
    # Where a volume stands one number further than it should, its slices tell.
    np.testing.assert_allclose(np.diag(corrected_affine(46, (512, 512, 74), identity, {}))[2], 2.5)
    assert corrected_affine(30, (512, 512, 200), np.diag([-0.6, -0.6, 1.25, 1]), {}) is None


def test_an_identity_affine_without_a_known_spacing_is_a_fault_until_it_is_given(tmp_path):
    pair(tmp_path, 30, direction=RAS)
    faults = Faults()
    assert everything(tmp_path, faults) == {}
    assert "volume-30.nii: an identity affine" in str(faults["volume-30"])
    row = {"volume": 30, "x": 0.7, "y": 0.7, "z": 5, "axes": "LPI"}
    write_table(tmp_path / "LiTS" / "spacing.csv", [row])
    (record,) = everything(tmp_path).values()
    assert record["spacing"] == [0.7, 0.7, 5.0] and record["z_direction"] == -1
    assert read_header(record).flips == (False, False, True)


@pytest.mark.parametrize(
    "row", [("x", 1, 1, 1, ""), (3, 0, 1, 1, ""), (3, 1, 1, "NaN", ""), (3, 1, 1, 1, "LRS"), (3, 1, 1, 1, "LP")]
)
def test_corrections_that_make_no_sense(tmp_path, row):
    columns = ("volume", "x", "y", "z", "axes")
    path = write_table(tmp_path / "spacing.csv", [dict(zip(columns, row, strict=True))])
    with pytest.raises(DataError, match="spacing.csv: line 2: "):
        read_corrections(path)


def test_files_at_fault_are_left_out_and_named(tmp_path):
    for number in range(5):
        pair(tmp_path, number)
    folder = tmp_path / "LiTS"
    pair(tmp_path, 1, mask_shape=(7, 20, 30))
    (folder / "segmentation-2.nii").unlink()
    (folder / "volume-3.nii").unlink()
    write_image(folder / "segmentation-4.nii", np.full((8, 20, 30), 7, dtype=np.uint8))
    faults = Faults()
    assert list(everything(tmp_path, faults)) == ["volume-0"]
    assert "segmentation-1.nii: a mask of 30 x 20 x 7 voxels for a volume of 30 x 20 x 8" in str(
        faults["volume-1"]
    )
    assert "volume-2.nii: no segmentation-2.nii" in str(faults["volume-2"])
    assert "segmentation-3.nii: no volume-3.nii" in str(faults["volume-3"])
    assert "segmentation-4.nii: labels from 7 to 7" in str(faults["volume-4"])


@pytest.mark.parametrize("part", ["volume", "segmentation"])
def test_a_truncated_file_is_left_out(tmp_path, part):
    pair(tmp_path, 0)
    path = tmp_path / "LiTS" / f"{part}-0.nii"
    path.write_bytes(path.read_bytes()[: 200 if part == "volume" else 1000])
    faults = Faults()
    assert everything(tmp_path, faults) == {}
    assert faults["volume-0"].path == str(path)


def test_a_mask_that_does_not_meet_its_volume_is_told(tmp_path):
    """It is laid on the volume voxel by voxel all the same."""
    pair(tmp_path, 0, [np.s_[1:3, 2:5, 2:5]])
    sound = everything(tmp_path)
    mask = tmp_path / "LiTS" / "segmentation-0.nii"
    array = np.ones((8, 20, 30), np.uint8)
    array[1:3, 2:5, 2:5] = 2
    write_image(mask, array, origin=(0, 0, 33))
    faults = Faults()
    assert everything(tmp_path, faults) == sound
    assert "33 mm off its CT" in faults.warnings["volume-0"][0] and not faults


@pytest.mark.parametrize("axes", ["LPS", "RPS", "PRS", "SAL", "RAI"])
@pytest.mark.parametrize("correction", [None, "LPS"])
def test_a_mask_whose_axes_run_another_way_is_turned(tmp_path, axes, correction):
    """Where its header says so, and that of its volume agrees; whether or not a correction follows."""
    pair(tmp_path, 0, [np.s_[1:3, 2:5, 2:7]], shape=(20, 20, 20), direction=RAS, spacing=(1.0, 1.5, 2.0))
    if correction:
        row = f"0,1.0,1.5,2.0,{correction}"
        (tmp_path / "LiTS/spacing.csv").write_text(f"volume,x,y,z,axes\n{row}\n")
    sound = everything(tmp_path)
    path = tmp_path / "LiTS/segmentation-0.nii"
    mask = nib.load(path, mmap=False)
    turn = orientations.ornt_transform(orientations.io_orientation(mask.affine), orientations.axcodes2ornt(axes))
    turned = mask.as_reoriented(turn)
    nib.save(nib.Nifti1Image(np.array(turned.dataobj), turned.affine), path)
    faults = Faults()
    assert everything(tmp_path, faults) == sound and not faults and not faults.warnings


def test_corrections_of_absent_or_doubled_volumes(tmp_path, caplog):
    pair(tmp_path, 0, [np.s_[1:3, 2:5, 2:5]])
    table = tmp_path / "LiTS/spacing.csv"
    table.write_text("volume,x,y,z,axes\n0,1,1,1,\n99,1,1,1,\n")
    everything(tmp_path)
    assert "no volume with its mask for 99" in caplog.text
    table.write_text("volume,x,y,z,axes\n0,1,1,1,\n0,2,2,2,\n")
    with pytest.raises(DataError, match="line 3: volume 0 appears twice"):
        everything(tmp_path)


def test_no_volumes(tmp_path):
    with pytest.raises(DataError, match="LiTS: no volume-N.nii"):
        everything(tmp_path)

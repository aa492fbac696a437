"""What readers of all formats share: finding one, shears, units, kinds of voxels."""

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.scan_files import make_affine, write_volume
from helpers.volume_files import AFFINE, ORIGIN, SPACING, ct, fault, metaimage, nifti, nrrd, same, warned

from lens_d2.data.checks import check_orientation
from lens_d2.data.volume import read_volume

OBLIQUE = [[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]]


@pytest.mark.parametrize("write", ["nifti", "nrrd", "metaimage"])
def test_a_shear_is_read_and_told(write, tmp_path):
    """As that of a tilted gantry: the slices lie where the header says, and are not straightened."""
    affine = AFFINE.copy()
    affine[1, 2] = 0.5
    directions = " ".join(f"({','.join(map(str, column))})" for column in affine[:3, :3].T)
    matrix = " ".join(map(str, (affine[:3, :3] / SPACING).T.ravel()))
    path = {
        "nifti": lambda: nifti(tmp_path / "ct.nii", affine=affine, qform=0),
        "nrrd": lambda: nrrd(tmp_path / "ct.nrrd", ct().tobytes(), space_directions=directions),
        "metaimage": lambda: metaimage(tmp_path / "ct.mha", ct().tobytes(), TransformMatrix=matrix),
    }[write]()
    assert "its axes stand 11.3 degrees off the right angle" in warned(path)
    np.testing.assert_allclose(read_volume(path).geometry.affine, affine, rtol=1e-5)


def test_other_units(tmp_path):
    metres = make_affine(np.array(SPACING) / 1e3, origin=np.array(ORIGIN) / 1e3)
    path = nifti(tmp_path / "ct.nii", affine=metres, xyzt_units=1)
    assert "lengths in m: converted to mm" in warned(path)
    same(path, ct())
    assert "voxels of 700 x 800 x 2.5e+03 mm cannot be a CT's" in warned(nifti(tmp_path / "ct.nii", xyzt_units=1))
    assert "no known unit" in warned(nifti(tmp_path / "ct.nii", xyzt_units=5))
    path = nrrd(tmp_path / "ct.nrrd", ct().tobytes(), space_units='"cm" "cm" "cm"')
    np.testing.assert_allclose(read_volume(path).geometry.spacing, np.array(SPACING) * 10)
    path = metaimage(tmp_path / "ct.mha", ct().tobytes(), DistanceUnits="cm")
    np.testing.assert_allclose(read_volume(path).geometry.spacing, np.array(SPACING) * 10)


def test_colours_and_complex_numbers(tmp_path):
    rgb = np.zeros((6, 9, 11), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert "voxels of type RGB" in fault(nifti(tmp_path / "ct.nii", rgb))
    assert "voxels of type complex64" in fault(nifti(tmp_path / "ct.nii", ct().astype(np.complex64)))
    assert "voxels of type MET_STRING" in fault(metaimage(tmp_path / "ct.mha", b"", ElementType="MET_STRING"))
    assert "an axis of kind 'vector'" in fault(nrrd(tmp_path / "ct.nrrd", b"", kinds="vector domain domain"))


@pytest.mark.parametrize("extension", ["nii", "nii.gz", "mha", "mhd", "nrrd", "nhdr"])
@pytest.mark.parametrize("direction", [np.eye(3), np.diag([-1, -1, 1]), OBLIQUE])
@pytest.mark.parametrize("compressed", [False, True])
def test_as_simpleitk_reads_them(extension, direction, compressed, tmp_path):
    affine = make_affine(SPACING, direction, ORIGIN)
    path = write_volume(tmp_path / f"ct.{extension}", ct(), affine)
    sitk.WriteImage(sitk.ReadImage(str(path)), str(path), compressed)
    volume = same(path, ct(), affine)
    assert list(volume.warnings) == check_orientation(volume.geometry)


def test_absent_file_and_empty_folder(tmp_path):
    assert "no such file" in fault(tmp_path / "absent.mhd")
    (tmp_path / "empty").mkdir()
    assert fault(tmp_path / "empty") == "the folder is empty"

"""NIfTI: read as nibabel means it, or refused in a line."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from helpers.volume_files import AFFINE, RAS, ct, fault, nifti, same, sitk_affine, warned

from lens_d2.data.volume import read_volume


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image, nib.Nifti1Pair, nib.Nifti2Pair])
@pytest.mark.parametrize("order", "<>")
def test_versions_and_byte_orders_of_nifti(kind, order, tmp_path):
    single = kind in (nib.Nifti1Image, nib.Nifti2Image)
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.int16)
    image = kind(ct().T, RAS @ AFFINE, header)
    image.set_qform(RAS @ AFFINE, 1)
    nib.save(image, tmp_path / ("ct.nii" if single else "ct.img"))
    for name in ["ct.nii"] if single else ["ct.img", "ct.hdr"]:
        assert same(tmp_path / name, ct()).warnings == ()
    if not single:
        (tmp_path / "ct.img").unlink()
        assert fault(tmp_path / "ct.hdr") == "its voxels ct.img is missing"


def test_compression_shows_in_the_content(tmp_path):
    data = nifti(tmp_path / "ct.nii").read_bytes()
    (tmp_path / "plain.nii.gz").write_bytes(data)
    (tmp_path / "packed.nii").write_bytes(gzip.compress(data))
    same(tmp_path / "plain.nii.gz", ct())
    same(tmp_path / "packed.nii", ct())


def test_slope_and_intercept_as_nibabel_applies_them(tmp_path):
    stored = (ct() + 1024).astype(np.uint16)
    path = nifti(tmp_path / "ct.nii", stored, scl_slope=1, scl_inter=-1024)
    assert same(path, ct()).warnings == ()
    half = nifti(tmp_path / "half.nii", (stored * 2).astype(np.uint16), scl_slope=0.5, scl_inter=-1024)
    same(half, ct())
    np.testing.assert_allclose(np.asanyarray(nib.load(half).dataobj).T, ct())
    same(nifti(tmp_path / "none.nii", scl_slope=0, scl_inter=7), ct())
    infinite = nifti(tmp_path / "inf.nii", scl_slope=np.inf)
    assert "a slope of inf (scl_slope), which is not applied" in warned(infinite)
    large = nifti(tmp_path / "large.nii", scl_slope=1000, scl_inter=0)
    same(large, (ct() * 1000.0).clip(-32768, 32767).astype(np.int16))
    assert "slope and intercept" in fault(nifti(tmp_path / "nan.nii", scl_slope=1, scl_inter=np.nan))


def test_one_volume_of_four_dimensions(tmp_path):
    same(nifti(tmp_path / "ct.nii", ct()[None]), ct())
    assert "4 dimensions (11 x 9 x 6 x 2)" in fault(nifti(tmp_path / "two.nii", np.stack([ct(), ct()])))


def test_nifti_without_a_place(tmp_path):
    path = nifti(tmp_path / "ct.nii", sform=0, qform=0)
    assert "position and orientation unknown (qform and sform code 0)" in warned(path)
    np.testing.assert_allclose(read_volume(path).geometry.affine, sitk_affine(path), rtol=1e-6)


def test_a_qfac_of_0_is_one_of_1(tmp_path):
    """By the standard; without it the qform, and with it the orientation, would be lost."""
    affine = AFFINE @ np.diag([-1, -1, 1, 1])
    path = nifti(tmp_path / "ct.nii", affine=affine, sform=0)
    assert nib.load(path).header["pixdim"][0] == 1
    data = bytearray(path.read_bytes())
    data[76:80] = bytes(4)
    path.write_bytes(data)
    assert same(path, ct(), affine).warnings == ()


def test_nifti_forms_that_differ(tmp_path):
    path = nifti(tmp_path / "ct.nii", qoffset_x=90)
    assert warned(path) == "its qform and sform place the voxels up to 10 mm apart: the sform is used"
    np.testing.assert_allclose(read_volume(path).geometry.affine, AFFINE, rtol=1e-6)
    assert warned(nifti(tmp_path / "ct.nii", qoffset_x=90, sform=0)) == ""
    assert "qform makes no sense" in warned(nifti(tmp_path / "ct.nii", quatern_b=3))
    assert "spacing twice, as 7 x 0.8 x 2.5 and as 0.7 x 0.8 x 2.5" in warned(
        nifti(tmp_path / "ct.nii", pixdim=[1, 7, 0.8, 2.5], qform=0)
    )


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("dim", [0, 11, 9, 6], "0 dimensions"),
        ("dim", [9, 11, 9, 6], "9 dimensions"),
        ("dim", [3, 11, -9, 6], "a size of 11 x -9 x 6 voxels"),
        ("dim", [3, 11, 9, 5], "more than the 495 voxels"),
        ("dim", [3, 11, 9, 7], "truncated: 594 of the 693 voxels"),
        ("dim", [2, 11, 9, 6], "2 dimensions"),
        ("vox_offset", 352.5, "the voxels begin at byte 352.5"),
        ("vox_offset", 100, "the voxels begin at byte 100"),
        ("vox_offset", np.nan, "the voxels begin at byte nan"),
        ("vox_offset", 354, "truncated: 593 of the 594 voxels"),
        ("vox_offset", 1e9, "truncated: 0 of the 594 voxels"),
        ("datatype", 77, "voxels of an unknown type"),
        ("datatype", 8, "16 bits for voxels of int32"),
        ("bitpix", 8, "8 bits for voxels of int16"),
        ("magic", b"nope", "no NIfTI header"),
        ("sizeof_hdr", 349, "truncated or damaged NIfTI header"),
        ("pixdim", [1, 0, 0.8, 2.5], "the voxel spacing is 0 x 0.8 x 2.5 mm"),
        ("srow_x", [np.nan, 0, 0, 0], "the voxel spacing is"),
    ],
)  # fmt: skip
def test_senseless_nifti_headers(field, value, says, tmp_path):
    assert says in fault(nifti(tmp_path / "ct.nii", **{field: value}))


def test_analyze_does_not_say_which_side_is_left(tmp_path):
    nib.save(nib.AnalyzeImage(ct().T, np.eye(4)), tmp_path / "ct.img")
    assert "Analyze 7.5" in fault(tmp_path / "ct.img") and "Analyze 7.5" in fault(tmp_path / "ct.hdr")

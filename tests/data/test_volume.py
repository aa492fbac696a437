"""Reading CT from files as they are found, and refusing files that are not sound."""

import gzip

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.dicom_checks import fault
from helpers.scan_files import make_affine
from helpers.volume_files import ct, nifti, same

from lens_d2.data.cache import PreprocessParams, VolumeInMemory
from lens_d2.data.volume import read_header, read_mask, read_volume
from lens_d2.io import memory
from lens_d2.io.errors import DataError

SPACING = (0.7, 0.8, 2.5)
ORIGIN = (-100.0, 50.0, -300.0)
IDENTITY = np.eye(3)
FORMATS = ["mhd", "mha", "nii", "nii.gz", "nrrd"]


@pytest.fixture
def hu() -> np.ndarray:
    """(z, y, x) int16."""
    return np.random.default_rng(0).integers(-1024, 3071, (6, 9, 11)).astype(np.int16)


def write_image(path, array, spacing=SPACING, direction=IDENTITY, origin=ORIGIN):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(np.asarray(direction, dtype=float).ravel().tolist())
    sitk.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize("extension", FORMATS)
def test_volume_files(tmp_path, hu, extension):
    path = write_image(tmp_path / f"ct.{extension}", hu)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, hu)
    assert volume.array.dtype == np.int16
    assert volume.geometry == read_header(path)
    assert volume.geometry.size == (11, 9, 6)
    np.testing.assert_allclose(volume.geometry.spacing, SPACING, rtol=1e-6)
    np.testing.assert_allclose(volume.geometry.index_to_world([[0, 0, 0]]), [ORIGIN], rtol=1e-6)


def test_real_ct_has_x_and_y_reversed(shared_dir):
    volume = read_volume(shared_dir / "ct" / "torso_3mm.nii.gz")
    assert volume.array.shape == (112, 101, 122)
    assert volume.geometry.flips == (True, True, False)
    np.testing.assert_allclose(volume.geometry.spacing, (3, 3, 3))


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize(
    "direction",
    [
        np.diag([-1, -1, 1]),  # as some volumes of LUNA16
        [[0, 0, 1], [1, 0, 0], [0, -1, 0]],  # sagittal slices, head first
        [[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]],  # oblique
    ],
)
def test_every_voxel_keeps_its_place_in_the_world(tmp_path, hu, extension, direction):
    path = write_image(tmp_path / f"ct.{extension}", hu, direction=direction)
    image, volume = sitk.ReadImage(str(path)), read_volume(path)
    assert volume.geometry == read_header(path)
    rng = np.random.default_rng(0)
    for index in rng.integers(0, image.GetSize(), (20, 3)).tolist():
        world = image.TransformIndexToPhysicalPoint(index)
        x, y, z = volume.geometry.world_to_index([world])[0]
        np.testing.assert_allclose([x, y, z], np.rint([x, y, z]), atol=1e-3)  # NIfTI holds float32
        assert volume.array[round(z), round(y), round(x)] == image[index]
    steps = np.asarray(volume.geometry.affine)[:3, :3]
    assert (np.abs(steps).argmax(axis=0) == [0, 1, 2]).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.float64])
def test_other_voxel_types_are_rounded_and_saturated(tmp_path, dtype):
    values = np.array([0, 1, 200]) if dtype == np.uint8 else np.array([-3024.4, 1.6, 70000])
    array = np.broadcast_to(values.astype(dtype), (2, 2, 3))
    read = read_volume(write_image(tmp_path / "ct.nrrd", np.ascontiguousarray(array))).array[0, 0]
    expected = {np.uint8: [0, 1, 200], np.int32: [-3024, 1, 32767]}.get(dtype, [-3024, 2, 32767])
    assert read.tolist() == expected


def test_affine_of_the_record_replaces_that_of_the_file(tmp_path, hu):
    """As for the LiTS volumes that carry an identity affine, and those that are turned against the rest."""
    path = write_image(tmp_path / "ct.nii", hu, spacing=(1, 1, 1), origin=(0, 0, 0))
    affine = [[0, -0.7, 0, 5], [0.8, 0, 0, 6], [0, 0, 2.5, 7], [0, 0, 0, 1]]  # i runs to the back, j to the right
    volume = read_volume({"file_name": str(path), "affine": affine})
    assert volume.geometry.size == (9, 11, 6)
    np.testing.assert_allclose(volume.geometry.spacing, (0.7, 0.8, 2.5))
    np.testing.assert_array_equal(volume.array, hu.transpose(0, 2, 1))
    assert volume.geometry.flips == (True, False, False)


def test_mask_is_turned_to_its_volume(tmp_path, hu):
    ct = read_header(write_image(tmp_path / "ct.nii", hu))
    mask = (hu > 0).astype(np.uint8)
    path = write_image(tmp_path / "mask.nii.gz", mask[::-1, :, ::-1].copy(), direction=np.diag([-1, 1, -1]))
    np.testing.assert_array_equal(read_mask(path, ct), mask)


@pytest.mark.parametrize("extension", FORMATS)
def test_truncated_volume(tmp_path, hu, extension):
    write_image(tmp_path / f"ct.{extension}", hu)
    data = tmp_path / ("ct.raw" if extension == "mhd" else f"ct.{extension}")
    data.write_bytes(data.read_bytes()[: int(0.9 * data.stat().st_size)])
    assert "truncated" in fault(tmp_path / f"ct.{extension}")


def test_header_without_its_voxels(tmp_path, hu):
    write_image(tmp_path / "ct.mhd", hu)
    (tmp_path / "ct.raw").unlink()
    assert fault(tmp_path / "ct.mhd").endswith("its data file ct.raw is missing")


def test_not_a_volume(tmp_path, hu):
    (tmp_path / "ct.nii").write_bytes(b"not a volume" * 100)
    assert "not a readable volume" in fault(tmp_path / "ct.nii")
    write_image(tmp_path / "flat.mha", hu)
    sitk.WriteImage(sitk.GetImageFromArray(hu[0]), str(tmp_path / "flat.mha"))
    assert "2 dimensions" in fault(tmp_path / "flat.mha")
    colour = sitk.GetImageFromArray(np.zeros((3, 4, 5, 3), np.uint8), isVector=True)
    sitk.WriteImage(colour, str(tmp_path / "colour.mha"))
    assert "3 values per voxel" in fault(tmp_path / "colour.mha")


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_voxels_that_are_not_numbers(tmp_path, hu, extension, dtype, number):
    array = hu.astype(dtype)
    array[1, 2, 3] = number
    assert "1 voxels are NaN or infinite" in fault(write_image(tmp_path / f"ct.{extension}", array))


@pytest.mark.parametrize("value", [0.0, np.nan])
@pytest.mark.parametrize("open_file", [open, gzip.open])
def test_nifti_spacing_of_zero_or_nan(tmp_path, hu, value, open_file):
    path = write_image(tmp_path / f"ct.nii{'.gz' if open_file is gzip.open else ''}", hu)
    with open_file(path, "rb") as file:
        data = bytearray(file.read())
    data[80:84] = np.float32(value).tobytes()  # pixdim[1]
    with open_file(path, "wb") as file:
        file.write(data)
    assert "the voxel spacing is" in fault(path)
    assert read_volume(path, affine=np.eye(4)).geometry.spacing == (1, 1, 1)


def test_metaimage_spacing_of_zero(tmp_path, hu):
    path = write_image(tmp_path / "ct.mhd", hu, spacing=(1, 1, 2.5))
    path.write_text(path.read_text().replace("ElementSpacing = 1 1 2.5", "ElementSpacing = 0 1 2.5"))
    assert "the voxel spacing is 0 x 1 x 2.5 mm" in fault(path)


def test_mask_of_another_shape(tmp_path, hu):
    ct = read_header(write_image(tmp_path / "ct.nii", hu))
    with pytest.raises(DataError, match="a mask of 11 x 9 x 5 voxels for a volume of 11 x 9 x 6"):
        read_mask(write_image(tmp_path / "mask.nii", hu[:5]), ct)


def test_a_volume_is_weighed_before_it_is_read(tmp_path, monkeypatch):
    path = nifti(tmp_path / "ct.nii")
    monkeypatch.setattr(memory, "available_memory", lambda: 5 * 10**9)
    same(path, ct())
    swollen = nifti(tmp_path / "swollen.nii", dim=[3, 2048, 2048, 1000])
    assert "swollen.nii: 4,194,304,000 voxels need 8.7 GB of memory, 5.0 GB are free" in fault(swollen)
    turned = make_affine(SPACING, [[0, 0, 1], [1, 0, 0], [0, 1, 0]])  # a second copy, with the axes in order
    huge = nifti(tmp_path / "turned.nii", affine=turned, dim=[3, 1024, 1024, 2000])
    assert "2,097,152,000 voxels need 8.7 GB" in fault(huge)
    assert read_header(swollen).size == (2048, 2048, 1000)


def test_a_resampled_volume_is_weighed_too(tmp_path, monkeypatch):
    """Pixels ten times as large as they should be make a hundred times the voxels."""
    volume = read_volume(nifti(tmp_path / "ct.nii", affine=make_affine((80, 80, 2.5))))
    monkeypatch.setattr(memory, "available_memory", lambda: memory.RESERVE + 10**6)
    with pytest.raises(DataError, match="ct.nii: [0-9,]+ voxels need .* GB of memory"):
        VolumeInMemory(volume, PreprocessParams(), tmp_path / "ct.nii")

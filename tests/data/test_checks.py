"""What is no CT in HU and mm is told, and what is CT is not."""

import numpy as np
import pytest
from helpers.scan_files import make_affine, write_pngs, write_volume

from lens_d2.data.cache import VolumeCache
from lens_d2.data.checks import (
    OTHER_MODALITIES,
    check_mask,
    check_orientation,
    check_spacing,
    check_tissue,
    check_values,
    refuse_other_modalities,
)
from lens_d2.data.volume import read_mask, read_volume
from lens_d2.io.errors import DataError
from lens_d2.structures.geometry import VolumeGeometry

RNG = np.random.default_rng(0)


def body(shape=(20, 48, 48)) -> np.ndarray:
    """(z, y, x) HU, float: a body of fat, tissue and bone in air, with noise."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    hu = np.full(shape, -1000.0)
    hu[x**2 + y**2 < 0.7] = -100
    hu[x**2 + y**2 < 0.5] = 45
    hu[(x - 0.3) ** 2 + y**2 < 0.04] = -850
    hu[x**2 + (y - 0.5) ** 2 < 0.02] = 700
    return hu + np.random.default_rng(1).normal(0, 15, shape)


def stored(hu) -> np.ndarray:
    return np.rint(np.clip(hu, -32768, 32767)).astype(np.int16)


HU = body()
SOUND = {
    "whole": HU,
    "cut off at the ends of 12 bits": HU.clip(-1024, 3071),
    "padding outside of the field of view": np.where(HU < -1010, -2048, HU),
    "bone and above cut off": HU.clip(-1024, 400),
    "lung alone": np.full((9, 9, 9), -850.0) + RNG.normal(0, 30, (9, 9, 9)),
    "air alone": np.full((9, 9, 9), -1000.0) + RNG.normal(0, 5, (9, 9, 9)),
    "within the body": np.where(RNG.random((16, 16, 16)) < 0.3, -100, 50) + RNG.normal(0, 15, (16, 16, 16)),
    "within an organ": np.full((30, 30, 30), 60.0) + RNG.normal(0, 15, (30, 30, 30)),
    "with metal": np.where(RNG.random(HU.shape) < 0.003, 20000, HU),
    "no noise": np.where(HU > -500, 40, -1000),
}


@pytest.mark.parametrize("name", SOUND)
def test_ct_is_not_warned_of(name):
    assert check_values(stored(SOUND[name])) == []


WRONG = {
    "0 to 255 of a window": ((HU + 160).clip(0, 400) / 400 * 255, "values 0 to 255, as of a window"),
    "0 to 255 of all": ((HU.clip(-1024, 3071) + 1024) / 4095 * 255, "as of a window"),
    "0 to 1": ((HU + 1000).clip(0, 2000) / 2000, "2 different values, 0 to 1, as of a mask or normalised"),
    "-1 to 1": ((HU + 1000).clip(0, 2000) / 1000 - 1, "values -1 to 1, as of a normalised image"),
    "standardised": ((HU - HU.mean()) / HU.std(), "as of a normalised image"),
    "+1024": (HU + 1024, "as if 1024 had been added"),
    "+1000": (HU + 1000, "as if 1024 had been added"),
    "+1024, a few values": (np.where(HU > -500, 1064, 24), "as if 1024 had been added"),
    "MONOCHROME1": (-HU, "or inverted"),
    "a mask": (HU > 200, "2 different values, 0 to 1, as of a mask"),
    "labels of organs": (np.digitize(HU, [-900, -700, -50, 200]), "5 different values, 0 to 4, as of a mask"),
    "constant": (np.zeros(HU.shape), "every voxel is 0"),
    "unsigned, saturated": (HU + 32768, "of the voxels are 4000 or more (up to 32767)"),
    "ten times": (HU * 10, "of the voxels are 4000 or more"),
    "twice": (HU * 2, "of the voxels are -1200 or less"),
    "a tenth": (HU / 10, "without air"),
    "clipped": (HU.clip(-160, 240), "have the lowest value, -160, as of a window; there is no air"),
    "MR": (np.abs(np.where(HU > -500, 600 + HU, 20) + RNG.normal(0, 20, HU.shape)), "without air"),
    "PET": (np.abs(RNG.gamma(0.3, 300, HU.shape)), "there is no air"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_hu_is_told(name):
    values, words = WRONG[name]
    (text,) = check_values(stored(values))
    assert words in text and text.endswith(": not Hounsfield units, detections cannot be trusted")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("values", "pixel", "told"),
    [
        (HU, 8.0, False),
        (HU - 1024, 8.0, True),  # the offset applied twice, cut off at the lowest value
        (SOUND["air alone"], 20.0, True),
        (SOUND["lung alone"], 2.0, False),  # as small a part of a lung
    ],
)
def test_a_scan_without_tissue_is_told(values, pixel, told, tmp_path):
    path = write_volume(tmp_path / "ct.nii", stored(values.clip(-1024)), make_affine((pixel, pixel, 3.0)))
    warnings = read_volume(path).warnings
    assert [text for text in warnings if "fat or soft tissue (-200 to 250): nothing but air" in text] == (
        check_tissue(stored(values.clip(-1024)), read_volume(path).geometry)
    )
    assert any("nothing but air" in text for text in warnings) == told


def test_a_large_volume_is_sampled_evenly():
    """As many voxels a row as the step would be: each column is met all the same."""
    array = np.zeros((16, 512, 512), np.int16)
    array[...] = stored(np.linspace(-1000, 200, 512) + RNG.normal(0, 10, 512))
    assert check_values(array) == []


def test_the_sample_ct_is_not_warned_of(shared_dir):
    for path in sorted((shared_dir / "ct").glob("*.nii.gz")):
        volume = read_volume(path)
        assert volume.warnings == ()
        for start in range(0, 60, 15):
            part = volume.array[: min(24, len(volume.array)), start : start + 32, start : start + 32]
            assert check_values(part) == []


def test_every_format_is_checked(tmp_path):
    path = write_volume(tmp_path / "ct.nii", stored(HU + 1024), make_affine((700, 700, 2500)))
    texts = read_volume(path).warnings
    assert (
        len(texts) == 2 and "1024" in texts[0] and "voxels of 700 x 700 x 2.5e+03 mm cannot be a CT's" in texts[1]
    )
    assert read_volume(path, affine=make_affine((0.7, 0.7, 2.5))).warnings == texts[:1]
    assert "1024" in read_volume(write_pngs(tmp_path / "png", stored(HU + 1024)), spacing=(1, 1, 2)).warnings[0]


@pytest.mark.parametrize(
    ("spacing", "size", "words"),
    [
        ((0.7, 0.7, 2.5), (512, 512, 300), None),
        ((3, 3, 3), (122, 101, 112), None),
        ((0.3, 0.3, 0.3), (512, 512, 600), None),
        ((0.9, 0.9, 20), (512, 512, 30), None),
        ((1.9, 1.9, 1.5), (512, 512, 1300), None),
        ((1000, 1000, 1000), (9, 9, 9), "voxels of 1e+03 x 1e+03 x 1e+03 mm"),
        ((700, 700, 2500), (9, 9, 9), "voxels of 700 x 700 x 2.5e+03 mm"),
        ((7e-4, 7e-4, 2.5e-3), (9, 9, 9), "voxels of 0.0007 x 0.0007 x 0.0025 mm"),
        ((0.7, 0.7, 40), (9, 9, 9), "voxels of 0.7 x 0.7 x 40 mm"),
        ((10, 10, 5), (9, 9, 9), "voxels of 10 x 10 x 5 mm"),
        ((0.5, 6, 2), (9, 9, 9), "pixels of 0.5 x 6 mm"),
        ((5, 0.7, 0.7), (40, 512, 512), None),  # sagittal slices
        ((3, 3, 3), (512, 512, 100), "a volume of 1536 x 1536 x 300 mm"),
    ],
)
def test_spacing(spacing, size, words):
    texts = check_spacing(VolumeGeometry(size, make_affine(spacing)))
    assert (not texts) if words is None else texts[0].startswith(f"{words} cannot be a CT's")


@pytest.mark.parametrize("factor", [1e-30, 1e-6, 1e-3, 1e3, 1e30])
def test_another_unit_is_told_and_not_worked_on(factor, tmp_path):
    """Resampled, a volume of kilometres would fill the disk: reading it warns, caching it refuses."""
    affine = make_affine(np.array([0.7, 0.7, 2.5]) * factor)
    path = write_any_spacing(tmp_path / "ct.nrrd", affine)
    assert "cannot be a CT's" in read_volume(path).warnings[-1]
    with pytest.raises(DataError, match="put the spacing in its header right"):
        VolumeCache(tmp_path).open(path)
    VolumeCache(tmp_path).open({"file_name": path, "affine": make_affine((0.7, 0.7, 2.5)).tolist()})


def write_any_spacing(path, affine):
    """A header of any spacing: SimpleITK would refuse to write some."""
    columns = " ".join(f"({','.join(f'{x:.9g}' for x in column)})" for column in affine[:3, :3].T)
    fields = {"type": "short", "dimension": "3", "space": "LPS", "sizes": "48 48 20", "space directions": columns}
    fields |= {"endian": "little", "encoding": "raw", "space origin": "(0,0,0)"}
    header = "\n".join(["NRRD0004", *map(": ".join, fields.items())])
    path.write_bytes(header.encode() + b"\n\n" + stored(HU).tobytes())
    return path


@pytest.mark.parametrize(("slices", "told"), [(1, True), (2, False)])
def test_a_single_slice_is_told(tmp_path, slices, told):
    write_volume(tmp_path / "scan.nii", stored(HU[:slices]), make_affine((0.8, 0.8, 5)))
    warnings = read_volume(tmp_path / "scan.nii").warnings
    assert any("a single slice: " in warning for warning in warnings) == told


def test_other_modalities_are_refused():
    for modality in (*OTHER_MODALITIES, " mr "):
        with pytest.raises(DataError, match="only CT is read"):
            refuse_other_modalities("scan.mha", modality)
    for modality in ("CT", "", "OTHER", "UNKNOWN"):
        refuse_other_modalities("scan.mha", modality)


# Masks

CT = VolumeGeometry((20, 16, 6), make_affine((0.7, 0.8, 2.5), origin=(5, 6, 7)))


def mask(spacing=(0.7, 0.8, 2.5), direction=None, origin=(5, 6, 7)):
    return VolumeGeometry(CT.size, make_affine(spacing, direction, origin))


def test_a_mask_that_meets_its_ct():
    assert check_mask(CT, CT) == []
    assert check_mask(mask(origin=(5.3, 6, 7)), CT) == []
    assert check_mask(mask(direction=np.diag([-1, 1, -1]), origin=(5 + 19 * 0.7, 6, 7 + 5 * 2.5)), CT) == []


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (mask(origin=(0, 0, 0)), "10.5 mm off its CT (its origin is another)"),
        (mask(spacing=(1, 1, 1)), "its spacing is 1 x 1 x 1 mm, the CT's 0.7 x 0.8 x 2.5 mm"),
        (
            mask(direction=np.diag([-1, -1, 1])),
            "its origin is another, it runs the other way along x and y and was",
        ),
        (mask(direction=[[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]]), "(it is oblique)"),
    ],
)
def test_a_mask_that_does_not_meet_its_ct(other, words):
    (text,) = check_mask(other, CT)
    assert words in text and text.endswith("its lesions may be misplaced")


def test_reading_a_mask_tells_what_does_not_meet(tmp_path, caplog):
    labels = (HU > 200).astype(np.uint8)
    ct = VolumeGeometry(labels.shape[::-1], make_affine((0.7, 0.7, 2.5)))
    sound = write_volume(tmp_path / "sound.nii.gz", labels, make_affine((0.7, 0.7, 2.5)))
    texts = []
    np.testing.assert_array_equal(read_mask(sound, ct, texts.append), labels)
    assert texts == []  # a mask is no CT: its values are not looked at
    moved = write_volume(tmp_path / "moved.nii.gz", labels, make_affine((0.7, 0.7, 2.5), origin=(0, 0, 60)))
    np.testing.assert_array_equal(read_mask(moved, ct, texts.append), labels)
    assert len(texts) == 1 and "60 mm off" in texts[0] and not caplog.messages
    read_mask(moved, ct)
    assert f"{moved}: {texts[0]}" in caplog.messages


@pytest.mark.parametrize(("degrees", "told"), [(0, False), (8, False), (31, True)])
def test_an_oblique_scan_is_told(degrees, told):
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    affine = [[cosine, 0, sine, 0], [0, -1, 0, 0], [-sine, 0, cosine, 0], [0, 0, 0, 1]]
    warnings = check_orientation(VolumeGeometry((40, 40, 20), affine))
    assert len(warnings) == told and all(f"up to {degrees}° off" in text for text in warnings)

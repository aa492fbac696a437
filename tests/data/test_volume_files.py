"""Volume files of every kind and version: read as SimpleITK and nibabel mean them, or refused in a line."""

import bz2
import gzip
import signal
import tempfile
import tracemalloc
import zlib

import nibabel as nib
import numpy as np
import psutil
import pytest
import SimpleITK as sitk
from helpers.scan_files import make_affine, write_volume

from lens_d2.data.sources import sitk_file
from lens_d2.data.volume import read_header, read_volume
from lens_d2.io import memory
from lens_d2.io.errors import DataError

SPACING, ORIGIN = (0.7, 0.8, 2.5), (-100.0, 50.0, -300.0)
AFFINE = make_affine(SPACING, origin=ORIGIN)
RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
OBLIQUE = [[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]]
INTEGERS = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]
NAMES = {"i1": "int8", "u1": "uchar", "i2": "short", "u2": "ushort", "i4": "int", "u4": "uint"}
NAMES |= {"i8": "longlong", "u8": "ulonglong", "f4": "float", "f8": "double"}
ELEMENTS = {"i1": "CHAR", "u1": "UCHAR", "i2": "SHORT", "u2": "USHORT", "i4": "INT", "u4": "UINT"}
ELEMENTS |= {"i8": "LONG_LONG", "u8": "ULONG_LONG", "f4": "FLOAT", "f8": "DOUBLE"}


def ct(seed=0, shape=(6, 9, 11)):
    """(k, j, i) HU of noise that no check takes for anything else than CT."""
    rng = np.random.default_rng(seed)
    hu = np.where(rng.random(shape) < 0.5, -1000, 40) + rng.normal(0, 20, shape)
    return hu.clip(-1024).astype(np.int16)


def fault(source, **options) -> str:
    with pytest.raises(DataError) as caught:
        read_volume(source, **options)
    assert "\n" not in str(caught.value)
    return caught.value.fault


def warned(path) -> str:
    return "; ".join(read_volume(path).warnings)


def metaimage(path, data, dtype="<i2", size=(11, 9, 6), file="LOCAL", **fields):
    """A MetaImage with the bytes of its voxels behind its header, or none there."""
    header = {
        "ObjectType": "Image", "NDims": 3, "BinaryData": True, "BinaryDataByteOrderMSB": dtype[0] == ">",
        "CompressedData": False, "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": " ".join(map(str, ORIGIN)),
        "ElementSpacing": " ".join(map(str, SPACING)), "DimSize": " ".join(map(str, size)),
        "ElementType": f"MET_{ELEMENTS[dtype[1:]]}",
    } | fields  # fmt: skip
    lines = [f"{key} = {value}" for key, value in header.items() if value is not None]
    text = "\n".join([*lines, f"ElementDataFile = {file}", ""])
    path.write_bytes(text.encode() + (data if file == "LOCAL" else b""))
    return path


def nrrd(path, data, dtype="<i2", size=(11, 9, 6), **fields):
    header = {
        "type": NAMES[dtype[1:]], "dimension": 3, "space": "left-posterior-superior",
        "sizes": " ".join(map(str, size)), "space directions": "(0.7,0,0) (0,0.8,0) (0,0,2.5)",
        "endian": "little" if dtype[0] == "<" else "big", "encoding": "raw",
        "space origin": "(-100,50,-300)",
    } | {key.replace("_", " "): value for key, value in fields.items()}  # fmt: skip
    text = "\n".join(["NRRD0004", *(f"{key}: {value}" for key, value in header.items() if value is not None)])
    path.write_bytes(text.encode() + b"\n\n" + data)
    return path


def nifti(path, array=None, affine=AFFINE, kind=nib.Nifti1Image, dtype=None, sform=1, qform=1, **header):
    """A NIfTI file by nibabel of (k, j, i) voxels; further fields of the header are overwritten."""
    array = ct() if array is None else array
    image = kind(array.T, RAS @ affine, dtype=dtype)
    image.set_sform(RAS @ affine, sform)
    if qform is not None:
        image.set_qform(RAS @ affine, qform)
    nib.save(image, path)
    if header:
        data = bytearray(path.read_bytes())
        fields = image.header_class.template_dtype.fields
        for key, value in header.items():
            field, offset = fields[key][:2]
            data[offset : offset + field.itemsize] = (
                np.asarray(value, field.base).tobytes().ljust(field.itemsize, b"\0")
            )
        path.write_bytes(data)
    return path


def same(path, array, affine=AFFINE):
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.geometry.affine, affine, rtol=1e-5, atol=1e-4)
    assert volume.geometry == read_header(path)
    return volume


# Sound files


@pytest.mark.parametrize("extension", ["nii", "nii.gz", "mha", "mhd", "nrrd", "nhdr"])
@pytest.mark.parametrize("direction", [np.eye(3), np.diag([-1, -1, 1]), OBLIQUE])
@pytest.mark.parametrize("compressed", [False, True])
def test_as_simpleitk_reads_them(extension, direction, compressed, tmp_path):
    affine = make_affine(SPACING, direction, ORIGIN)
    path = write_volume(tmp_path / f"ct.{extension}", ct(), affine)
    sitk.WriteImage(sitk.ReadImage(str(path)), str(path), compressed)
    assert same(path, ct(), affine).warnings == ()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("code", [*INTEGERS, "f4", "f8"])
def test_types_and_byte_orders(code, order, tmp_path):
    stored = ct().clip(0 if code[0] == "u" else -127, 127).astype(order + code)
    for path in (
        metaimage(tmp_path / "ct.mha", stored.tobytes(), order + code),
        nrrd(tmp_path / "ct.nrrd", stored.tobytes(), order + code),
        nifti(tmp_path / "ct.nii", stored, dtype=stored.dtype),
    ):
        same(path, stored.astype(np.int16))


@pytest.mark.parametrize("encoding", ["raw", "gzip", "gz", "bzip2", "bz2", "ascii", "text", "txt"])
def test_encodings_of_nrrd(encoding, tmp_path):
    text = " ".join(map(str, ct().ravel())).encode()
    pack = {"g": gzip.compress, "b": bz2.compress, "r": bytes}.get(encoding[0])
    same(nrrd(tmp_path / "ct.nrrd", pack(ct().tobytes()) if pack else text, encoding=encoding), ct())


def test_text_of_metaimage(tmp_path):
    text = "\n".join(map(str, ct().ravel())).encode()
    same(metaimage(tmp_path / "ct.mha", text, BinaryData=False), ct())


def test_several_members_of_gzip_are_one_stream(tmp_path):
    data = nifti(tmp_path / "ct.nii").read_bytes()
    (tmp_path / "ct.nii.gz").write_bytes(gzip.compress(data[:500]) + gzip.compress(data[500:]))
    same(tmp_path / "ct.nii.gz", ct())


def test_compression_shows_in_the_content(tmp_path):
    data = nifti(tmp_path / "ct.nii").read_bytes()
    (tmp_path / "plain.nii.gz").write_bytes(data)
    (tmp_path / "packed.nii").write_bytes(gzip.compress(data))
    same(tmp_path / "plain.nii.gz", ct())
    same(tmp_path / "packed.nii", ct())


@pytest.mark.parametrize("value", ["LIST", "slice%02d.raw 1 6 1", "slice%02d.raw 1 6"])
def test_one_file_a_slice(value, tmp_path):
    for number, picture in enumerate(ct(), 1):
        (tmp_path / f"slice{number:02d}.raw").write_bytes(picture.tobytes())
    path = metaimage(tmp_path / "ct.mhd", b"", file=value)
    header = nrrd(tmp_path / "ct.nhdr", b"", data_file=value)
    names = "\n".join(f"slice{number:02d}.raw" for number in range(1, 7)) + "\n"
    if value == "LIST":
        path.write_text(path.read_text() + names)
        header.write_text(header.read_text().rstrip() + "\n" + names)
    same(path, ct())
    same(header, ct())
    (tmp_path / "slice04.raw").unlink()
    assert fault(path) == fault(header) == "its data file slice04.raw is missing"


def test_voxels_behind_something_else(tmp_path):
    data = ct().tobytes()
    same(metaimage(tmp_path / "ct.mha", b"12345" + data, HeaderSize=-1), ct())
    same(metaimage(tmp_path / "ct.mha", b"12345" + data, HeaderSize=5), ct())
    same(nrrd(tmp_path / "ct.nrrd", b"12345" + data, byte_skip=-1), ct())
    same(nrrd(tmp_path / "ct.nrrd", b"a line\n345" + data, line_skip=1, byte_skip=3), ct())
    same(nrrd(tmp_path / "ct.nrrd", gzip.compress(b"345" + data), encoding="gzip", byte_skip=3), ct())


def test_spaces_of_nrrd(tmp_path):
    for space, signs in {"RAS": (-1, -1, 1), "left-anterior-superior": (1, -1, 1), "LPS": (1, 1, 1)}.items():
        volume = read_volume(nrrd(tmp_path / "ct.nrrd", ct().tobytes(), space=space))
        np.testing.assert_allclose(volume.geometry.affine, np.diag([*signs, 1]) @ AFFINE)
        assert volume.warnings == ()
    np.testing.assert_allclose(sitk_affine(nrrd(tmp_path / "ras.nrrd", ct().tobytes(), space="RAS")), RAS @ AFFINE)


def sitk_affine(path):
    image = sitk.ReadImage(str(path))
    return make_affine(image.GetSpacing(), np.reshape(image.GetDirection(), (3, 3)), image.GetOrigin())


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


def test_slope_and_intercept_as_nibabel_applies_them(tmp_path):
    stored = (ct() + 1024).astype(np.uint16)
    path = nifti(tmp_path / "ct.nii", stored, scl_slope=1, scl_inter=-1024)
    assert same(path, ct()).warnings == ()
    half = nifti(tmp_path / "half.nii", (stored * 2).astype(np.uint16), scl_slope=0.5, scl_inter=-1024)
    same(half, ct())
    np.testing.assert_allclose(np.asanyarray(nib.load(half).dataobj).T, ct())
    same(nifti(tmp_path / "none.nii", scl_slope=0, scl_inter=7), ct())
    large = nifti(tmp_path / "large.nii", scl_slope=1000, scl_inter=0)
    same(large, (ct() * 1000.0).clip(-32768, 32767).astype(np.int16))
    assert "slope and intercept" in fault(nifti(tmp_path / "nan.nii", scl_slope=1, scl_inter=np.nan))


def test_one_volume_of_four_dimensions(tmp_path):
    same(nifti(tmp_path / "ct.nii", ct()[None]), ct())
    assert "4 dimensions (11 x 9 x 6 x 2)" in fault(nifti(tmp_path / "two.nii", np.stack([ct(), ct()])))


def test_memory_is_one_int16_copy(tmp_path):
    array = ct(shape=(64, 256, 256))
    image = sitk.GetImageFromArray(array.astype(np.float32))
    for name in ("ct.nii.gz", "ct.mha", "ct.nrrd"):
        sitk.WriteImage(image, str(tmp_path / name), True, compressionLevel=1)
        tracemalloc.start()
        volume = read_volume(tmp_path / name)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < array.nbytes + (28 << 20), (
            name
        )  # pieces of a megabyte, in float64, and a sample of the values
        np.testing.assert_array_equal(volume.array, array)


# What is told


def test_nifti_without_a_place(tmp_path):
    path = nifti(tmp_path / "ct.nii", sform=0, qform=0)
    assert "position and orientation unknown (qform and sform code 0)" in warned(path)
    np.testing.assert_allclose(read_volume(path).geometry.affine, sitk_affine(path), rtol=1e-6)


def test_nifti_forms_that_differ(tmp_path):
    path = nifti(tmp_path / "ct.nii", qoffset_x=90)
    assert warned(path) == "its qform and sform place the voxels up to 10 mm apart: the sform is used"
    np.testing.assert_allclose(read_volume(path).geometry.affine, AFFINE, rtol=1e-6)
    assert warned(nifti(tmp_path / "ct.nii", qoffset_x=90, sform=0)) == ""
    assert "qform makes no sense" in warned(nifti(tmp_path / "ct.nii", quatern_b=3))
    assert "spacing twice, as 7 x 0.8 x 2.5 and as 0.7 x 0.8 x 2.5" in warned(
        nifti(tmp_path / "ct.nii", pixdim=[1, 7, 0.8, 2.5], qform=0)
    )


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


def test_axes_of_metaimage_that_are_no_unit_vectors(tmp_path):
    """They multiply the spacing, in SimpleITK as well."""
    path = metaimage(tmp_path / "ct.mha", ct().tobytes(), TransformMatrix="1 0 0 0 1 0 0 0 2")
    assert "axes of the lengths 1, 1, 2 (TransformMatrix)" in warned(path)
    np.testing.assert_allclose(read_volume(path).geometry.affine, sitk_affine(path))


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


def test_text_headers_without_a_place(tmp_path):
    data = ct().tobytes()
    assert "neither position nor orientation" in warned(
        metaimage(tmp_path / "ct.mha", data, Offset=None, TransformMatrix=None)
    )
    assert "no position (Offset)" in warned(metaimage(tmp_path / "ct.mha", data, Offset=None))
    assert "no orientation (TransformMatrix)" in warned(metaimage(tmp_path / "ct.mha", data, TransformMatrix=None))
    assert "no position (space origin)" in warned(nrrd(tmp_path / "ct.nrrd", data, space_origin=None))
    plain = nrrd(tmp_path / "ct.nrrd", data, space=None, space_directions=None, spacings="0.7 0.8 2.5")
    assert "no orientation (space: none)" in warned(plain)
    assert "space: scanner-xyz" in warned(nrrd(tmp_path / "ct.nrrd", data, space="scanner-xyz"))


# What is refused


def test_another_modality(tmp_path):
    data = ct().tobytes()
    says = "its header says that it is MR; only CT is read"
    assert fault(metaimage(tmp_path / "ct.mha", data, Modality="MET_MOD_MR")) == says
    assert fault(metaimage(tmp_path / "ct.mha", data, **{"0008|0060": "MR"})) == says
    path = nrrd(tmp_path / "ct.nrrd", data)
    path.write_bytes(path.read_bytes().replace(b"\ntype", b"\nmodality:=MR\ntype"))
    assert fault(path) == says
    same(metaimage(tmp_path / "ct.mha", data, Modality="MET_MOD_CT"), ct())


@pytest.mark.parametrize(
    "name", ["ct.nii", "ct.nii.gz", "ct.mha", "ct.mhd", "packed.mha", "ct.nrrd", "packed.nrrd"]
)
def test_more_or_fewer_bytes_than_the_header_promises(name, tmp_path):
    path = write_volume(tmp_path / name, ct(), AFFINE)
    if name.startswith("packed"):
        sitk.WriteImage(sitk.ReadImage(str(path)), str(path), True)
    file = path.with_suffix(".raw") if name == "ct.mhd" else path
    data = file.read_bytes()
    for part in (data[:-1], data[:-100]):
        file.write_bytes(part)
        assert "truncated" in fault(path)
    for more in (b"x", b"\0" * 1000):
        file.write_bytes(data + more)
        assert "more" in fault(path) or "too long" in fault(path)
    file.write_bytes(data)
    same(path, ct())


@pytest.mark.parametrize("name", ["ct.nii.gz", "ct.mha", "ct.nrrd"])
def test_a_stream_of_other_length_or_with_a_wrong_checksum(name, tmp_path):
    """The unpacked voxels are what counts, not that the stream ends in order."""

    def packed(data):
        if name == "ct.mha":
            stream = zlib.compress(data)
            return metaimage(tmp_path / name, stream, CompressedData=True, CompressedDataSize=len(stream))
        if name == "ct.nrrd":
            return nrrd(tmp_path / name, gzip.compress(data), encoding="gzip")
        header = nifti(tmp_path / "ct.nii").read_bytes()[:352]
        (tmp_path / name).write_bytes(gzip.compress(header + data))
        return tmp_path / name

    data = ct().tobytes()
    same(packed(data), ct())
    assert "truncated: 593 of the 594 voxels" in fault(packed(data[:-2]))
    assert "1 bytes more than the 594 voxels" in fault(packed(data + b"x"))
    assert "more than the 594 voxels" in fault(packed(data + bytes(3)))
    path = packed(data)
    stream = bytearray(path.read_bytes())
    stream[-6 if name != "ct.mha" else -2] ^= 1  # in CRC32 or Adler-32
    path.write_bytes(stream)
    assert "truncated or damaged, cannot be unpacked" in fault(path)


def test_colours_and_complex_numbers(tmp_path):
    rgb = np.zeros((6, 9, 11), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert "voxels of type RGB" in fault(nifti(tmp_path / "ct.nii", rgb))
    assert "voxels of type complex64" in fault(nifti(tmp_path / "ct.nii", ct().astype(np.complex64)))
    assert "voxels of type MET_STRING" in fault(metaimage(tmp_path / "ct.mha", b"", ElementType="MET_STRING"))
    assert "an axis of kind 'vector'" in fault(nrrd(tmp_path / "ct.nrrd", b"", kinds="vector domain domain"))


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


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"DimSize": "11 9 x"}, "DimSize in its header is '11 9 x', not 3 whole numbers"),
        ({"DimSize": "11 9 0"}, "a size of 11 x 9 x 0 voxels"),
        ({"DimSize": None}, "no DimSize in its header"),
        ({"ElementSpacing": None}, "no ElementSpacing in its header"),
        ({"ElementSpacing": "0.7 0.8"}, "not 3 numbers"),
        ({"ElementSpacing": "0.7 0.8 1_0"}, "not 3 numbers"),
        ({"CompressedData": "perhaps"}, "not True or False"),
        ({"HeaderSize": -7}, "a HeaderSize of -7"),
        ({"ElementType": "MET_SHORTS"}, "voxels of type MET_SHORTS"),
        ({"Comment": "\0\1"}, "bytes that are no text"),
        ({"Comment": "x" * (1 << 20)}, "does not end within 1 MB"),
        ({"Modality\nDimSize": "CT"}, "not 'key = value'"),
    ],
)
def test_senseless_metaimage_headers(fields, says, tmp_path):
    assert says in fault(metaimage(tmp_path / "ct.mha", ct().tobytes(), **fields))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"sizes": "11 9"}, "not 3 whole numbers"),
        ({"sizes": "11 9 -6"}, "a size of 11 x 9 x -6 voxels"),
        ({"endian": None}, "no endian in its header"),
        ({"endian": "middle"}, "its endian is 'middle'"),
        ({"encoding": "hex"}, "its encoding is 'hex'"),
        ({"type": "block"}, "voxels of type 'block'"),
        ({"space_directions": None}, "no space directions and no spacings"),
        ({"space_directions": "(1,0,0) (0,1,0)"}, "not 3 vectors"),
        ({"space_origin": "(1,2)"}, "not 3 numbers"),
        ({"byte_skip": "-2"}, "a byte skip of -2"),
        ({"sixes": "11 9 6"}, "no field"),
        ({"dimension": "4"}, "4 dimensions where a volume has 3"),
    ],
)
def test_senseless_nrrd_headers(fields, says, tmp_path):
    assert says in fault(nrrd(tmp_path / "ct.nrrd", ct().tobytes(), **fields))


# Memory


def test_a_volume_is_weighed_before_it_is_read(tmp_path, monkeypatch):
    path = nifti(tmp_path / "ct.nii")
    monkeypatch.setattr(memory, "available_memory", lambda: 5 * 10**9)
    same(path, ct())
    swollen = nifti(tmp_path / "swollen.nii", dim=[3, 2048, 2048, 1000])
    assert fault(swollen) == "4,194,304,000 voxels need 8.7 GB of memory, 5.0 GB are free"
    turned = make_affine(SPACING, [[0, 0, 1], [1, 0, 0], [0, 1, 0]])  # a second copy, with the axes in order
    huge = nifti(tmp_path / "turned.nii", affine=turned, dim=[3, 1024, 1024, 2000])
    assert "2,097,152,000 voxels need 8.7 GB" in fault(huge)
    assert read_header(swollen).size == (2048, 2048, 1000)


# Other formats, by a process of their own


@pytest.fixture
def gipl(tmp_path, monkeypatch):
    """A volume of a format that only SimpleITK reads; its temporary files go to a folder that is looked at."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    yield write_volume(tmp_path / "ct.gipl", ct(), AFFINE)
    assert not list((tmp_path / "tmp").iterdir())


def test_other_formats_are_read_with_a_warning(gipl, tmp_path):
    volume = read_volume(gipl)
    np.testing.assert_array_equal(volume.array, ct())
    np.testing.assert_allclose(volume.geometry.spacing, SPACING, rtol=1e-6)
    assert volume.warnings[0].startswith("a format whose voxels cannot be checked for damage")
    gipl.write_bytes(gipl.read_bytes()[:200])
    assert "not a readable volume" in fault(gipl)
    (tmp_path / "notes.txt").write_text("no volume")
    assert "not a readable volume (Unable to determine ImageIO reader" in fault(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})", "its reader ended with a segmentation fault"),
        ("import time; time.sleep(60)", "its reader has not come to an end within 2 s"),
        ("raise MemoryError('no room')", "its reader failed (MemoryError: no room)"),
        ("", "its reader failed"),
        ("print('{')", "its reader tells no header"),
        ("""print('{"size": [11, 9, 6], "components": 1, "spacing": [1, 1, 1], "origin": [0, 0, 0], '
                 '"direction": [1, 0, 0, 0, 1, 0, 0, 0, 1], "dtype": "<i2"}')""", "truncated: 0 of"),
    ],
)  # fmt: skip
def test_a_reader_that_dies_or_hangs_is_a_line(script, says, gipl, tmp_path, monkeypatch):
    (tmp_path / "reader.py").write_text(script)
    monkeypatch.setattr(sitk_file, "READER", tmp_path / "reader.py")
    monkeypatch.setattr(sitk_file, "TIMEOUT", 2.0)
    before = psutil.Process().children()
    assert says in fault(gipl)
    assert psutil.Process().children() == before


def test_the_reading_process_imports_no_more_than_it_needs():
    text = sitk_file.READER.read_text()
    assert "lens_d2" not in text

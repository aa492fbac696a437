"""Volume files written byte by byte, in sound and senseless ways."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from helpers.scan_files import make_affine
from lens_d2.data.volume import read_header, read_volume
from lens_d2.io.errors import DataError

SPACING, ORIGIN = (0.7, 0.8, 2.5), (-100.0, 50.0, -300.0)
AFFINE = make_affine(SPACING, origin=ORIGIN)
RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
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


def sitk_affine(path):
    image = sitk.ReadImage(str(path))
    return make_affine(image.GetSpacing(), np.reshape(image.GetDirection(), (3, 3)), image.GetOrigin())

"""Streams of voxels: types, lengths, checksums, memory."""

import gzip
import tracemalloc
import zlib

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.scan_files import write_volume
from helpers.volume_files import AFFINE, ct, fault, metaimage, nifti, nrrd, same

from lens_d2.data.volume import read_volume

INTEGERS = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]


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


def test_several_members_of_gzip_are_one_stream(tmp_path):
    data = nifti(tmp_path / "ct.nii").read_bytes()
    (tmp_path / "ct.nii.gz").write_bytes(gzip.compress(data[:500]) + gzip.compress(data[500:]))
    same(tmp_path / "ct.nii.gz", ct())


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

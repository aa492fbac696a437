"""Text headers: the files of voxels that they name, and what they leave unsaid."""

import gzip

import pytest
from helpers.volume_files import ct, fault, metaimage, nrrd, same, warned


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
    assert "space: unknown" in warned(nrrd(tmp_path / "ct.nrrd", data, space="Doe-Jane"))
    assert "space: scanner-xyz" in warned(nrrd(tmp_path / "ct.nrrd", data, space="scanner-xyz"))


def test_another_modality(tmp_path):
    data = ct().tobytes()
    says = "its header says that it is MR; only CT is read"
    assert fault(metaimage(tmp_path / "ct.mha", data, Modality="MET_MOD_MR")) == says
    assert fault(metaimage(tmp_path / "ct.mha", data, **{"0008|0060": "MR"})) == says
    path = nrrd(tmp_path / "ct.nrrd", data)
    path.write_bytes(path.read_bytes().replace(b"\ntype", b"\nmodality:=MR\ntype"))
    assert fault(path) == says
    same(metaimage(tmp_path / "ct.mha", data, Modality="MET_MOD_CT"), ct())

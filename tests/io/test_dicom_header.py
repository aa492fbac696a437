"""DICOM files are recognised by their first bytes, and a damaged header is one line without its content."""

import os

import numpy as np
import pytest
from helpers.scan_files import make_affine, write_series

from lens_d2.io.dicom_header import looks_like_dicom, read_dicom_header
from lens_d2.io.errors import DataError


@pytest.fixture
def file(tmp_path):
    slices = np.zeros((2, 4, 5), np.int16)
    folder = write_series(tmp_path / "series", slices, make_affine((1, 1, 2)), "1.2.3", PatientName="Doe^Jane")
    return sorted(folder.iterdir())[0]


def test_a_file_with_or_without_preamble(file, tmp_path):
    bare = tmp_path / "bare.dcm"
    bare.write_bytes(file.read_bytes()[132:])
    for path in (file, bare):
        assert looks_like_dicom(path)
        assert read_dicom_header(path, ("Rows", "Absent")).Rows == 4


def test_other_files_and_pipes_are_none(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG" * 50)
    os.mkfifo(tmp_path / "pipe")
    assert not any(looks_like_dicom(tmp_path / name) for name in ("a.png", "pipe", "absent"))


def test_a_damaged_header_tells_nothing_of_the_patient(file):
    rows = b"\x28\x00\x10\x00US\x02\x00"
    sound = file.read_bytes()
    assert rows in sound
    for content in (sound.replace(rows, rows[:-2] + b"\x01\x00"), b"a letter to Doe"):
        file.write_bytes(content)
        with pytest.raises(DataError) as error:
            read_dicom_header(file, ("PatientName", "Rows"))
        assert str(file) in str(error.value) and "Doe" not in str(error.value) and "\n" not in str(error.value)

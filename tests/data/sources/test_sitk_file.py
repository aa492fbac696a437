"""Other formats, by a process of their own."""

import signal
import tempfile

import numpy as np
import psutil
import pytest
from helpers.scan_files import write_volume
from helpers.volume_files import AFFINE, SPACING, ct, fault

from lens_d2.data.sources import sitk_file
from lens_d2.data.volume import read_volume


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
    assert any(text.startswith("a format whose voxels cannot be checked for damage") for text in volume.warnings)
    gipl.write_bytes(gipl.read_bytes()[:200])
    assert "not a readable volume" in fault(gipl)
    (tmp_path / "notes.txt").write_text("no volume")
    assert "not a readable volume (in no format that is read, or damaged; archives" in fault(
        tmp_path / "notes.txt"
    )


@pytest.mark.parametrize("name", ["ct.gipl", "ct.gipl.gz", "ct.vtk", "ct.mrc"])
def test_formats_without_an_orientation_are_told(name, tmp_path):
    """They hold no direction, so that a scan stored from right to left would be read mirrored without a word."""
    warnings = read_volume(write_volume(tmp_path / name, ct(), AFFINE)).warnings
    assert any("leaves the orientation unknown: left and right may be swapped" in text for text in warnings)


def test_formats_with_an_orientation_are_read_by_it(tmp_path):
    volume = read_volume(write_volume(tmp_path / "ct.hdf5", ct(), AFFINE))
    np.testing.assert_array_equal(volume.array, ct())
    assert not any("swapped" in text for text in volume.warnings)


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


def test_pictures_have_no_slice_interval(tmp_path):
    path = write_volume(tmp_path / "ct.tif", ct(), AFFINE)
    assert "TIFF tells no slice interval, position or orientation: convert the scan to NIfTI" in fault(path)

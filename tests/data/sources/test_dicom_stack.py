"""Places of slices: in a regular stack, or refused in a line."""

import numpy as np
import pytest
from helpers.dicom_checks import AFFINE, SHAPE, check, fault, leave_out, move
from helpers.scan_files import make_affine, write_enhanced, write_series

from lens_d2.data.checks import check_orientation
from lens_d2.data.sources import open_source
from lens_d2.data.volume import read_volume


@pytest.mark.parametrize(
    "direction",
    [
        np.diag([-1, -1, 1]),  # rows to the right, columns to the front
        np.diag([1, -1, -1]),
        [[0, 0, 1], [1, 0, 0], [0, -1, 0]],  # sagittal, rows to the back, columns to the feet
        [[1, 0, 0], [0, 0, 1], [0, -1, 0]],  # coronal
        [[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]],
    ],
)
def test_orientations(tmp_path, hu, direction):
    """A series that runs against its normal, such as towards the feet, is turned; every voxel keeps its place."""
    affine = make_affine((0.7, 0.8, 2.5), direction, (-100, 50, -300))
    volume = read_volume(write_series(tmp_path / "ct", hu, affine))
    for k, j, i in np.random.default_rng(0).integers(0, SHAPE, (20, 3)):
        x, y, z = np.rint(volume.geometry.world_to_index([affine[:3] @ [i, j, k, 1]])[0]).astype(int)
        assert volume.array[z, y, x] == hu[k, j, i]
    assert list(volume.warnings) == check_orientation(volume.geometry)


def test_gantry_tilt_shears_the_affine(tmp_path, hu):
    tilted = AFFINE.copy()
    tilted[1, 2] = 0.5
    folder = tmp_path / "ct"
    write_series(folder, hu, AFFINE, change=lambda k, data: move(data, (0, 0.5 * k, 0)))
    check(folder, hu, tilted, "its axes stand 11.3 degrees off the right angle")


def test_a_slice_that_is_shifted(tmp_path, hu):
    def aside(distance, axis):
        return lambda k, data: move(data, distance * (k == 3) * np.eye(3)[axis])

    folder = write_series(tmp_path / "far", hu, AFFINE, change=aside(4, 0))
    assert "lies 4 mm off its place in a regular stack of 2.5 mm" in fault(folder)
    assert "lies 0.6 mm off" in fault(write_series(tmp_path / "up", hu, AFFINE, change=aside(0.6, 2)))
    folder = write_series(tmp_path / "near", hu, AFFINE, change=aside(0.2, 2))
    check(folder, hu, warning="up to 0.2 mm off a regular interval of 2.5 mm")


def test_the_interval_that_is_told_is_the_one_in_use(tmp_path, hu):
    """Intervals of 2.75 and 2.25 mm by turns: their median is neither the mean nor the spacing."""
    folder = write_series(
        tmp_path / "ct", hu, AFFINE, change=lambda k, data: move(data, 0.25 * (k % 2) * np.eye(3)[2])
    )
    volume = read_volume({"file_name": str(folder), "volume": "scan"})
    (told,) = [text for text in volume.warnings if "regular" in text]
    assert f"interval of {volume.geometry.slice_interval:.4g} mm" in told


def test_intervals_that_drift(tmp_path, hu):
    """Every interval is within a tenth of the others, but the slices wander off a regular stack."""
    array = np.repeat(hu, 4, axis=0)
    heights = np.cumsum([0, *[2.5] * 13, *[2.7] * 14])

    def drift(k, data):
        data.ImagePositionPatient = [-100, 50, f"{heights[k]:.6f}"]

    assert "off its place in a regular stack" in fault(write_series(tmp_path / "ct", array, AFFINE, change=drift))


@pytest.mark.parametrize("interval, decimals", [(2.5, 0), (1.25, 1), (0.625, 2), (1, 0), (1 / 3, 2)])
def test_rounded_positions(tmp_path, hu, interval, decimals):
    """Positions are as exact as they are written: 1.25 mm written as 1.2 and 1.3 are regular, without a word."""

    def rounded(k, data):
        data.ImagePositionPatient = [-100, 50, f"{-300 + k * interval:.{decimals}f}"]

    volume = read_volume(write_series(tmp_path / "ct", hu, AFFINE, change=rounded))
    np.testing.assert_array_equal(volume.array, hu)
    assert volume.geometry.slice_interval == pytest.approx(interval, abs=10.0**-decimals / len(hu))
    assert volume.warnings == ()


def test_half_a_millimetre_written_in_whole_ones(tmp_path, hu):
    def rounded(k, data):
        data.ImagePositionPatient = [-100, 50, k // 2]

    assert "lies where" in fault(write_series(tmp_path / "ct", hu, AFFINE, change=rounded))


def test_a_gap_hides_behind_no_rounding(tmp_path, hu):
    def whole(k, data):
        data.ImagePositionPatient = [-100, 50, k]
        return k != 3

    assert "1 slice is missing" in fault(write_series(tmp_path / "ct", hu, AFFINE, change=whole))


@pytest.mark.parametrize("gap", [[3], [2, 3], [1, 4, 5]])
def test_gaps_are_refused_or_interpolated(tmp_path, hu, gap):
    hu = np.repeat(hu, 2, axis=0)
    folder = write_series(tmp_path / "ct", hu, AFFINE, change=leave_out(*gap))
    message = fault(folder)
    assert message.startswith(f"{folder}: irregular slice spacing: ") and "2.5 mm elsewhere" in message
    assert "--fill-gaps interpolates up to 2 in a row" in message
    expected = hu.astype(float)
    for k in gap:
        below, above = (next(n for n in run if n not in gap) for run in (range(k, -1, -1), range(k, len(hu))))
        expected[k] = hu[below] + (k - below) / (above - below) * (hu[above].astype(float) - hu[below])
    plural = "slice is" if len(gap) == 1 else "slices are"
    check(folder, np.rint(expected), warning=f"{len(gap)} {plural} missing between", fill_gaps=True)
    assert open_source({"file_name": folder, "fill_gaps": True}).slice_files() == []


def test_of_two_intervals_the_smaller_is_that_of_the_scan(tmp_path, hu):
    heights = (10, 11, 14)

    def uneven(k, data):
        data.ImagePositionPatient = [-100, 50, 3 * heights[k]]

    folder = write_series(tmp_path / "ct", hu[:3], AFFINE, change=uneven)
    message = fault(folder)
    assert "9 mm from" in message and "3 mm elsewhere; 2 slices are missing (--fill-gaps" in message


def test_a_wide_gap_is_always_refused(tmp_path, hu):
    folder = write_series(tmp_path / "ct", np.repeat(hu, 2, axis=0), AFFINE, change=leave_out(5, 6, 7))
    assert "10 mm from" in fault(folder) and "3 slices are missing (more than 2" in fault(folder, fill_gaps=True)


def test_frames_with_a_gap_or_shifted_sideways(tmp_path, hu):
    path = write_enhanced(tmp_path / "gap.dcm", hu, AFFINE, [0, 1, 4, 5, 6])
    assert "7.5 mm from frame 2 of gap.dcm to frame 3 of gap.dcm" in fault(path)

    def aside(k, frame):
        if k == 3:
            frame.PlanePositionSequence[0].ImagePositionPatient[0] += 5

    path = write_enhanced(tmp_path / "aside.dcm", hu, AFFINE, change=aside)
    assert "frame 4 of aside.dcm lies 5 mm off its place" in fault(path)

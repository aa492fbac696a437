"""Places of boxes in the body."""

import numpy as np
import pytest
from helpers.scan_files import make_affine, write_volume

from lens_d2.data import body_places
from lens_d2.data.body_places import HEIGHT_OF_MM, BodyPlaces, body_extent
from lens_d2.data.cache import VolumeCache
from lens_d2.data.same_lesions import PLACE_SPREAD
from lens_d2.structures.records import make_lesion, make_record

SLICES, INTERVAL = 12, 5.0
X1, X2, Y1, Y2 = 20, 100, 30, 70  # the body, in pixels of 2 mm


def picture(x1=X1, x2=X2, y1=Y1, y2=Y2):
    """A body on a table, a thin line below it, beside an arm."""
    hu = np.full((90, 120), -1000, np.int16)
    hu[y1:y2, x1:x2], hu[80, 5:115], hu[40:60, 108:116] = 40, 200, 40
    return hu


def place_of(box, height):
    return [((box[0] + box[2]) / 2 - X1) / (X2 - X1), ((box[1] + box[3]) / 2 - Y1) / (Y2 - Y1), height]


@pytest.fixture
def scan(tmp_path):
    """scan(marks, series, flip) is a record of a file; marks are (row, slice, box), slices from the feet."""

    def write(*marks, series="000001_01_01", flip=False, array=None):
        array = np.stack([picture()] * SLICES) if array is None else array
        path = tmp_path / f"{series}.nii.gz"
        affine = make_affine((2.0, 2.0, INTERVAL))
        if flip:  # slices from the head, rows from the back
            array, affine = array[::-1, ::-1], affine @ np.diag([1, -1, -1, 1])
            marks = [(row, SLICES - 1 - z, [box[0], 90 - box[3], box[2], 90 - box[1]]) for row, z, box in marks]
        write_volume(path, array, affine)
        volume = f"{series}_001-{SLICES:03d}"
        lesions = [
            make_lesion(f"{volume}/{row}", [[z, *box]], key_slice=z, recist=[0.0] * 8) for row, z, box in marks
        ]
        return make_record(
            path, volume=volume, expert="deeplesion", patient=series[:6], study=series[:9], series=series,
            size=(120, 90, SLICES), spacing=(2.0, 2.0, INTERVAL), lesions=lesions,
        )  # fmt: skip

    return write


@pytest.fixture
def places(tmp_path):
    return lambda table: BodyPlaces(VolumeCache(tmp_path / "cache"), {k: np.array(v) for k, v in table.items()})


def test_the_body_is_the_largest_thing_and_no_table():
    assert body_extent(picture(), 2.0) == (X1, Y1, X2 - X1, Y2 - Y1)
    assert body_extent(np.full((9, 9), -1000, np.int16), 2.0) is None


@pytest.mark.parametrize("flip", [False, True])
def test_a_place_is_that_in_the_body_of_the_slice_however_the_file_runs(scan, places, flip):
    mark, other = [30, 40, 40, 50], [60.0, 34.0, 76.0, 44.0]
    record = scan((7, 4, mark), flip=flip)
    z, box = 9, other
    if flip:
        z, box = SLICES - 1 - 9, [other[0], 90 - other[3], other[2], 90 - other[1]]
    (place,) = places({7: [0.2, 0.4, 0.6]})(record, np.array([[z, *box]]))
    height = 0.6 + HEIGHT_OF_MM * 5 * INTERVAL
    np.testing.assert_allclose(place, place_of(other, height), atol=0.02)


def test_the_height_is_the_median_of_the_marks(scan, places):
    record = scan((0, 2, [30, 40, 40, 50]), (1, 4, [30, 40, 40, 50]), (2, 6, [30, 40, 40, 50]))
    heights = [0.5 + HEIGHT_OF_MM * INTERVAL * z for z in (2, 4, 6)]
    table = {row: [0.5, 0.5, height + (0.2 if row == 1 else 0)] for row, height in enumerate(heights)}
    (place,) = places(table)(record, np.array([[8, 30, 40, 40, 50.0]]))
    assert place[2] == pytest.approx(0.5 + HEIGHT_OF_MM * INTERVAL * 8)


def test_without_a_mark_of_known_place_or_a_body_there_is_none(scan, places):
    box = np.array([[4, 30, 40, 40, 50.0]])
    assert np.isnan(places({3: [0.5, 0.5, 0.5]})(scan(), box)).all()
    assert np.isnan(places({})(scan((7, 4, box[0, 1:])), box)).all()
    assert places({7: [0.5] * 3})(scan((7, 4, box[0, 1:])), np.zeros((0, 5))).shape == (0, 3)
    array = np.stack([picture()] * SLICES)
    array[6] = -1000
    record = scan((7, 4, box[0, 1:]), series="000001_02_01", array=array)
    found = places({7: [0.5] * 3})(record, np.array([[4, 30, 40, 40, 50.0], [6, 30, 40, 40, 50.0]]))
    assert np.isfinite(found[0]).all() and np.isnan(found[1, :2]).all()


def test_scale_and_spread_are_learnt_from_marks(scan, places, monkeypatch):
    """A tall patient: half the height for a mm. Lesions lie a pixel further right in the second series."""
    monkeypatch.setattr(body_places, "ENOUGH", 2)
    per_mm = HEIGHT_OF_MM / 2
    rows = [(0, 2, [30, 40, 40, 50]), (1, 9, [80, 50, 90, 60])]
    first = scan(*rows)
    second = scan(
        *((row + 2, z, np.add(box, [1, 0, 1, 0]).tolist()) for row, z, box in rows), series="000001_02_01"
    )
    table = {row + k: place_of(box, 0.5 + per_mm * INTERVAL * z) for k in (0, 2) for row, z, box in rows}
    own = places(table)
    own.fit([first, second])
    assert own.height_of_mm == pytest.approx(per_mm)
    np.testing.assert_allclose(own.spread, [1 / (X2 - X1), 0, 0], atol=2e-3)
    few = places(table)
    monkeypatch.setattr(body_places, "ENOUGH", 5)
    few.fit([first, second])
    assert few.height_of_mm == HEIGHT_OF_MM and few.spread.tolist() == PLACE_SPREAD.tolist()

"""Pictures show the lesion inside the box, the right way round and in the right window."""

import base64

import cv2
import numpy as np
import pytest

from lens_d2.visualization.pictures import PictureMaker


def pixels(picture) -> np.ndarray:
    data = base64.b64decode(picture.uri.removeprefix("data:image/jpeg;base64,"))
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert image.shape == (picture.height, picture.width)
    return image


def frame_pixels(picture, frame) -> list[float]:
    x, y = picture.width / 100, picture.height / 100
    return [frame.left * x, frame.top * y, (frame.left + frame.width) * x, (frame.top + frame.height) * y]


def bright_box(image: np.ndarray, around: list[float]) -> list[int]:
    """The bounding box of what is bright within 20 pixels of a box."""
    x1, y1, x2, y2 = (round(value) for value in around)
    mask = np.zeros_like(image, bool)
    window = slice(max(y1 - 20, 0), y2 + 20), slice(max(x1 - 20, 0), x2 + 20)
    mask[window] = image[window] > 200
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@pytest.mark.parametrize("grid", ["straight", "flipped", "feet first", "sagittal"])
def test_boxes_lie_on_the_lesions(make_scan, grid):
    """The lesions are blocks of 900 HU in soft tissue; half a voxel of 3 mm blurs their borders."""
    report = make_scan(grid).report()
    maker = PictureMaker(report.volume, report.detections)
    for index in (1, 2):  # the first one is a single voxel wide
        reformats = [maker.reformat(index, orientation, "bone") for orientation in ("coronal", "sagittal")]
        for picture in (maker.whole(index, "bone"), *reformats):
            (frame,) = picture.frames
            around = frame_pixels(picture, frame)
            blur = 2.5 * picture.scale / 100 * picture.width / 50
            np.testing.assert_allclose(bright_box(pixels(picture), around), around, atol=blur + 2)


def test_planes_are_shown_the_way_radiologists_expect(make_scan):
    """The third block lies to the left, in front and towards the head of the middle."""
    report = make_scan("flipped").report()
    maker = PictureMaker(report.volume, report.detections)
    overview = maker.projections()
    by_number = {frame.number: frame for frame in overview["coronal"].frames}
    worlds = {each.number: each.world_box for each in report.detections}
    left, right = max(worlds, key=lambda n: worlds[n][0]), min(worlds, key=lambda n: worlds[n][0])
    assert by_number[right].left < by_number[left].left  # the patient's right on the left
    high, low = max(worlds, key=lambda n: worlds[n][2]), min(worlds, key=lambda n: worlds[n][2])
    assert by_number[high].top < by_number[low].top
    by_number = {frame.number: frame for frame in overview["sagittal"].frames}
    front, back = min(worlds, key=lambda n: worlds[n][1]), max(worlds, key=lambda n: worlds[n][1])
    assert by_number[front].left < by_number[back].left
    assert [overview[plane].edges for plane in ("coronal", "sagittal")] == [tuple("RLHF"), tuple("APHF")]
    assert maker.whole(0, "bone").edges == tuple("RLAP")


def test_strip_shows_neighbours_and_boxes_only_where_the_detection_is(report):
    maker = PictureMaker(report.volume, report.detections)
    strips = {index: maker.strip(index, "bone") for index in (1, 2)}
    captions = [picture.caption for picture in strips[2]]  # slices 2 to 4 of 24
    assert captions == ["−9.0 mm", "−6.0 mm", "−3.0 mm", "key slice", "+3.0 mm", "+6.0 mm", "+9.0 mm"]
    assert [len(picture.frames) for picture in strips[2]] == [0, 0, 1, 1, 1, 0, 0]
    assert [len(picture.frames) for picture in strips[1]] == [0, 1, 1, 1, 1, 1]  # ends at slice 23


def test_beyond_the_scan_is_black_without_a_bright_rim(make_scan):
    """The second block reaches the highest slice; above it there is nothing to show."""
    report = make_scan().report()
    detection = report.detections[1]
    picture = PictureMaker(report.volume, report.detections).reformat(1, "coronal", "bone")
    image, (frame,) = pixels(picture), picture.frames
    top = round(frame.top * picture.height / 100)
    assert detection.slices[-1] == 23 and image[: top - 3].max() < 12
    beside = image[top + 2 : top + 12, : round((frame.left - 8) * picture.width / 100)]
    assert abs(beside[:4].mean() - beside[4:].mean()) < 4  # plain soft tissue up to the end


def test_scale_bar_is_as_long_as_it_says(report):
    picture = PictureMaker(report.volume, report.detections).whole(0, "bone")
    assert picture.scale * report.geometry.cache_shape[2] / 100 == pytest.approx(20, abs=0.1)  # pixels of 1 mm
    assert picture.scale_mm == 20  # 5 cm where the picture is wide enough

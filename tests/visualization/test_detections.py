"""Overlays of detections and lesions: which slices, which colours, odd records."""

import cv2
import numpy as np
from detectron2.utils import comm
from matplotlib.colors import to_rgb

from lens_d2.structures.detections import VolumeDetections
from lens_d2.structures.records import make_lesion
from lens_d2.visualization.detections import (
    FALSE_POSITIVE,
    FOUND,
    MISSED,
    RIGHT,
    OverlayWriter,
    _slices_worth_showing,
    hits,
)


def test_a_found_lesion_is_shown_where_its_detection_is():
    """Of slices 0 to 4 the detection is on 0 alone; the other lesion is missed."""
    truth = [
        np.array([[z, x, 5, x + 10, 15] for z in zs], dtype=float) for x, zs in ((10, range(5)), (50, range(6, 9)))
    ]
    found = VolumeDetections(
        np.array([[10.0, 5, 0, 20, 15, 0]]), np.array([0.9]), np.array([[0, 10, 5, 20, 15, 0.9]]), np.array([0])
    )
    for hit, slices in ((True, [0, 7]), (False, [0, 2, 7])):
        assert _slices_worth_showing(truth, found, np.array([0]), np.array([[hit, False]])) == slices


def test_a_detection_hits_the_lesion_that_holds_a_third_of_it():
    lesion = np.array([[10.0, 10, 5, 20, 20, 5]])
    found = np.array([[10.0, 10, 5, 20, 20, 5], [10, 10, 7, 20, 20, 7], [10, 10, 5, 50, 30, 5]])
    assert hits(found, lesion)[:, 0].tolist() == [True, False, False]
    assert hits(np.zeros((0, 6)), lesion).shape == (0, 1) and hits(lesion, np.zeros((0, 6))).shape == (1, 0)


def colors_in(path) -> set[str]:
    """The styles whose colours stand in a picture, apart from the legend at its foot."""
    image = cv2.imread(str(path))[..., ::-1]
    body = image[: -image.shape[0] // 6].astype(int)
    styles = {"found or right": FOUND, "missed": MISSED, "false positive": FALSE_POSITIVE}
    near = {
        name: np.abs(body - 255 * np.array(to_rgb(style.color))).max(axis=2) < 24 for name, style in styles.items()
    }
    return {name for name, where in near.items() if where.sum() > 20}


def test_found_missed_and_false_have_their_colours(scan, tmp_path):
    """Detection 0 is right, the others are not; "a" has a 3D box alone, and "b" is missed."""
    assert FOUND.color == RIGHT.color
    lesions = [make_lesion("a", box3d=scan.found.boxes[0]), make_lesion("b", [[4, 22, 3, 30, 9]])]
    record = {**scan.record, "volume": "v", "lesions": lesions, "num_slices": 24, "first_slice": 1}
    writer = OverlayWriter(scan.cache, tmp_path, count=1, fps=len(scan.found))
    writer.process([record, record], [{"detections": {"fused": scan.found}}] * 2)
    assert writer.evaluate() == {} and [path.name for path in tmp_path.iterdir()] == ["v.png"]
    assert colors_in(tmp_path / "v.png") == {"found or right", "missed", "false positive"}
    writer.reset()
    writer.process([record], [{"detections": {"fused": VolumeDetections()}}])
    writer.evaluate()
    assert colors_in(tmp_path / "v.png") == {"missed"}


def test_the_first_rank_draws_what_all_ranks_have_kept(scan, tmp_path, monkeypatch):
    """One picture of two that are kept, at the operating point of all sub-volumes."""
    lesions = [make_lesion("a", box3d=scan.found.boxes[0])]
    record = {**scan.record, "volume": "v", "lesions": lesions, "num_slices": 24, "first_slice": 1}
    other = ([np.full(len(scan.found) + 1, 0.999)], [({**record, "volume": "w"}, scan.found)])
    for gathered, names, seen in (([other], ["v.png"], {"missed"}), (None, [], None)):
        folder = tmp_path / str(gathered is None)
        writer = OverlayWriter(scan.cache, folder, count=1, fps=len(scan.found) / 2)
        writer.process([record], [{"detections": {"fused": scan.found}}])
        monkeypatch.setattr(comm, "gather", lambda own, more=gathered: [] if more is None else [own, *more])
        writer.evaluate()
        assert [path.name for path in folder.glob("*")] == names
        assert seen is None or colors_in(folder / "v.png") == seen


def test_detections_below_the_operating_point_are_not_drawn(scan, tmp_path):
    """With no false positive allowed, the best of them and all below it are left out."""
    lesions = [make_lesion("a", box3d=scan.found.boxes[0])]
    record = {**scan.record, "volume": "v", "lesions": lesions, "num_slices": 24, "first_slice": 1}
    writer = OverlayWriter(scan.cache, tmp_path, count=1, fps=0)
    writer.process([record], [{"detections": {"fused": scan.found}}])
    writer.evaluate()
    assert "false positive" not in colors_in(tmp_path / "v.png")

"""Tables with the columns of detections.csv."""

import numpy as np
import pytest
from helpers.foreign_boxes import AT_FPS, BOXES, GEOMETRY, LESIONS, SCORES, SENSITIVITY, table_text
from helpers.handmade_scan import make_scan, report, scan  # noqa: F401

from lens_d2.evaluation.readers import read_boxes
from lens_d2.export import CsvTable
from lens_d2.io.errors import DataError
from lens_d2.io.files import write_whole


@pytest.mark.parametrize("world", [False, True])
def test_froc_by_hand(evaluate, write, world):
    truth, found = table_text(LESIONS, None, world), table_text(BOXES, SCORES, world)
    words = ["--protocol", "lens3d", "--ground-truth", write("truth.csv", truth), *AT_FPS]
    status, metrics, error = evaluate(*words, "--predictions", write("found.csv", found))
    assert status == 0 and metrics["sensitivity"] == SENSITIVITY and metrics["num_volumes"] == 2, error


def test_our_own_detections_are_read(report, tmp_path):  # noqa: F811
    """A file in the folder of each scan, as demo/predict.py writes it; both frames are known."""
    for name in ("scan_001", "scan_002"):
        write_whole(tmp_path / name / "detections.csv", CsvTable().render(report))
    found = read_boxes(tmp_path)
    assert list(found.volumes) == ["scan_001", "scan_002"] and len(report.detections) > 1
    for volume in found.volumes.values():
        np.testing.assert_allclose(volume.voxels, [each.box for each in report.detections], atol=5e-4)
        np.testing.assert_allclose(volume.world, [each.world_box for each in report.detections], atol=5e-4)
        assert volume.scores.tolist() == pytest.approx([each.score for each in report.detections], abs=1e-6)


def test_a_scan_with_warnings_and_without_detections_is_empty(tmp_path):
    header = table_text({}, SCORES).strip().removeprefix("volume,")
    (tmp_path / "detections.csv").write_text(f"detection,{header},warnings\n0,,,,,,,,a warning\n")
    (volume,) = read_boxes(tmp_path / "detections.csv").volumes.values()
    assert volume.name == tmp_path.name and len(volume) == 0 and len(volume.scores) == 0


def test_the_world_is_in_lps(write):
    boxes = read_boxes(write("truth.csv", table_text(LESIONS, None, world=True)))
    np.testing.assert_allclose(boxes.volumes["a"].world, GEOMETRY.boxes3d_to_world(LESIONS["a"]))
    assert not boxes.knows("voxels") and len(boxes.volumes["b"]) == 0


def test_a_header_may_stand_in_quotes_and_a_table_may_be_empty(write):
    """As R writes it; a detector that has found nothing names no volume."""
    header, *rows = table_text(BOXES, SCORES).splitlines(keepends=True)
    quoted = ",".join(f'"{name}"' for name in header.strip().split(",")) + "\n"
    assert list(read_boxes(write("quoted.csv", quoted + "".join(rows))).volumes) == list(BOXES)
    assert read_boxes(write("empty.csv", header)).volumes == {}


def test_predictions_are_no_truth(evaluate, write):
    found = write("found.csv", table_text(BOXES, SCORES))
    status, metrics, error = evaluate("--protocol", "lens3d", "--ground-truth", found, "--predictions", found)
    assert (
        status == 2 and metrics is None and "holds boxes with scores, as predictions do: a truth has none" in error
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("10.0,10.0,2.0", "x,10.0,2.0", "line 2 (a): x1_pixel_edge is 'x', not a finite number"),
        ("10.0,10.0,2.0", "nan,10.0,2.0", "line 2 (a): x1_pixel_edge is 'nan'"),
        ("10.0,10.0,2.0", "30.0,10.0,2.0", "volume a, detection 0: x1 > x2"),
        ("0.9", "", "line 2 (a): score is '', not a finite number"),
        ("y2_pixel_edge", "y2", "no column y2_pixel_edge; needed are x1_pixel_edge,"),
        ("y2_pixel_edge", "Y2_pixel_edge", "the column 'Y2_pixel_edge' has to be 'y2_pixel_edge'"),
        ("volume", "Volume", "the column 'Volume' has to be 'volume'"),
    ],
)
def test_damaged_tables_are_refused_in_one_line(write, old, new, message):
    text = table_text(BOXES, SCORES)
    assert old in text
    with pytest.raises(DataError) as error:
        read_boxes(write("found.csv", text.replace(old, new, 1)))
    assert message in str(error.value) and "found.csv" in str(error.value) and "\n" not in str(error.value)


def test_a_table_by_name_says_what_it_lacks(write):
    with pytest.raises(DataError, match="no column of boxes; needed are x1_pixel_edge"):
        read_boxes(write("found.csv", "a,b\n1,2\n"), "table")


def test_semicolons_are_named(write):
    text = table_text(BOXES, SCORES).replace(",", ";").replace(".", ",")
    with pytest.raises(DataError, match="found.csv: its cells are separated by semicolons"):
        read_boxes(write("found.csv", text))

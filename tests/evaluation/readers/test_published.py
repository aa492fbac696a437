"""Each bad input: one line that names the file and the entry, status 2, no metrics.json."""

import copy
import pickle

import numpy as np
import pytest

VOLUME = "000001_01_01_010-029"
OTHER = "000002_01_01_001-020"
BOXES = {VOLUME: [[10, 10, 12, 40, 50, 15], [60, 60, 20, 80, 90, 22]], OTHER: []}
FOUND = {VOLUME: [[11, 11, 12, 41, 50, 15, 0.9], [100, 100, 12, 120, 110, 13, 0.3]], OTHER: []}
MARKS = {VOLUME: {"3": [[10, 10, 40, 50, 3, 3]], "11": [[60, 60, 80, 90, 11, 11]]}, OTHER: {}}
TRACKS = {VOLUME: [[[2, [10, 10, 40, 50, 0.8]], [3, [10, 11, 40, 50, 0.9]]], [60, 60, 10, 80, 90, 12, 0.4]]}
HEADER = "seriesuid,coordX,coordY,coordZ,"


def changed(content, *path, value):
    """A copy of ``content`` with the entry at ``path`` exchanged."""
    content = copy.deepcopy(content)
    entry = content
    for key in path[:-1]:
        entry = entry[key]
    entry[path[-1]] = value
    return content


@pytest.fixture
def lens3d(evaluate, write):
    def run(truth=BOXES, found=FOUND, *options):
        truth = write("truth.json", truth) if isinstance(truth, dict | str) else truth
        found = write("found.json", found) if isinstance(found, dict | str) else found
        return evaluate("--protocol", "lens3d", "--ground-truth", truth, "--predictions", found, *options)

    return run


@pytest.fixture
def p3d(evaluate, write):
    def run(truth=MARKS, found=TRACKS, *options):
        files = ("--ground-truth", write("truth.json", truth), "--predictions", write("found.json", found))
        return evaluate("--protocol", "p3d", *files, *options)

    return run


@pytest.fixture
def luna16(evaluate, write):
    def run(**files):
        texts = {
            "truth.csv": HEADER + "diameter_mm\n00783,0,0,0,10\n",
            "series.csv": "00783\n00784\n",
            "found.csv": HEADER + "probability\n00783,1,0,0,0.5\n00784,1,0,0,0.5\n",
            "others.csv": HEADER + "diameter_mm\n",
        } | {name.replace("_", "."): text for name, text in files.items()}
        paths = {name: write(name, text) for name, text in texts.items()}
        words = ["--ground-truth", paths["truth.csv"], "--predictions", paths["found.csv"]]
        words += ["--seriesuids", paths["series.csv"], "--excluded", paths["others.csv"]]
        return evaluate("--protocol", "luna16", *words)

    return run


def refused(result, *words):
    status, metrics, error = result
    errors = [line for line in error.splitlines() if not line.startswith("warning: ")]
    assert status == 2 and metrics is None
    assert len(errors) == 1 and "Traceback" not in error, error
    for word in words:
        assert word in errors[0], errors[0]


def test_what_may_be_meant_is_warned_of(lens3d, p3d, luna16):
    twice = {VOLUME: [*BOXES[VOLUME], BOXES[VOLUME][0]], OTHER: []}
    assert f"1 lesions appear twice and count twice (volume {VOLUME})" in lens3d(twice)[2]
    assert "holds no lesion: a sensitivity of 0 means nothing" in lens3d({VOLUME: [], OTHER: []})[2]
    from_zero = {VOLUME: [[11, 11, 2, 41, 50, 5, 0.9]], OTHER: []}
    assert "1 of 1 detections lie outside the slices in their volumes' names" in lens3d(BOXES, from_zero)[2]
    assert "outside" not in lens3d()[2] and "outside" not in p3d()[2]
    tracklet = TRACKS[VOLUME][0]
    moved = {VOLUME: [[[z + 30, box] for z, box in tracklet]]}
    assert "2 of 2 detections lie outside the slices in their volumes' names" in p3d(found=moved)[2]
    halves = {VOLUME: [[[z + 0.5, box] for z, box in tracklet]]}
    assert "slices that are no whole numbers meet no mark" in p3d(found=halves)[2]
    assert "2 boxes on slices appear twice" in p3d(found={VOLUME: [tracklet, tracklet]})[2]
    doubled = {VOLUME: [*FOUND[VOLUME], FOUND[VOLUME][0]], OTHER: []}
    assert f"1 detections appear twice and count twice (volume {VOLUME})" in lens3d(found=doubled)[2]
    points = HEADER + "probability\n" + 2 * "00783,1,0,0,0.5\n"
    assert "1 detections appear twice" in luna16(found_csv=points)[2]
    assert luna16(series_csv="SeriesInstanceUID\n00783\n00784\n")[1]["num_volumes"] == 2
    named = luna16(series_csv="SeriesUID\n00783\n00784\n")
    assert named[1]["num_volumes"] == 2
    named = luna16(series_csv="scan\n00783\n00784\n")
    assert named[1]["num_volumes"] == 3 and "the first line, scan, counts as a series" in named[2]
    assert "counts as a series" not in luna16(series_csv="00784\n00783\n")[2]
    nodules = HEADER + "diameter_mm\n00783,0,0,0,10\n00783,0,0,0,10\n"
    assert "1 lesions appear twice" in luna16(truth_csv=nodules)[2]


def test_sound_input_passes(lens3d, p3d, luna16):
    for result in (lens3d(), p3d(), luna16()):
        assert result[0] == 0 and result[1]["num_volumes"] == 2, result[2]


NAN, INF = float("nan"), float("inf")
BAD_BOXES = {
    "NaN score": ((VOLUME, 1, 6, NAN), "detection 1", "score"),
    "infinite score": ((VOLUME, 0, 6, INF), "detection 0", "score"),
    "NaN coordinate": ((VOLUME, 1, 2, NAN), "detection 1", "coordinate"),
    "x1 > x2": ((VOLUME, 1, 0, 130), "detection 1", "x1 > x2"),
    "y1 > y2": ((VOLUME, 1, 1, 130), "detection 1", "y1 > y2"),
    "z1 > z2": ((VOLUME, 1, 2, 14), "detection 1", "z1 > z2"),
    "text": ((VOLUME, 1, 2, "12"), "detection 1", "'12' is not a number"),
    "nothing": ((VOLUME, 1, 2, None), "detection 1", "None is not a number"),
    "six numbers": ((VOLUME, 1, [1, 2, 3, 4, 5, 6]), "detection 1", "7 numbers"),
    "a number for a box": ((VOLUME, 1, 5), "detection 1", "7 numbers"),
    "a number for the boxes": ((VOLUME, 5), VOLUME, "list of boxes"),
}


@pytest.mark.parametrize("change", list(BAD_BOXES))
def test_bad_detections_of_lens3d(lens3d, change):
    path, *words = BAD_BOXES[change]
    refused(lens3d(found=changed(FOUND, *path[:-1], value=path[-1])), "found.json", VOLUME, *words)


BAD_TRACKS = {
    "NaN score": ((VOLUME, 0, 1, 1, 4, NAN), "detection 0", "score"),
    "infinite score of a 3D box": ((VOLUME, 1, 6, -INF), "detection 1", "score"),
    "x1 > x2": ((VOLUME, 0, 1, 1, 0, 41), "detection 0", "x1 > x2"),
    "x1 > x2 of a 3D box": ((VOLUME, 1, 0, 81), "detection 1", "x1 > x2"),
    "NaN slice": ((VOLUME, 0, 1, 0, NAN), "detection 0", "slice"),
    "no slices": ((VOLUME, 0, []), "detection 0", "list of slices"),
    "four numbers": ((VOLUME, 0, 1, 1, [1, 2, 3, 4]), "detection 0", "[z, [x1, y1, x2, y2, score]]"),
    "a 3D box of six numbers": ((VOLUME, 1, [1, 2, 3, 4, 5, 6]), "detection 1"),
}


@pytest.mark.parametrize("change", list(BAD_TRACKS))
def test_bad_detections_of_p3d(p3d, change):
    path, *words = BAD_TRACKS[change]
    refused(p3d(found=changed(TRACKS, *path[:-1], value=path[-1])), "found.json", VOLUME, *words)


@pytest.mark.parametrize(
    "path, word",
    [
        ((VOLUME, 1, 2, 9.4), "lesion 1"),
        ((VOLUME, 1, 5, 29.6), "lesion 1"),
        ((VOLUME, 0, 0, 41), "x1 > x2"),
        ((VOLUME, 0, 3, NAN), "coordinate"),
        ((VOLUME, 0, [1, 2, 3]), "lesion 0"),
    ],
)
def test_bad_truth_of_lens3d(lens3d, path, word):
    refused(lens3d(changed(BOXES, *path[:-1], value=path[-1])), "truth.json", VOLUME, word)


def test_half_a_slice_outside_is_allowed(lens3d):
    assert lens3d(changed(changed(BOXES, VOLUME, 0, 2, value=9.5), VOLUME, 1, 5, value=29.5))[0] == 0
    assert lens3d(found=changed(FOUND, VOLUME, 0, 5, value=99))[0] == 0  # detections may stick out


def test_bad_truth_of_p3d(p3d):
    refused(p3d({VOLUME: {"20": [[1, 1, 2, 2, 20, 20]]}}), "truth.json", VOLUME, "lesion 0", "outside")
    refused(p3d({VOLUME: {"a": [[1, 1, 2, 2, 20, 20]]}}), "truth.json", VOLUME, "'a'")
    refused(p3d({VOLUME: [[1, 1, 2, 2, 20, 20]]}), "truth.json", VOLUME, "slices")
    assert p3d({VOLUME: {"19": [[1, 1, 2, 2, 19, 19]]}})[0] == 0


def test_volumes(lens3d, p3d):
    refused(lens3d(found=FOUND | {"000003_01_01_001-020": []}), "found.json", "000003_01_01_001-020")
    refused(lens3d(found={"000003_01_01_001-020": []}), "found.json", "no volume in common")
    refused(p3d(found=TRACKS | {"x": []}), "found.json", "volume x")
    refused(lens3d({}), "truth.json", "no volume")
    twice = f'{{"{VOLUME}": [], "{VOLUME}": []}}'
    refused(lens3d(twice), "truth.json", VOLUME, "twice")
    refused(lens3d(found=twice), "found.json", VOLUME, "twice")
    refused(p3d(MARKS | {f"{VOLUME}.annot": {}}), "truth.json", VOLUME, "twice")


def test_a_detector_that_found_nothing_has_a_sensitivity_of_0(lens3d, p3d, luna16):
    for status, metrics, error in (lens3d(found={}), p3d(found={}), luna16(found_csv=HEADER + "probability\n")):
        assert status == 0 and metrics["average_sensitivity"] == 0.0
        assert "have no predictions and count as empty" in error


def test_luna16_without_excluded_findings_is_told(lens3d, luna16, evaluate, tmp_path):
    golden = "tests/golden/luna16"
    words = ["--protocol", "luna16", "--ground-truth", f"{golden}/annotations.csv", "--bootstrap", "0"]
    words += ["--seriesuids", f"{golden}/seriesuids.csv", "--predictions", f"{golden}/predictions.csv"]
    assert "findings that the challenge ignores count as false positives" in evaluate(*words)[-1]
    assert "challenge ignores" not in evaluate(*words, "--excluded", f"{golden}/annotations_excluded.csv")[-1]


def test_a_trailing_annot_is_dropped(p3d):
    status, metrics, error = p3d({f"{VOLUME}.annot": MARKS[VOLUME]})
    assert status == 0 and metrics["sensitivity"][-1] == 1.0 and "warning" not in error


def test_volumes_without_predictions_are_counted_in_a_warning(lens3d, luna16):
    status, metrics, error = lens3d(found={VOLUME: FOUND[VOLUME]})
    assert status == 0 and metrics["num_volumes"] == 2
    assert "1 of 2 volumes have no predictions and count as empty (1 of them are not in the file)" in error
    status, _, error = luna16(found_csv=HEADER + "probability\n00783,1,0,0,0.5\n")
    assert status == 0 and "1 of 2 volumes" in error


def test_splits(lens3d):
    splits = {"val": BOXES, "test": {VOLUME: []}}
    refused(lens3d(splits), "truth.json", "val, test", "--split")
    assert lens3d(splits, FOUND, "--split", "val")[1]["num_lesions"] == 2
    assert lens3d(splits, {VOLUME: []}, "--split", "test")[1]["num_lesions"] == 0
    assert lens3d(splits, {"val": FOUND}, "--split", "val")[0] == 0
    refused(lens3d({"val": BOXES}, FOUND, "--split", "test"), "truth.json", "'test'")
    refused(lens3d({"val": BOXES, VOLUME: []}), "truth.json", "val")
    status, _, error = lens3d(BOXES, FOUND, "--split", "val")
    assert status == 0 and "no splits" in error


@pytest.mark.parametrize("text", ["", " \n", "{", '{"a": [', "[1, 2]", "5", "\x00\x01"])
def test_damaged_json(lens3d, text):
    refused(lens3d(text), "truth.json")
    refused(lens3d(found=text), "found.json")


def test_files_that_are_not_there(lens3d, tmp_path):
    refused(lens3d(tmp_path / "absent.pkl"), "absent.pkl", "No such file")
    refused(lens3d(found=tmp_path / "absent"), "cannot be read")
    refused(lens3d(found=tmp_path), "the folder holds none of *_boxes.pkl, *_boxes.json, detections.csv")


class Malicious:
    def __reduce__(self):
        return print, ("this must not run",)


def test_pickles(lens3d, tmp_path, capsys):
    path, array = (
        tmp_path / "truth.pkl",
        {name: np.array(rows, float).reshape(-1, 6) for name, rows in BOXES.items()},
    )
    for protocol in (0, 1, 2, 4, 5):
        path.write_bytes(pickle.dumps({"val": array, "test": {}}, protocol))
        assert lens3d(path, FOUND, "--split", "val")[1] == lens3d()[1]
    data = path.read_bytes()
    for cut in (0, 1, 5, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        refused(lens3d(path, FOUND, "--split", "val"), "truth.pkl")
    path.write_bytes(pickle.dumps({VOLUME: Malicious()}))
    refused(lens3d(path), "truth.pkl", "print")
    assert "this must not run" not in capsys.readouterr().out


def test_ids_are_text(luna16):
    """00783 is not 783, and a number for a name is refused."""
    status, metrics, _ = luna16()
    assert status == 0 and metrics["true_positives"] == 1
    refused(luna16(found_csv=HEADER + "probability\n783,1,0,0,0.5\n"), "found.csv", "783")
    refused(luna16(truth_csv=HEADER + "diameter_mm\n783,0,0,0,10\n"), "holds no nodule in a series of")


def test_bad_tables(luna16):
    row = "00783,1,0,0,0.5\n"
    refused(luna16(found_csv=HEADER + "score\n" + row), "found.csv", "probability")
    refused(luna16(found_csv=HEADER + "probability\n" + row + "00784,1,0,x,0.5\n"), "found.csv", "line 3", "'x'")
    refused(luna16(found_csv=HEADER + "probability\n" + row + "00784,1,0,0,nan\n"), "found.csv", "line 3", "00784")
    refused(luna16(found_csv=HEADER + "probability\n" + row + "00784,1,0,0,inf\n"), "found.csv", "line 3")
    refused(luna16(found_csv=HEADER + "probability\n" + row + "00784,1,0\n"), "found.csv", "line 3")
    refused(luna16(found_csv=HEADER + "probability\n" + "00783,1,0,0,0.5,7\n"), "found.csv")
    refused(luna16(found_csv=HEADER + "probability\n" + row + "00785,1,0,0,0.5\n"), "found.csv", "00785")
    refused(luna16(found_csv=""), "found.csv", "empty")
    refused(luna16(series_csv="00783\n00784\n00783\n"), "series.csv", "00783", "twice")
    refused(luna16(series_csv="\n"), "series.csv", "empty")
    refused(luna16(truth_csv=HEADER + "diameter_mm\n00783,0,0,0,\n"), "truth.csv", "line 2")
    refused(luna16(truth_csv=HEADER + "diameter_mm\n00783,0,0,0,0\n"), "truth.csv", "nodule 0: the diameter 0")
    refused(luna16(others_csv=HEADER + "\n"), "others.csv", "diameter_mm")


def test_tables_may_have_blank_lines_other_columns_and_a_mark(luna16):
    found = "\ufeffprobability,x,seriesuid,coordZ,coordY,coordX\n\n0.5,,00783,0,0,1\n0.5,a,00784,0,0,1\n\n"
    assert luna16(found_csv=found)[1] == luna16()[1]


def test_numpy_scalars_in_pickles(p3d, evaluate, write, tmp_path):
    path = tmp_path / "truth.pkl"
    first, second = MARKS[VOLUME]["3"][0], MARKS[VOLUME]["11"][0]
    slices = {3: [[np.float64(v) for v in first]], np.int64(11): [[np.float32(v) for v in second]]}
    scalars = {f"{VOLUME}.annot": slices, OTHER: {}}
    path.write_bytes(pickle.dumps(scalars))
    files = ("--ground-truth", path, "--predictions", write("found.json", TRACKS))
    assert evaluate("--protocol", "p3d", *files)[1] == p3d()[1]

"""Lesions of a patient's other series at their place in the body, on hand-made proposals."""

import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from helpers.blocks import register_blocks
from helpers.mining_proposals import patient, proposals, record, tracklets

from lens_d2.config import load_config
from lens_d2.io.errors import DataError
from lens_d2.mining.calibration import Calibration, StratifiedPrecision
from lens_d2.mining.lens.mine import mine_patient
from lens_d2.mining.lens.strategies import SamePlace
from lens_d2.structures.status import BoxStatus

MARK = np.array([40, 40, 50, 50.0])
NEAR, FAR = MARK + 2, MARK + 30
CALIBRATION = Calibration("own_vm", (16.0,), min_lesions=5)


class Places:
    """Places of boxes by their centre and slice; a mark is of one lesion within two pixels, typically."""

    def __init__(self, known=True):
        self.spread, self.height_of_mm, self.known = np.array([2.0, 2.0, 2.0]), -0.001, known

    def fit(self, records):
        self.spread = self.spread * 2

    def __call__(self, record, slice_boxes):
        centers = (slice_boxes[:, 1:3] + slice_boxes[:, 3:5]) / 2
        return np.column_stack([centers, slice_boxes[:, 0]]) + (0 if self.known else np.nan)


def strategy(places=None, certain=True, **options):
    own = SamePlace(places={"deeplesion": places or Places()}, calibration=CALIBRATION, **options)
    scores, is_lesion = np.array([-20.0] * 8), np.array([True] * 8)
    own.estimate = StratifiedPrecision.fit(scores, is_lesion, [("below 16 mm",)] * 8, 0.8 if certain else 0.99)
    return own


def found(*lesions):
    """Tracklets of three slices each, of (middle slice, box, score of their own expert)."""
    result = tracklets(*((z - 1, box, [score - 0.02, score, score - 0.02]) for z, box, score in lesions))
    result.expert_scores = np.column_stack([result.scores, np.full((len(result), 2), 0.5)])
    return proposals(deeplesion=result)


def mined(own, *volumes):
    return mine_patient(patient(*volumes), {"SamePlace": own}, 0.5)


FIRST = record("000001_01_01", lesions=[(8, MARK)]), found((8, MARK, 0.9))


def test_the_tracklet_at_the_place_is_a_lesion_on_its_best_slice_though_others_score_more():
    second = record("000001_02_01"), found((9, NEAR, 0.1), (9, FAR, 0.99))
    rows = mined(strategy(), FIRST, second)
    assert {(row.slice, row.status) for row in rows} == {(8, "uncertain"), (9, "annotation"), (10, "uncertain")}
    (lesion,) = (row for row in rows if row.status == "annotation")
    assert (lesion.x1, lesion.volume, lesion.annotation) == (42, second[0]["volume"], FIRST[0]["lesions"][0]["id"])
    assert lesion.distance == pytest.approx(1.5) and lesion.precision == pytest.approx(0.9)
    assert {row.status for row in mined(strategy(certain=False), FIRST, second)} == {"uncertain"}


def test_the_best_sum_of_score_and_nearness_is_taken_and_each_lesion_once():
    second = record("000001_02_01"), found((8, MARK + 7, 0.9), (8, NEAR, 0.5), (8, MARK + 4, 0.1))
    (lesion,) = (row for row in mined(strategy(distance=9.0), FIRST, second) if row.status == "annotation")
    assert lesion.x1 == 42
    both = record("000001_01_01", lesions=[(8, MARK), (8, MARK + [20, 0, 20, 0])]), found()
    second = record("000001_02_01"), found((8, MARK + [10, 0, 10, 0], 0.9), (8, MARK + [19, 0, 19, 0], 0.2))
    rows = [row for row in mined(strategy(distance=9.0), both, second) if row.status == "annotation"]
    assert {row.x1: row.annotation[-1] for row in rows} == {59: "1", 50: "0"}


def test_a_lesion_that_is_known_in_two_series_is_expected_once():
    again = record("000001_03_01", lesions=[(9, MARK + 1)]), found()
    second = record("000001_02_01"), found((8, NEAR, 0.5), (9, NEAR + 6, 0.6))
    (lesion,) = (row for row in mined(strategy(), FIRST, again, second) if row.status == "annotation")
    assert lesion.x1 == 42


def test_where_a_lesion_is_known_nothing_is_expected():
    second = record("000001_02_01", lesions=[(9, NEAR)]), found((9, NEAR, 0.9), (9, NEAR + 5, 0.8))
    assert mined(strategy(), FIRST, second) == []


@pytest.mark.parametrize(
    "second",
    [
        (record("000001_01_01", number="031-050"), found((8, NEAR, 0.9))),
        (record("000001_02_01"), found((8, FAR, 0.9))),
        (record("000001_02_01"), found((8, NEAR, 0.04))),
        (record("000001_02_01"), found()),
    ],
    ids=["of the same series", "too far", "below the score", "no proposals"],
)
def test_no_match(second):
    assert mined(strategy(), FIRST, second) == []


def test_a_lesion_of_an_earlier_round_is_no_annotation():
    """A ledger may name given annotations alone, else it is refused where it is read."""
    first = record("000001_01_01", lesions=[(8, MARK)])
    for status, source in (("annotation", first["lesions"][0]["id"]), ("accepted", "")):
        first["lesions"][0]["status"] = status
        rows = mined(strategy(), (first, found()), (record("000001_02_01"), found((8, NEAR, 0.9))))
        assert {row.annotation for row in rows} == {source}


def test_where_no_place_is_known_nothing_is_found():
    assert mined(strategy(Places(known=False)), FIRST, (record("000001_02_01"), found((8, NEAR, 0.9)))) == []


def test_what_was_mined_before_is_found_again_too():
    volumes = patient((record("000001_01_01"), found()), (record("000001_02_01"), found((8, NEAR, 0.3))))
    volumes[0].known.add("x/self-1", np.array([[8, *MARK]]), BoxStatus.LESION)
    (lesion, rest) = strategy()(volumes)
    assert lesion.status == "annotation" and lesion.annotation is None and rest.status == "uncertain"
    volumes[0].known.status[:] = BoxStatus.UNCERTAIN
    assert strategy()(volumes) == []


@pytest.fixture
def verified():
    """Twelve patients with a mark in one series; the other is completely annotated, in every third without it."""
    volumes = {}
    complete = []
    for number in range(12):
        lesions = [(8, NEAR)] if number % 3 else [(14, FAR)]
        first = record(f"{number:06d}_01_01", lesions=[(8, MARK)])
        second = record(f"{number:06d}_02_01")
        volumes[first["volume"]] = first, found((8, MARK, 0.9))
        volumes[second["volume"]] = second, found((8, NEAR, 0.4 if number % 3 else 0.1))
        complete.append(record(f"{number:06d}_02_01", lesions=lesions))
    DatasetCatalog.register("own_vm", lambda: complete)
    yield volumes
    DatasetCatalog.remove("own_vm")


def test_precision_is_learnt_where_all_lesions_are_known(verified):
    own = SamePlace(places={"deeplesion": Places()}, calibration=CALIBRATION, precision=0.85)
    learnt = own.learn([each[0] for each in verified.values()], lambda record: verified[record["volume"]][1])
    other = SamePlace(places={"deeplesion": Places()}, calibration=CALIBRATION)
    other.use(json.loads(json.dumps(learnt)))
    assert other.places["deeplesion"].spread.tolist() == [4.0] * 3
    second = record("000099_02_01")
    sure, unsure = (
        mined(other, (record("000099_01_01", lesions=[(8, MARK)]), found()), (second, found((8, NEAR, score))))
        for score in (0.4, 0.1)
    )
    assert {row.precision for row in sure} == {0.9} and "annotation" in {row.status for row in sure}
    assert {row.precision for row in unsure} == {1 / 6} and {row.status for row in unsure} == {"uncertain"}


def test_it_needs_places_of_marks_and_completely_annotated_sub_volumes(tmp_path):
    register_blocks(tmp_path)
    opts = ["DATASETS.TRAIN", ("blocks_deeplesion",), "MINING.DATASETS", ("blocks_deeplesion",)]
    with pytest.raises(
        DataError, match="SamePlace needs the places of marks, which blocks_deeplesion does not have"
    ):
        SamePlace(load_config("phantom/lens_best.yaml", opts))

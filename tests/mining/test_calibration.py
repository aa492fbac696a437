"""Estimated precision of findings, by strata, on sub-volumes of which all lesions are known."""

import json

import numpy as np
import pandas as pd
import pytest
from detectron2.data import DatasetCatalog
from helpers.ledger_rows import row, table_of
from helpers.mining_proposals import record
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_d2.config import load_config
from lens_d2.data.ledger.verdicts import JUDGED
from lens_d2.io.errors import DataError
from lens_d2.mining.calibration import (
    Calibration,
    FindingPrecision,
    PrecisionCurve,
    StratifiedPrecision,
    Verified,
    least_score,
)

BOX, FAR = np.array([10.0, 10, 30, 30]), np.array([60.0, 60, 70, 70])
NAME = "000001_01_01_001-020"


def verified(marks=((5, BOX),), lesions=((5, BOX), (7, FAR)), mined=1):
    complete = [record("000001_01_01", lesions=lesions)]
    others = [record(f"00000{i}_01_01") for i in range(2, 1 + mined)]
    return Verified(complete, [record("000001_01_01", lesions=marks), *others])


class TestCurve:
    def test_by_hand(self):
        """Two steps: two of three are lesions, then four of four; each with one of both kinds more."""
        curve = PrecisionCurve.fit(np.array([1.0, 2, 3, 4, 5, 6, 7]), np.array([1, 0, 1, 1, 1, 1, 1], bool))
        np.testing.assert_allclose(curve(np.array([0.0, 1, 2.9])), 2 / 4)
        np.testing.assert_allclose(curve(np.array([3.0, 9])), 6 / 7)

    @given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
    @settings(deadline=None, max_examples=50)
    def test_it_never_falls_and_is_never_certain(self, findings):
        scores, is_lesion = (np.array(x) for x in zip(*findings, strict=True))
        values = PrecisionCurve.fit(scores.astype(float), is_lesion)(np.arange(-1.0, 7))
        assert (np.diff(values) >= 0).all() and (values > 0).all() and (values < 1).all()


class TestThreshold:
    scores = np.array([9.0, 8, 7, 7, 6])

    def test_the_lowest_score_with_the_precision(self):
        is_lesion = np.array([1, 1, 1, 0, 1], bool)
        assert least_score(self.scores, is_lesion, 0.7) == 6.0  # (4 + 1) / (5 + 2) = 0.71
        assert least_score(self.scores, is_lesion, 0.75) == 8.0  # 3 of 4; at 7, both or none: 4 of 6

    def test_a_few_are_not_enough_for_much(self):
        assert least_score(self.scores, np.ones(5, bool), 0.9) == np.inf


class TestStrata:
    strata = [("small", "luna")] * 12 + [("small", "lits")] * 3 + [("large", "lits")] * 12
    scores = np.arange(27.0)
    is_lesion = np.array([True] * 12 + [True] * 3 + [False] * 6 + [True] * 6)

    def fit(self, **kw):
        return StratifiedPrecision.fit(self.scores, self.is_lesion, self.strata, **kw)

    def test_the_finest_with_enough_lesions_counts(self):
        estimate = self.fit(min_lesions=10)
        assert set(estimate.curves) == {(), ("small",), ("small", "luna")}
        assert estimate.finest(("small", "luna")) == ("small", "luna")
        assert estimate.finest(("small", "lits")) == ("small",)
        assert estimate.finest(("large", "lits")) == ()
        precision = estimate.precision(np.array([0.0, 0.0]), [("small", "luna"), ("small", "lits")])
        np.testing.assert_allclose(precision, [13 / 14, 16 / 17])

    def test_each_has_a_threshold_of_its_own(self):
        estimate = self.fit(precision=0.85, min_lesions=5)
        scores, strata = np.array([0.0, 15.0, 21.0, 26.0]), [("small", "luna"), *[("large", "lits")] * 3]
        assert estimate.thresholds[("large", "lits")] == 21.0
        assert estimate.passes(scores, strata).tolist() == [True, False, True, True]

    def test_as_json_knows_it(self):
        estimate = self.fit(precision=0.97, min_lesions=5)
        again = StratifiedPrecision.from_dict(json.loads(json.dumps(estimate.to_dict())))
        assert again.thresholds == estimate.thresholds and np.inf in again.thresholds.values()
        for stratum, curve in estimate.curves.items():
            np.testing.assert_array_equal(again.curves[stratum].precision, curve.precision)

    def test_nothing_known(self):
        estimate = StratifiedPrecision.fit(np.zeros(0), np.zeros(0, bool), [])
        assert np.isnan(estimate.precision(np.ones(1), [("small",)])).all()
        assert not estimate.passes(np.full(1, 1e9), [("small",)]).any()


class TestVerified:
    def test_lesions_without_a_mark(self):
        found = verified(mined=3)
        assert len(found) == 1 and NAME in found and "000002_01_01_001-020" not in found
        assert [boxes.tolist() for boxes in found.unmarked[NAME]] == [[[7, *FAR]]]

    def test_what_has_been_rejected_there_is_no_lesion(self):
        complete = record("000001_01_01", lesions=[(5, BOX), (7, FAR)])
        complete["lesions"][0]["status"] = "hard_negative"
        assert len(Verified([complete], [record("000001_01_01")]).unmarked[NAME]) == 1

    def test_a_finding_is_on_a_lesion_on_the_slice_of_both(self):
        found = verified()
        assert found.hit(NAME, np.array([[6, *FAR], [7, *(FAR + 1)]])) == [0]
        assert found.hit(NAME, np.array([[6, *FAR]])) == found.hit(NAME, np.array([[7, *(FAR + 5)]])) == []

    def test_sizes(self):
        assert verified(marks=()).sizes((12.0, 16.0)) == {"below 12 mm": 1, "16 mm or more": 1}


@pytest.fixture
def vm():
    DatasetCatalog.register("own_vm", lambda: [record("000001_01_01", lesions=[(5, BOX), (7, FAR)])])
    yield "own_vm"
    DatasetCatalog.remove("own_vm")


def test_from_a_config(vm):
    assert Calibration.from_config(load_config()) is None
    opts = ["MINING.CALIBRATION.DATASET", vm, "MINING.CALIBRATION.SIZES", (20.0,), "MINING.IOU", 0.4]
    calibration = Calibration.from_config(load_config("", opts))
    assert calibration == Calibration(vm, (20.0,), iou=0.4)
    assert calibration.verified([record("000001_01_01")]).iou == 0.4
    with pytest.raises(DataError, match="MINING.CALIBRATION.DATASET: no sub-volume of own_vm is mined"):
        calibration.verified([record("000002_01_01")])


class TestFindings:
    """Each strategy's finds in V_M tell of its finds elsewhere."""

    records = [record(f"00000{i}_01_01", lesions=[(3, BOX)]) for i in (1, 2)]
    calibration = Calibration("own_vm", least_precision=0.4)

    def fill(self, *rows):
        known = Verified([record("000001_01_01", lesions=[(3, BOX), (7, FAR)])], self.records)
        return FindingPrecision(self.calibration, known, self.records, table_of(*rows)).fill(table_of(*rows))

    def finding(self, number, strategy, hit, volume=NAME, **columns):
        x1, y1, x2, y2 = FAR if hit else FAR - 40
        place = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
        return row(7, f"{volume}/{strategy}-{number}", volume, strategy, annotation="", **place, **columns)

    def test_by_strategy(self):
        other = self.records[1]["volume"]
        filled = self.fill(
            *(self.finding(i, "Right", True) for i in range(3)),
            *(self.finding(i, "Wrong", False) for i in range(3)),
            *(self.finding(9, name, False, other) for name in ("Right", "Wrong", "Unknown")),
        )
        expected = [0.8] * 3 + [0.2] * 3 + [0.8, 0.2, 0.5]
        np.testing.assert_allclose(filled["precision"], expected)
        assert filled["status"].tolist() == ["annotation"] * 3 + ["uncertain"] * 3 + [
            "annotation", "uncertain", "annotation",
        ]  # fmt: skip

    def test_a_lesion_of_two_strategies_is_judged_whole(self):
        """The slice of V_M's box is one of the second strategy's; the first has more slices of the lesion."""
        rows = []
        for number in range(3):
            rows += [self.finding(number, strategy, True) for strategy in ("Slice", "More")]
            rows[-2] = rows[-2]._replace(slice=9, id=f"{rows[-2].lesion}@9")
            rows[-1] = rows[-1]._replace(lesion=rows[-2].lesion)
        np.testing.assert_allclose(self.fill(*rows)["precision"], 0.8)

    def test_a_lesion_has_one_precision_that_of_the_strategy_that_found_it(self):
        """The second strategy adds slices to lesions that the first one is right about, and to one elsewhere."""
        other, rows = self.records[1]["volume"], []
        for number in range(3):
            rows += [self.finding(number, "Wrong", False), self.finding(number, "Right", True)]
        for volume, strategy in ((NAME, "Right"), (other, "Right"), (other, "Wrong")):
            finder = self.finding(8, strategy, False, volume)
            added = self.finding(8, "Slices", True, volume)
            rows += [finder, added._replace(lesion=finder.lesion, slice=9)]
        filled = self.fill(*rows)
        assert filled.groupby("lesion")[["precision", "status"]].nunique().max().max() == 1
        assert filled["status"].tolist()[-4:] == ["annotation"] * 2 + ["uncertain"] * 2

    def test_only_of_new_lesions_without_one(self):
        rows = [
            row(4, f"{NAME}/0", NAME, annotation=f"{NAME}/0"),
            self.finding(1, "Own", False, precision=0.9),
            self.finding(2, "Region", False, status="uncertain"),
            self.finding(3, "Judged", False, status="accepted"),
            row(8, f"{NAME}/new{JUDGED}1", NAME, "Judged", annotation=""),
        ]
        filled = self.fill(*rows)
        pd.testing.assert_frame_equal(filled, table_of(*rows), check_dtype=False)

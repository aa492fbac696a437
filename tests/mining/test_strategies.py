"""The three strategies of Section V on hand-made proposals, and what becomes of their findings."""

import shutil
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from helpers.mining_proposals import proposals, record, tracklets

from lens_d2.mining.lens import strategies
from lens_d2.mining.lens.findings import Finding, PatientVolume
from lens_d2.mining.lens.mine import mine_patient
from lens_d2.mining.lens.strategies import STRATEGIES, CrossDataset, CrossSlice, IntraPatient
from lens_d2.structures.boxes import best_slice_boxes
from lens_d2.structures.status import BoxStatus

BOX = np.array([10.0, 10, 30, 30])
FAR = np.array([60.0, 60, 80, 80])


def patient(*volumes):
    return [PatientVolume.start(record, found) for record, found in volumes]


def boxes_of(finding):
    return [int(z) for z in finding.slice_boxes[:, 0]]


OWN_STRATEGY = """
from .strategy import STRATEGIES, Strategy

@STRATEGIES.register()
class OwnStrategy(Strategy):
    pass
"""


def test_a_file_in_the_folder_is_all_that_a_strategy_needs(tmp_path):
    """Tried with a copy of the package, which has a registry of its own."""
    folder = shutil.copytree(Path(strategies.__file__).parent, tmp_path / "strategies")
    (folder / "own_strategy.py").write_text(OWN_STRATEGY)
    spec = spec_from_file_location("lens_d2.mining.copied_strategies", folder / "__init__.py")
    with mock.patch.dict(sys.modules):
        sys.modules[spec.name] = copied = module_from_spec(spec)
        spec.loader.exec_module(copied)
    assert "OwnStrategy" in copied.STRATEGIES and "CrossSlice" in copied.STRATEGIES
    assert "OwnStrategy" not in STRATEGIES


def test_best_slice_box_is_that_of_the_highest_score():
    found = tracklets((2, [BOX, BOX + 1, BOX + 2], [0.3, 0.9, 0.5]), (7, FAR, 0.2))
    np.testing.assert_allclose(best_slice_boxes(found), [[3, *(BOX + 1), 0.9], [7, *FAR, 0.2]])


class TestCrossSlice:
    def test_a_tracklet_on_an_annotation_gives_its_other_slices(self):
        volume = (record(lesions=[(5, BOX)]), proposals(fused=tracklets((3, BOX + 1, [0.4, 0.5, 0.9, 0.5, 0.02]))))
        rows = mine_patient(patient(volume), {"CrossSlice": CrossSlice()}, 0.5)
        assert [row.slice for row in rows] == [3, 4, 6, 7]
        assert {row.lesion for row in rows} == {row.annotation for row in rows} == {volume[0]["lesions"][0]["id"]}
        assert {row.status for row in rows} == {"annotation"}
        assert [row.score for row in rows] == pytest.approx([0.4, 0.5, 0.5, 0.02])
        assert rows[0][3:7] == pytest.approx(tuple(BOX + 1))
        assert np.isnan(rows[0].distance)

    def test_the_key_slice_decides(self):
        """A tracklet that overlaps an annotation on the slices beside the key slice alone is another one."""
        shifted = [BOX, BOX + 15, BOX]
        volume = (record(lesions=[(5, BOX)]), proposals(fused=tracklets((4, shifted, [0.9] * 3), (6, BOX, [0.9]))))
        assert CrossSlice()(patient(volume)) == []

    @pytest.mark.parametrize("iou, found", [(0.5, 0), (0.4, 1)])
    def test_theta(self, iou, found):
        half = np.array([10.0, 10, 30, 20])  # IoU 0.5 exactly: not above
        volume = (record(lesions=[(5, BOX)]), proposals(fused=tracklets((4, half, [0.9] * 3))))
        assert len(CrossSlice(iou=iou)(patient(volume))) == found

    def test_an_annotation_follows_its_best_tracklet(self):
        found = tracklets((4, BOX + 4, [0.9] * 3), (5, BOX + 1, [0.1] * 3))
        (finding,) = CrossSlice()(patient((record(lesions=[(5, BOX)]), proposals(fused=found))))
        np.testing.assert_array_equal(finding.slice_boxes[0, 1:5], BOX + 1)

    def test_a_lesion_marked_twice_is_propagated_once(self):
        volume = (record(lesions=[(5, BOX), (7, BOX)]), proposals(fused=tracklets((4, BOX, [0.9] * 5))))
        rows = mine_patient(patient(volume), {"CrossSlice": CrossSlice()}, 0.5)
        assert [row.slice for row in rows] == [4, 6, 8]

    def test_the_group_of_proposals_can_be_an_experts(self):
        found = proposals(luna=tracklets((4, BOX, [0.9] * 3)))
        assert CrossSlice()(patient((record(lesions=[(5, BOX)]), found))) == []
        assert len(CrossSlice(group="luna")(patient((record(lesions=[(5, BOX)]), found)))) == 1


def embed_by(vectors):
    """Embeddings by the x of a box's left edge."""

    def embed(boxes):
        embed.calls.append(len(boxes))
        return np.array([vectors[int(box[0])] for _, _, box in boxes], dtype=np.float32)

    embed.calls = []
    return embed


def angle(distance):
    """A unit vector at this L2 distance from (1, 0)."""
    half = distance / 2
    return [1 - 2 * half**2, 2 * half * np.sqrt(1 - half**2)]


class TestIntraPatient:
    vectors = {10: angle(0), 20: angle(0.1), 40: angle(0.14), 60: angle(0.16), 61: angle(0.8)}

    def two_studies(self, found):
        return patient(
            (record("000001_01_01", lesions=[(5, BOX)]), proposals(fused=tracklets((5, BOX, 0.9)))),
            (record("000001_02_01"), proposals(fused=found)),
        )

    def box(self, x):
        return np.array([x, 40.0, x + 15, 55])

    def test_the_same_lesion_in_another_study(self):
        found = tracklets((3, self.box(40), [0.3, 0.8, 0.3]), (3, self.box(60), [0.9]), (8, self.box(61), [0.9]))
        strategy = IntraPatient(embed=embed_by(self.vectors))
        rows = mine_patient(self.two_studies(found), {"IntraPatient": strategy}, 0.5)
        assert [row.slice for row in rows] == [3, 4, 5]
        assert {row.volume for row in rows} == {"000001_02_01_001-020"}
        assert {row.lesion for row in rows} == {"000001_02_01_001-020/fused-0"}
        assert {row.annotation for row in rows} == {"000001_01_01_001-020/0"}
        assert rows[0].distance == pytest.approx(0.14, abs=1e-6)

    def test_delta(self):
        found = tracklets((3, self.box(40), [0.3]), (3, self.box(60), [0.9]))
        for distance, matches in ((0.13, 0), (0.15, 1), (0.17, 2)):
            strategy = IntraPatient(embed=embed_by(self.vectors), distance=distance, nearest_only=False)
            assert len(strategy(self.two_studies(found))) == matches

    def test_a_lesion_is_in_a_sub_volume_once(self):
        """An annotation matches the nearest tracklet alone, unless all near ones are asked for."""
        found = tracklets((3, self.box(40), [0.3]), (3, self.box(20), [0.9]))
        (finding,) = IntraPatient(embed=embed_by(self.vectors))(self.two_studies(found))
        assert finding.distance == pytest.approx(0.1, abs=1e-6)
        strategy = IntraPatient(embed=embed_by(self.vectors), nearest_only=False)
        assert len(strategy(self.two_studies(found))) == 2

    def test_where_the_nearest_is_known_there_is_no_match(self):
        volumes = self.two_studies(tracklets((3, self.box(40), [0.3]), (3, self.box(20), [0.9])))
        volumes[1].known.add("other", np.array([[3, *self.box(20)]]), BoxStatus.LESION)
        assert IntraPatient(embed=embed_by(self.vectors))(volumes) == []

    def test_of_tracklets_that_overlap_the_nearest_is_taken(self):
        """Two annotations match two tracklets that share pixels of a slice: they are one lesion."""
        vectors = {10: angle(0), 40: angle(0.14), 42: angle(0.6), 70: angle(0.55)}
        one = (record("000001_01_01", lesions=[(5, BOX), (9, self.box(70))]), proposals())
        two = (record("000001_02_01"), proposals(fused=tracklets((3, self.box(40), 0.9), (3, self.box(42), 0.8))))
        (finding,) = IntraPatient(embed=embed_by(vectors))(patient(one, two))
        assert finding.lesion.endswith("fused-1") and finding.distance < 0.06

    def test_a_tracklet_is_its_best_box(self):
        """Compared by the slice of its highest score, not by its first."""
        found = tracklets((3, [self.box(61), self.box(20), self.box(61)], [0.3, 0.8, 0.3]))
        (finding,) = IntraPatient(embed=embed_by(self.vectors))(self.two_studies(found))
        assert finding.distance == pytest.approx(0.1, abs=1e-6)
        assert boxes_of(finding) == [3, 4, 5]

    def test_not_within_a_series(self):
        """Slices of one series are of one moment: another place is another lesion."""
        one = (record("000001_01_01", lesions=[(5, BOX)]), proposals(fused=tracklets((12, self.box(20), 0.9))))
        two = (record("000001_01_01", number="031-050"), proposals(fused=tracklets((3, self.box(20), 0.9))))
        embed = embed_by(self.vectors)
        assert IntraPatient(embed=embed)(patient(one, two)) == []
        assert embed.calls == []  # and nothing is embedded for it

    def test_another_series_of_the_study_counts(self):
        one = (record("000001_01_01", lesions=[(5, BOX)]), proposals())
        two = (record("000001_01_02"), proposals(fused=tracklets((3, self.box(20), 0.9))))
        assert len(IntraPatient(embed=embed_by(self.vectors))(patient(one, two))) == 1

    def test_what_is_annotated_or_mined_already_is_left_alone(self):
        found = tracklets((3, self.box(20), [0.9] * 3))
        volumes = self.two_studies(found)
        volumes[1].known.add("other", np.array([[4, *self.box(20)]]), BoxStatus.LESION)
        assert IntraPatient(embed=embed_by(self.vectors))(volumes) == []
        volumes = self.two_studies(found)
        volumes[1].known.add("other", np.array([[4, *self.box(20)]]), BoxStatus.UNCERTAIN)
        assert len(IntraPatient(embed=embed_by(self.vectors))(volumes)) == 1

    def test_low_scores_are_not_compared_where_asked(self):
        found = tracklets((3, self.box(20), [0.2]))
        assert IntraPatient(embed=embed_by(self.vectors), score_thresh=0.3)(self.two_studies(found)) == []

    def test_delta_is_learnt_where_asked(self):
        strategy = IntraPatient(embed=embed_by(self.vectors), distance=0.2)
        assert strategy.learn([record()]) == {}
        strategy.use({})
        assert strategy.distance == 0.2
        strategy = IntraPatient(
            embed=embed_by(self.vectors), calibrate=lambda embed, records: {"distance": 0.3, "pairs": len(records)}
        )
        assert strategy.learn([record()]) == {"distance": 0.3, "pairs": 1}
        assert strategy.distance == 0.15
        strategy.use({"distance": 0.3, "pairs": 1})
        assert strategy.distance == 0.3


class TestCrossDataset:
    strategy = CrossDataset(experts=("luna", "lits"), score_thresh=0.5)

    def test_confident_boxes_of_single_type_experts_are_uncertain(self):
        found = proposals(
            luna=tracklets((3, FAR, [0.4, 0.6, 0.5, 0.7])),
            deeplesion=tracklets((3, BOX, 0.99)),
            fused=tracklets((3, BOX, 0.99)),
        )
        rows = mine_patient(patient((record(), found)), {"CrossDataset": self.strategy}, 0.5)
        assert [(row.slice, row.status) for row in rows] == [(4, "uncertain"), (6, "uncertain")]
        assert {row.lesion for row in rows} == {"000001_01_01_001-020/luna-0"}

    def test_not_where_an_annotation_or_a_mined_one_is(self):
        touching = BOX + 19
        found = proposals(luna=tracklets((4, touching, [0.9] * 3)))
        volumes = patient((record(lesions=[(5, BOX)]), found))
        assert boxes_of(self.strategy(volumes)[0]) == [4, 6]
        volumes[0].known.add("mined", np.array([[6, *BOX]]), BoxStatus.LESION)
        assert boxes_of(self.strategy(volumes)[0]) == [4]

    def test_two_experts_at_one_place_make_one_region(self):
        found = proposals(luna=tracklets((4, FAR, [0.6])), lits=tracklets((4, FAR + 1, [0.8])))
        (row,) = mine_patient(patient((record(), found)), {"CrossDataset": self.strategy}, 0.5)
        assert row.lesion.endswith("lits-0")


def test_strategies_run_in_order_and_know_what_came_before():
    """A lesion that cross-slice propagation has followed is no uncertain region on those slices."""
    found = proposals(fused=tracklets((4, BOX, [0.9] * 3)), luna=tracklets((4, BOX, [0.9] * 5)))
    strategies = {"CrossSlice": CrossSlice(), "CrossDataset": TestCrossDataset.strategy}
    volume = (record(lesions=[(5, BOX)]), found)
    rows = mine_patient(patient(volume), strategies, 0.5)
    assert [(r.strategy, r.slice) for r in rows] == [
        ("CrossSlice", 4), ("CrossSlice", 6), ("CrossDataset", 7), ("CrossDataset", 8),
    ]  # fmt: skip
    rows = mine_patient(patient(volume), dict(reversed(strategies.items())), 0.5)
    assert [(r.strategy, r.slice) for r in rows] == [
        ("CrossDataset", 4), ("CrossDataset", 6), ("CrossDataset", 7), ("CrossDataset", 8),
        ("CrossSlice", 4), ("CrossSlice", 6),
    ]  # fmt: skip


def test_a_fourth_strategy_is_one_class():
    class Everything:
        def __call__(self, patient):
            return [
                Finding(
                    v.record["volume"],
                    f"{v.record['volume']}/all",
                    v.detections["luna"].boxes_of(0),
                    "hard_negative",
                )
                for v in patient
            ]

    STRATEGIES._do_register("Everything", Everything)
    try:
        strategy = STRATEGIES.get("Everything")()
        rows = mine_patient(
            patient((record(), proposals(luna=tracklets((4, FAR, [0.1]))))), {"Everything": strategy}, 0.5
        )
        assert [(row.strategy, row.status) for row in rows] == [("Everything", "hard_negative")]
    finally:
        del STRATEGIES._obj_map["Everything"]


def test_boxes_without_area_are_left_out():
    found = proposals(luna=tracklets((4, [10, 10, 10, 30], [0.9])))
    assert mine_patient(patient((record(), found)), {"CrossDataset": TestCrossDataset.strategy}, 0.5) == []

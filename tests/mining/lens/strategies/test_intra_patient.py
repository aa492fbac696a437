"""Intra-patient lesion matching (LENS, Section V-B) on hand-made proposals."""

import numpy as np
import pytest
from helpers.mining_proposals import patient, proposals, record, tracklets

from lens_d2.mining.lens.mine import mine_patient
from lens_d2.mining.lens.strategies import IntraPatient
from lens_d2.structures.detections import best_slice_boxes
from lens_d2.structures.status import BoxStatus

BOX = np.array([10.0, 10, 30, 30])


FAR = np.array([60.0, 60, 80, 80])


def boxes_of(finding):
    return [int(z) for z in finding.slice_boxes[:, 0]]


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


def test_best_slice_box_is_that_of_the_highest_score():
    found = tracklets((2, [BOX, BOX + 1, BOX + 2], [0.3, 0.9, 0.5]), (7, FAR, 0.2))
    np.testing.assert_allclose(best_slice_boxes(found), [[3, *(BOX + 1), 0.9], [7, *FAR, 0.2]])


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
        """An annotation matches all near tracklets, or the nearest alone if that is asked for."""
        found = tracklets((3, self.box(40), [0.3]), (3, self.box(20), [0.9]))
        strategy = IntraPatient(embed=embed_by(self.vectors), nearest_only=True)
        (finding,) = strategy(self.two_studies(found))
        assert finding.distance == pytest.approx(0.1, abs=1e-6)
        strategy = IntraPatient(embed=embed_by(self.vectors))
        assert len(strategy(self.two_studies(found))) == 2

    def test_where_the_nearest_is_known_there_is_no_match(self):
        volumes = self.two_studies(tracklets((3, self.box(40), [0.3]), (3, self.box(20), [0.9])))
        volumes[1].known.add("other", np.array([[3, *self.box(20)]]), BoxStatus.LESION)
        assert IntraPatient(embed=embed_by(self.vectors), nearest_only=True)(volumes) == []

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
        assert strategy.learn([record()], {}.get) == {}
        strategy.use({})
        assert strategy.distance == 0.2
        strategy = IntraPatient(
            embed=embed_by(self.vectors), calibrate=lambda embed, records: {"distance": 0.3, "pairs": len(records)}
        )
        assert strategy.learn([record()], {}.get) == {"distance": 0.3, "pairs": 1}
        assert strategy.distance == 0.15
        strategy.use({"distance": 0.3, "pairs": 1})
        assert strategy.distance == 0.3

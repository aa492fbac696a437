"""A round: P_H^R, P_M^R and P_M^- by the marks, P_H^+ by the threshold, P_H^- from the rest."""

import numpy as np
import pytest

from lens_d2.data.ledger.merge import apply_ledger
from lens_d2.data.ledger.table import LedgerRow, to_table
from lens_d2.data.sampler import SlicePool
from lens_d2.mining.harvester.pool import from_table, with_verdicts
from lens_d2.mining.harvester.pool import to_table as pool_table
from lens_d2.mining.harvester.rounds import LABEL_SETS, Rules, harvest_round, known_proposals
from lens_d2.structures.detections import VolumeDetections
from lens_d2.structures.records import make_lesion

LESIONS = [(10.0, 2), (30.0, 4), (50.0, 3)]  # x and key slice of three lesions, each 10 x 10 pixels


RULES = Rules(precision=0.5)


def record(name, marked, lesions=LESIONS):
    marks = [make_lesion(f"{name}/{i}", [[z, x, 5, x + 10, 15]]) for i, (x, z) in enumerate(lesions[:marked])]
    return {"volume": name, "series": name[:12], "first_slice": 3, "num_slices": 8, "lesions": marks}


def scored(*rows):
    """Proposals of (x, key slice, s_g, s_c): three slices each, the middle one with s_g."""
    slice_boxes = [[z + d, x, 5, x + 10, 15, s * (1 - 0.2 * abs(d))] for x, z, s, _ in rows for d in (-1, 0, 1)]
    owner = np.repeat(np.arange(len(rows)), 3)
    boxes = np.array([[x, 5, z - 1, x + 10, 15, z + 1] for x, z, _, _ in rows], dtype=float).reshape(-1, 6)
    s_g, s_c = (np.array([r[i] for r in rows], dtype=float) for i in (2, 3))
    return VolumeDetections(boxes, s_g, np.array(slice_boxes, dtype=float).reshape(-1, 6), owner, fpr_scores=s_c)


V_M, V_H = record("000001_01_01_003-010", 3), record("000002_01_01_003-010", 1)


ON_V_M = [(10, 2, 0.9, 0.9), (30, 4, 0.8, 0.5), (70, 3, 0.9, 0.3), (90, 3, 0.2, 0.1)]


ON_V_H = [(10, 2, 0.8, 0.9), (30, 4, 0.9, 0.8), (50, 3, 0.7, 0.2), (70, 3, 0.6, 0.1), (90, 5, 0.4, 0.2)]


def harvest(on_v_h=ON_V_H, before=(), number=1, rules=RULES):
    found = {V_M["volume"]: scored(*ON_V_M), V_H["volume"]: scored(*on_v_h)}
    return harvest_round([V_M], [V_H], lambda r: found[r["volume"]], list(before), number, rules)


def names(lesions):
    return [(x.volume[:6], x.number, x.annotation[21:], x.round) for x in lesions]


def test_a_round_divides_the_proposals():
    """On V_M s is 0.81 and 0.4 of lesions, 0.27 and 0.02 of others: with 0.27 two of three are right."""
    result = harvest()
    assert result.threshold == pytest.approx(0.27) and result.precision == pytest.approx(2 / 3)
    assert names(result.lesions) == [
        ("000002", 0, "0", 1), ("000002", 1, "", 1), ("000001", 0, "0", 1), ("000001", 1, "1", 1),
    ]  # fmt: skip
    assert names(result.verified_negatives) == [("000001", 2, "", 1), ("000001", 3, "", 1)]
    assert names(result.negatives) == [("000002", 2, "", 1), ("000002", 3, "", 1)]
    assert result.new == 1


def test_all_proposals_of_v_m_that_hit_no_mark_are_negatives_unless_pieces_of_lesions_are_left_out():
    """A box 6 of 10 pixels beside a lesion (IoU 0.25) hits no mark; a box on a slice next to a mark's neither."""
    found = scored((10, 2, 0.9, 0.9), (16, 2, 0.9, 0.1), (50, 5, 0.9, 0.1), (70, 3, 0.9, 0.1))
    for iou, numbers in ((1.1, [1, 2, 3]), (0.5, [1, 2, 3]), (0.2, [2, 3])):
        result = harvest_round([V_M], [V_H], lambda r: found, [], 1, Rules(precision=0.2, negative_iou=iou))
        assert [x.number for x in result.verified_negatives] == numbers
    followed = scored((50, 4, 0.9, 0.9), (50, 5, 0.8, 0.1))  # the first goes through slice 3, where the mark is
    for iou, numbers in ((1.1, [1]), (0.1, [])):
        result = harvest_round([V_M], [V_H], lambda r: followed, [], 1, Rules(precision=0.2, negative_iou=iou))
        assert [x.number for x in result.verified_negatives] == numbers


def test_what_may_well_be_a_lesion_is_no_hard_negative_where_it_is_asked():
    """Of V_H's rest, s of the proposals 2 and 3 is 0.14 and 0.06. V_M's are known to be none."""
    for thresh, numbers in ((0.2, [2, 3]), (0.1, [3]), (0.0, [])):
        result = harvest(rules=Rules(precision=0.5, negative_lesion_score=thresh))
        assert [x.number for x in result.negatives if x.volume == V_H["volume"]] == numbers
        assert [x.number for x in result.verified_negatives] == [2, 3]


def test_hard_negatives_of_v_m_can_be_limited_as_those_of_v_h_are():
    """On V_M the proposals 2 and 3 hit no mark; s_g is 0.9 and 0.2."""
    for limit, numbers in ((-1, [2, 3]), (5, [2]), (0, [])):
        result = harvest(rules=Rules(precision=0.5, verified_negatives_per_volume=limit))
        assert [x.number for x in result.verified_negatives] == numbers
        assert [x.number for x in result.negatives if x.volume == V_H["volume"]] == [2, 3]


def test_the_classifier_learns_from_what_is_known():
    found = {V_M["volume"]: scored(*ON_V_M), V_H["volume"]: scored(*ON_V_H)}
    hitting, others = known_proposals([V_M, V_H], lambda r: found[r["volume"]], RULES)
    assert [len(x) for x in hitting.values()] == [2, 1] and [len(x) for x in others.values()] == [2, 4]
    assert hitting[V_H["volume"]][0].tolist() == [10, 5, 1, 20, 15, 3]


def test_a_piece_of_a_lesion_is_no_negative_of_the_classifier():
    """A box 6 of 10 pixels beside a lesion hits no mark (IoU 0.25)."""
    found = scored((10, 2, 0.9, 0.9), (16, 2, 0.9, 0.1), (70, 3, 0.9, 0.1))
    for iou, count in ((0.5, 2), (0.2, 1)):
        _, others = known_proposals([V_M], lambda r: found, Rules(negative_iou=iou))
        assert len(others[V_M["volume"]]) == count


def judged(result, records, verdicts):
    """The pool, after a radiologist has given verdicts on lesions of the ledger, by their ids."""
    ledger = to_table(result.rows(records)).to_pandas()
    ledger["status"] = [
        verdicts.get(x, status) for x, status in zip(ledger["lesion"], ledger["status"], strict=True)
    ]
    return with_verdicts(result.pool, ledger)


def test_what_a_radiologist_has_rejected_is_harvested_no_more():
    """Neither from the pool nor found again; nor is it a lesion that counts. The mark's own proposal stays."""
    first = harvest()
    found = next(x for x in first.lesions if x.volume == V_H["volume"] and not x.annotation)
    second = harvest(before=judged(first, [V_M, V_H], {found.lesion: "rejected"}), number=2)
    assert names(x for x in second.lesions if x.volume == V_H["volume"]) == [("000002", 0, "0", 1)]
    assert second.new == 0
    kept = from_table(pool_table(second.pool))  # the third round knows it, too
    assert [x.lesion for x in kept if x.status == "rejected"] == [found.lesion]
    assert harvest(before=kept, number=3).new == 0
    assert {r.status for r in second.rows([V_M, V_H]) if r.lesion == found.lesion} <= {"rejected"}


@pytest.mark.parametrize("verdict", ["accepted", "unsure"])
def test_a_hard_negative_that_may_be_a_lesion_is_none_any_more(verdict):
    """Of V_H it joins the lesions, or what training ignores; of V_M it counts as a lesion where precision does."""
    first = harvest()
    wrong = [next(x for x in first.negatives), next(x for x in first.verified_negatives if x.number == 2)]
    before = judged(first, [V_M, V_H], {x.lesion: verdict for x in wrong})
    second = harvest(before=before, number=2)
    left = {(x.volume, x.number) for x in (*second.negatives, *second.verified_negatives)}
    assert not left & {(x.volume, x.number) for x in wrong}
    rows = second.rows([V_M, V_H])
    for x in wrong:
        assert {r.status for r in rows if r.lesion == x.lesion} == {verdict}
        assert (x.lesion in {y.lesion for y in second.lesions}) == (verdict == "accepted")
    assert second.precision == pytest.approx(3 / 4 if verdict == "accepted" else 2 / 3)
    found = {V_M["volume"]: scored(*ON_V_M)}
    lesions, others = known_proposals([V_M], lambda r: found[r["volume"]], RULES, before)
    assert (len(lesions[V_M["volume"]]), len(others[V_M["volume"]])) == (
        (3, 1) if verdict == "accepted" else (2, 1)
    )


def test_no_lesion_of_the_pool_is_a_hard_negative_whatever_pieces_are():
    """That at 30 is now found less surely, by the very boxes."""
    first = harvest()
    second = harvest([(10, 2, 0.9, 0.95), (30, 4, 0.6, 0.1)], first.pool, 2)
    assert [x.number for x in second.lesions if x.volume == V_H["volume"]] == [1, 0] and not second.negatives


def test_verdicts_on_a_part_of_a_lesion_and_corrected_boxes():
    """Of a harvested lesion on slices 3, 4 and 5 the last is refused, and the box on slice 4 made narrower."""
    first = harvest()
    (lesion,) = (x for x in first.lesions if not x.annotation)
    ledger = to_table(lesion.rows({3, 4, 5})).to_pandas()
    ledger["status"] = ["accepted", "accepted", "rejected"]
    ledger.loc[1, "x2"] = 37.0
    (left,) = with_verdicts([lesion], ledger)
    assert left.status == "accepted" and left.slice_boxes[:, 0].tolist() == [3, 4]
    assert left.slice_boxes[1].tolist() == [4, 30, 5, 37, 15, 0.9]
    ledger.loc[1, "status"] = "rejected"
    (left,) = with_verdicts([lesion], ledger)
    assert left.status == "accepted" and left.slice_boxes[:, 0].tolist() == [3]
    assert with_verdicts([lesion], ledger.assign(status="annotation")) == [lesion]


@pytest.mark.parametrize(
    ("statuses", "verdict", "slices"),
    [
        (["annotation", "annotation", "rejected"], "accepted", [3, 4]),
        (["annotation", "accepted", "annotation"], "accepted", [3, 4, 5]),
        (["annotation", "unsure", "annotation"], "unsure", [3, 4, 5]),
        (["unsure", "rejected", "rejected"], "unsure", [3]),
        (["hard_negative", "rejected", "hard_negative"], "rejected", [3, 5]),
    ],
)
def test_a_verdict_on_some_slices_holds_in_later_rounds(statuses, verdict, slices):
    """Though the next round finds the lesion more surely, and on the refused slice as well."""
    first = harvest()
    (lesion,) = (x for x in first.lesions if not x.annotation)
    ledger = to_table(lesion.rows({3, 4, 5})).to_pandas().assign(status=statuses)
    before = with_verdicts(first.pool, ledger)
    second = harvest([(10, 2, 0.8, 0.9), (30, 4, 0.99, 0.99)], before, 2)
    (kept,) = (x for x in second.pool if x.volume == V_H["volume"] and not x.annotation)
    assert kept.status == verdict and kept.slice_boxes[:, 0].tolist() == slices


def test_what_the_given_annotations_leave_open_is_no_negative_and_does_not_count():
    """V_M made of a reviewed ledger: the proposal at 70 is on a region of which the radiologist was unsure."""
    open_one = make_lesion("open", [[3, 70, 5, 80, 15]], status="unsure")
    reviewed = {**V_M, "lesions": [*V_M["lesions"], open_one]}
    found = {V_M["volume"]: scored(*ON_V_M), V_H["volume"]: scored(*ON_V_H)}
    for own, negatives, counted in ((V_M, [2, 3], True), (reviewed, [3], False)):
        _, others = known_proposals([own], lambda r: found[r["volume"]], RULES)
        assert len(others[V_M["volume"]]) == len(negatives)
        result = harvest_round([own], [V_H], lambda r: found[r["volume"]], [], 1, Rules(precision=0.6))
        assert [x.number for x in result.verified_negatives] == negatives
        assert (result.threshold > 0.1) == counted  # two of three are lesions with it, and with that at 90 without


def test_a_row_that_a_radiologist_has_drawn_on_a_marked_lesion():
    """On slice 4, of the mark on slice 2 of V_H, apart from what is found of it: no id is in the ledger twice."""
    name = V_H["volume"]
    drawn = LedgerRow(
        "drawn", name, 4, 80.0, 5.0, 90.0, 15.0, f"{name}/0", "reader", 1, np.nan, np.nan, "", "accepted"
    )
    before = with_verdicts([], to_table([drawn]).to_pandas())
    second = harvest(before=before, number=2)
    rows = [r for r in second.rows([V_M, V_H]) if r.volume == name]
    assert len({r.id for r in rows}) == len(rows)
    assert [(r.slice, r.status) for r in rows if r.lesion == f"{name}/0"] == [(4, "accepted")]


def test_a_set_of_ones_own_may_have_names_of_an_earlier_harvest():
    """An accepted hard negative of V_M is one of its lesions, and the new round's second proposal has its name."""
    lesion = make_lesion(f"{V_M['volume']}/negative-1-2", [[7, 90, 5, 100, 15]])
    mine = {**V_M, "lesions": [*V_M["lesions"], lesion]}
    found = {V_M["volume"]: scored(*ON_V_M), V_H["volume"]: scored()}
    rows = harvest_round([mine], [V_H], lambda r: found[r["volume"]], [], 1, RULES).rows([mine, V_H])
    assert f"{lesion['id']}'" in {r.lesion for r in rows} and lesion["id"] not in {r.lesion for r in rows}


def test_a_ledger_has_the_label_sets_that_are_asked_for():
    result = harvest()
    kinds = {name: {r.lesion for r in result.rows([V_M, V_H], (name,))} for name in LABEL_SETS}
    together = set().union(*kinds.values())
    assert together <= {r.lesion for r in result.rows([V_M, V_H])} and sum(map(len, kinds.values())) == len(
        together
    )
    assert [x[21:] for x in sorted(kinds["harvested"])] == ["lesion-1-1"]
    assert kinds["verified_recovered"] == {f"{V_M['volume']}/{i}" for i in (0, 1)}  # on another mark's slice
    assert [x.lesion for x in result.of(("recovered",))] == [f"{V_H['volume']}/0"]
    assert not kinds["recovered"]  # it is best on the mark's own slice, and no other slice joins
    assert [x[:6] for x in sorted(kinds["verified_negatives"])] == ["000001"] * 2
    assert [x[:6] for x in sorted(kinds["negatives"])] == ["000002"] * 2
    assert result.rows([V_M, V_H], ()) == []
    assert len(result.rows([V_M, V_H], ("negatives",) * 2)) == len(result.rows([V_M, V_H], ("negatives",)))


def test_nothing_is_harvested_where_the_precision_is_never_reached(caplog):
    result = harvest(rules=Rules(precision=1.0))
    assert "round 1: no score has a precision above 1 on V_M" in caplog.text
    assert harvest().negatives and not result.negatives and result.verified_negatives
    assert result.threshold == np.inf and np.isnan(result.precision) and result.new == 0
    assert [x.annotation[21:] for x in result.lesions] == ["0", "0", "1"]


def test_lesions_accumulate_and_hard_negatives_do_not():
    first = harvest()
    # The lesion at 30 is now found less surely, that at 50 more; what was a hard negative is no longer found.
    second = harvest([(10, 2, 0.9, 0.95), (30, 4, 0.6, 0.1), (50, 3, 0.8, 0.9)], first.lesions, 2)
    of_v_h = [x for x in second.lesions if x.volume == V_H["volume"]]
    assert names(of_v_h) == [("000002", 1, "", 1), ("000002", 0, "0", 2), ("000002", 2, "", 2)]
    assert second.new == 1
    assert {x.round for x in second.verified_negatives} == {2}
    assert not second.negatives  # a lesion of the pool is no negative


def test_the_ledger_has_all_known_lesions_of_the_slices_that_train():
    """V_M is marked on 2, 3 and 4; on V_H 2 is marked, 4 has a new lesion and 3 two hard negatives."""
    rows = harvest().rows([V_M, V_H])
    lesions = [(r.lesion[:6], r.lesion[21:], r.slice) for r in rows if r.status == "annotation"]
    assert sorted(lesions) == [
        ("000001", "0", 3), ("000001", "1", 3), ("000002", "0", 3), ("000002", "lesion-1-1", 3),
        ("000002", "lesion-1-1", 4),
    ]  # fmt: skip
    negatives = [(r.volume[:6], r.slice) for r in rows if r.status == "hard_negative"]
    assert negatives == [(name, z) for name in ("000001", "000001", "000002", "000002") for z in (2, 3, 4)]


def test_hard_negatives_can_stand_on_the_slices_of_lesions_alone():
    """Slice 3 of V_H has no lesion's best box, and does not join."""
    rows = harvest().rows([V_M, V_H], negative_slices=False)
    of_v_h = [(r.lesion[21:], r.slice) for r in rows if r.volume == V_H["volume"]]
    assert of_v_h == [("lesion-1-1", 4), *((f"negative-1-{i}", z) for i in (2, 3) for z in (2, 4))]


def test_the_ledger_has_no_box_that_is_given():
    """The best slice of a proposal that hits a mark is here one more of the marked lesion."""
    elsewhere = scored((10, 3, 0.9, 0.9))
    result = harvest_round([V_M], [V_H], lambda r: scored() if r is V_M else elsewhere, [], 1, RULES)
    (row,) = result.rows([V_M, V_H])
    assert (row.lesion, row.slice, row.annotation) == (f"{V_H['volume']}/0", 3, f"{V_H['volume']}/0")


def test_the_marks_slice_and_the_best_slice_are_both_in_an_epoch():
    """On V_H, a lesion is marked on slice 2 and found best on slice 5, and another one is harvested on slice 4."""
    found = scored((10, 2, 0.5, 0.9), (30, 4, 0.9, 0.8))
    best = found.slice_boxes[2].copy()
    best[[0, 5]] = 5, 0.95
    found.slice_boxes[2], found.scores[0] = best, 0.95
    everything = {V_M["volume"]: scored(*ON_V_M), V_H["volume"]: found}
    result = harvest_round([V_M], [V_H], lambda r: everything[r["volume"]], [], 1, RULES)
    ledger = to_table(result.rows([V_M, V_H], ("recovered", "harvested"))).to_pandas()
    records = apply_ledger([V_H], ledger)
    slices = SlicePool.from_records(records, [0], with_negatives=False, epoch="slices")
    assert sorted(z for _, z in slices.draw(0.0, np.random.default_rng(0))) == [2, 4, 5]
    lesions = SlicePool.from_records(records, [0], with_negatives=False)
    assert len(lesions.draw(0.0, np.random.default_rng(0))) == 2  # LENS's rule: one slice of each lesion


def test_slices_of_hard_negatives_are_drawn_too():
    with_negative = record("v", 1)
    with_negative["lesions"].append(make_lesion("v/n", [[6, 40, 5, 50, 15]], status="hard_negative"))
    pool = SlicePool.from_records([with_negative], [0], with_negatives=True)
    assert sorted(z for _, z in pool.draw(0.0, np.random.default_rng(0))) == [2, 6]
    assert 6 not in pool.negatives[0][1]
    assert [z for _, z in pool.draw(0.0, np.random.default_rng(0), hard_negative_ratio=0.0)] == [2]
    with_negative["lesions"] += [
        make_lesion(f"v/{z}", [[z, 40, 5, 50, 15]], status="hard_negative") for z in (5, 7)
    ]
    pool = SlicePool.from_records([with_negative], [0], with_negatives=False)
    drawn = {tuple(sorted(z for _, z in pool.draw(0.0, np.random.default_rng(i)))) for i in range(20)}
    assert drawn == {(2, 5), (2, 6), (2, 7)}  # one for the one lesion


def test_harvested_lesions_have_the_precision_of_their_score_on_v_m():
    """s of V_M: 0.81 and 0.4 of lesions, 0.27 and 0.02 of others; two steps, each with one of both kinds more."""
    result = harvest()
    precision = {(x.volume[:6], x.number): x.precision for x in result.lesions}
    assert precision["000002", 1] == pytest.approx(3 / 4)  # s is 0.72
    assert np.isnan([value for key, value in precision.items() if key != ("000002", 1)]).all()  # they hit marks
    again = from_table(pool_table(result.pool))
    assert [x.precision for x in again if x.number == 1 and x.volume == V_H["volume"]] == [pytest.approx(3 / 4)]
    rows = [x for x in result.rows([V_M, V_H]) if x.precision > 0]
    assert {(x.volume, x.status, round(x.disagreement, 9)) for x in rows} == {(V_H["volume"], "annotation", 0.1)}


def test_a_rejected_lesion_is_a_hard_negative_of_training():
    first = harvest()
    rows = [row._replace(status="rejected") if row.precision > 0 else row for row in first.rows([V_M, V_H])]
    second = harvest(before=with_verdicts(first.pool, to_table(rows).to_pandas()), number=2)
    ledger = to_table(second.rows([V_M, V_H])).to_pandas()
    rejected = ledger[ledger["status"] == "rejected"]
    (lesion,), merged = set(rejected["lesion"]), apply_ledger([V_H], ledger)[0]["lesions"]
    assert 4 in set(rejected["slice"])  # its best one
    assert {x["id"]: x["status"] for x in merged}[lesion] == "hard_negative"

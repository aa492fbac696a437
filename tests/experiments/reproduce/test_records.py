"""Records: small, and enough for the figures of the evaluation that they are of."""

import json
from dataclasses import replace

import numpy as np
import pytest

from experiments.reproduce import records
from experiments.reproduce.tables import Cohort, Run
from lens_d2.evaluation.bootstrap import intervals
from lens_d2.evaluation.protocols import PROTOCOLS
from lens_d2.evaluation.sets import BoxDetections, BoxTruth
from lens_d2.io.errors import DataError

RUN, COHORT = Run("training", "configs/phantom/cecn.yaml", {"SEED": 1}), Cohort("tiny", 0)


def evaluated(volumes=12, detections=40, seed=0):
    """Truth and detections: two lesions in each volume but the first, boxes on and beside them."""
    rng = np.random.default_rng(seed)
    volume = np.repeat(np.arange(1, volumes), 2)
    low = np.tile([[10, 10, 2], [60, 60, 8]], (volumes - 1, 1)).astype(float)
    truth = BoxTruth([f"v{v}" for v in range(volumes)], volume, np.hstack([low, low + [20, 20, 3]]))
    owner = np.repeat(np.arange(volumes), detections)
    corner = rng.choice([10.0, 60, 120], len(owner))[:, None] + rng.normal(0, 9, (len(owner), 3))
    boxes = np.hstack([corner, corner + [20, 20, 3]])
    boxes[:, [2, 5]] = np.tile([2, 11], (len(owner), 1))
    return truth, BoxDetections(owner, boxes, rng.random(len(owner)))


@pytest.mark.parametrize("near_one", [False, True])
@pytest.mark.parametrize("detections", [5, 40])
def test_sensitivities_and_intervals_are_those_of_the_evaluation(detections, near_one):
    """Also of a detector that is sure of everything, and tells its best boxes apart in the ninth digit."""
    truth, found = evaluated(detections=detections)
    if near_one:
        found = replace(found, scores=1 - 1e-9 * found.scores)
    protocol = PROTOCOLS.get("lens3d")()
    match = protocol.match(truth, found)
    compacted = records.compact(match.events, 8.0)
    back = records.events_of(json.loads(json.dumps(compacted)))
    np.testing.assert_allclose(protocol.sensitivities(back), protocol.sensitivities(match.events), atol=1e-12)
    own, of_record = (intervals(events, protocol, 200, 0) for events in (match.events, back))
    np.testing.assert_allclose(of_record["average_sensitivity_ci"], own["average_sensitivity_ci"], atol=1e-12)
    assert [len(own) for own in compacted["hits"]] == [0] + [2] * 11
    kept = sum(map(len, compacted["false_positives"]))
    assert kept <= 2 * 8 * 12 and (kept < len(match.events.fp_rank)) == (detections == 40)


def test_equal_scores_enter_together():
    content = {"hits": [[0.5, None], [0.5]], "false_positives": [[0.5], [0.9, 0.1]]}
    events = records.events_of(content)
    assert events.hit_rank.tolist() == [1, -1, 1] and events.fp_rank.tolist() == [0, 1, 2]
    assert events.fp_volume.tolist() == [1, 0, 1] and events.num_volumes == 2


def test_nothing_found():
    events = records.events_of({"hits": [[None], []], "false_positives": [[], []]})
    assert PROTOCOLS.get("lens3d")().sensitivities(events).max() == 0


def test_numbers_of_an_evaluation_of_an_expert_and_of_the_run():
    metrics = {"fps": [0.125, 8], "sensitivity": [0.1, 0.5], "average_sensitivity": 0.3, "ap": 0.2}
    other = {**metrics, "average_sensitivity": 0.4}
    evaluation = {
        "metrics": {**metrics, "protocol": "p3d", "experts": {"luna": other}},
        "volumes": [],
        "events": {},
    }
    record = {"evaluations": {"train": {"d": evaluation}}, "numbers": {"boxes": 7}}
    own = records.numbers_of(record, "train", "d")
    assert own == {
        "boxes": 7,
        "sensitivity@0.125": 0.1,
        "sensitivity@8": 0.5,
        "average_sensitivity": 0.3,
        "ap": 0.2,
    }
    assert records.numbers_of(record, "train", "d", "luna")["average_sensitivity"] == 0.4
    assert records.numbers_of(record, "train", "d", "lits") == {"boxes": 7} == records.numbers_of(record, "", "d")
    assert records.events_in(record, "train", "d", "lits") is records.events_in(record, "", "d") is None


def test_numbers_of_a_harvest():
    rows = [{"round": 0, "labels": "R_H", "R@100P": 0.4}]
    rows += [{"round": n, "labels": f"P_H,{n}", "mean": 0.9, "R@80P": 0.9} for n in (1, 2)]
    rows += [{"round": n, "labels": f"P_H,1..{n}^+", "mean": 0.5 - n / 10, "R@80P": 0.6} for n in (1, 2)]
    assert records.harvest_numbers(rows, "R_H") == {"R@100P": 0.4}
    assert records.harvest_numbers(rows, "P_H,1") == {"mean": 0.9, "R@80P": 0.9}
    found = records.harvest_numbers(rows, "rounds")
    assert found == {"mean@1": 0.4, "mean@2": 0.3, "gain@1": 0.0, "gain@2": 0.0}


def test_a_record_is_of_its_run(tmp_path):
    path = records.record_path(tmp_path, RUN, COHORT, 1)
    assert records.read_record(tmp_path, RUN, COHORT, 1) is None
    path.parent.mkdir()
    own = {"run": RUN.describe(), "seed": 1, "cohort": {"size": COHORT.size, "seed": COHORT.seed}}
    path.write_text(json.dumps(own))
    assert records.read_record(tmp_path, RUN, COHORT, 1)["seed"] == 1
    others = {"run": {**RUN.describe(), "opts": {}}}, {"seed": 2}, {"cohort": {"size": COHORT.size, "seed": 77}}
    for other in others:
        path.write_text(json.dumps({**own, **other}))
        with pytest.raises(DataError, match="is the record of another run"):
            records.read_record(tmp_path, RUN, COHORT, 1)
    path.write_text("{")
    with pytest.raises(DataError, match="no record of a run"):
        records.read_record(tmp_path, RUN, COHORT, 1)

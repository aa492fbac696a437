"""3D proposals are scored by the round's classifier, on a fold of V_M by that of the fold."""

import numpy as np
import pytest
from detectron2.config import get_cfg
from helpers.mining_proposals import proposals, record, tracklets

from lens_d2 import add_lens_config
from lens_d2.mining.harvester import proposals as module
from lens_d2.mining.harvester.proposals import GROUP, score_proposals_3d, stack_proposals
from lens_d2.mining.shards import ShardStore

BOX = np.array([10.0, 10, 30, 30])


@pytest.fixture
def cfg():
    cfg = get_cfg()
    add_lens_config(cfg)
    return cfg


@pytest.fixture
def shards(tmp_path):
    return ShardStore(tmp_path / "raw", "model", lambda record: proposals(fused=tracklets((4, BOX, [0.9] * 3))))


@pytest.fixture
def scored(cfg, shards, tmp_path, monkeypatch):
    """score_proposals_3d with classifiers that give what their file says."""
    monkeypatch.setattr(module, "load_classifier", lambda cfg, role, path: float(path.read_text()))
    monkeypatch.setattr(
        module, "score_proposals", lambda cfg, classifier, records, found: [(0, np.full(1, classifier))]
    )
    weights = [tmp_path / name for name in ("lpc", "fold_0", "fold_1")]
    for path, score in zip(weights, (0.5, 0.1, 0.2), strict=True):
        path.write_text(str(score))

    def score(folds):
        return score_proposals_3d(cfg, shards, weights, folds, tmp_path / "scored"), weights

    return score


def test_raw_proposals_are_stacked_and_extended(cfg, shards):
    found = stack_proposals(cfg, shards)(record())
    assert found.boxes[:, [2, 5]].tolist() == [[3, 7]] and found.fpr_scores is None
    cfg.HARVEST.PROPOSALS = "luna"
    assert len(stack_proposals(cfg, shards)(record())) == 0


def test_a_fold_is_judged_by_its_own_classifier(scored):
    one, two, other = (record(f"00000{i}_01_01") for i in (1, 2, 3))
    store, _ = scored({one["volume"]: 0, two["volume"]: 1})
    assert [store.read(r)[GROUP].fpr_scores.tolist() for r in (one, two, other)] == [[0.1], [0.2], [0.5]]


def test_scores_of_other_weights_are_outdated(scored):
    store, weights = scored({})
    store.read(record())
    weights[0].write_text("0.6")
    store, _ = scored({})
    assert store.fault(record()) == "outdated, it has another fingerprint"
    assert store.read(record())[GROUP].fpr_scores.tolist() == [0.6]

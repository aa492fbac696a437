"""Training of the lesion embedding."""

import numpy as np
import pytest
import torch
from helpers.marks import embedding_cfg, marked_blocks, write_labels

from lens_d2.engine import embedding
from lens_d2.engine.embedding import EmbeddingObjective, train_embedding
from lens_d2.io.errors import DataError
from lens_d2.modeling.embedding import LesaNet


@pytest.fixture
def cfg(tmp_path):
    return embedding_cfg(tmp_path)


@pytest.fixture
def records(tmp_path):
    return marked_blocks(tmp_path)


@pytest.fixture
def label_files(cfg):
    write_labels(cfg)


def test_the_objective_weighs_four_losses_and_repeats_itself(cfg):
    cfg.MODEL.EMBEDDING.LOSS_WEIGHTS = (1.0, 0.0, 5.0, 2.0)
    torch.manual_seed(0)
    network = LesaNet(cfg, 3).eval()
    objective = EmbeddingObjective(network, (np.ones(3), np.ones(3)), cfg.MODEL.EMBEDDING)
    batch = {
        "patch": torch.randn(4, 3, 32, 32) * 300, "box": torch.tensor([[8.0, 8, 24, 24]]).expand(4, -1),
        "positive": torch.eye(4, 3) > 0, "known": torch.ones(4, 3) > 0, "reliable": torch.ones(4, 3) > 0,
        "seed": torch.arange(4),
    }  # fmt: skip
    batch["positive"][3, 0] = True
    first, second = objective(batch), objective(batch)
    assert set(first) == {"loss_labels", "loss_rhem", "loss_triplet", "loss_propagated"}
    assert first["loss_rhem"] == 0 and first["loss_triplet"] > 0
    torch.testing.assert_close(first["loss_propagated"], 2 * first["loss_labels"])
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not [name for name in objective.state_dict() if "weight" in name and "network" not in name]


def test_labels_and_triplets_are_drawn_from_the_batch_of_all_ranks(cfg, monkeypatch):
    """Two lesions a rank, of which no triplet can be drawn, are four of the batch."""
    torch.manual_seed(0)
    objective = EmbeddingObjective(LesaNet(cfg, 3).eval(), (np.ones(3), np.ones(3)), cfg.MODEL.EMBEDDING)
    batch = {
        "patch": torch.randn(4, 3, 32, 32) * 300, "box": torch.tensor([[8.0, 8, 24, 24]]).expand(4, -1),
        "positive": torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 0], [1, 0, 0]]) > 0,
        "known": torch.ones(4, 3) > 0, "reliable": torch.ones(4, 3) > 0, "seed": torch.arange(4),
    }  # fmt: skip
    gathered = []
    monkeypatch.setattr(embedding, "gather_over_ranks", lambda rows: gathered.append(rows) or rows)
    whole = objective(batch)
    of_whole = iter(list(gathered))
    monkeypatch.setattr(embedding, "gather_over_ranks", lambda rows: next(of_whole))
    share = objective({name: rows[:2] for name, rows in batch.items()})
    assert whole["loss_triplet"] > 0 and next(of_whole, None) is None
    for name in ("loss_rhem", "loss_triplet"):
        assert share[name] == whole[name]


def test_training_goes_on_where_it_was_interrupted(cfg, records, label_files, tmp_path):
    cfg.MODEL.EMBEDDING.SOLVER.MAX_ITER, cfg.MODEL.EMBEDDING.SOLVER.CHECKPOINT_PERIOD = 4, 2
    whole = torch.load(train_embedding(cfg, records), weights_only=True)["model"]
    folder = tmp_path / "output" / "embedding"
    (folder / "model_final.pth").unlink()
    (folder / "last_checkpoint").write_text("model_0000001.pth")
    resumed = torch.load(train_embedding(cfg, records, resume=True), weights_only=True)["model"]
    for key, value in whole.items():
        torch.testing.assert_close(resumed[key], value, msg=key)


def test_marks_without_labels_are_an_error(cfg, records, label_files):
    for record in records:
        for lesion in record["lesions"]:
            lesion["recist"] = None
    with pytest.raises(DataError, match="labels.json: no mark of deeplesion_train has a label"):
        train_embedding(cfg, records)


def test_absent_initial_weights_are_named(cfg, records, label_files, tmp_path):
    cfg.MODEL.EMBEDDING.BACKBONE_WEIGHTS, cfg.MODEL.EMBEDDING.SOLVER.MAX_ITER = str(tmp_path / "absent.pth"), 1
    with pytest.raises(DataError, match="absent.pth"):
        train_embedding(cfg, records)

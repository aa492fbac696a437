"""Embeddings of boxes in volumes."""

import numpy as np
import pytest
import torch
from helpers.marks import embedding_cfg, marked_blocks, write_labels

from lens_d2.data.cache import build_cache
from lens_d2.engine.embedding import train_embedding
from lens_d2.io.errors import DataError
from lens_d2.modeling.embedding import LesaNet, LesionEmbedder, build_embed, load_lesanet


@pytest.fixture
def cfg(tmp_path):
    return embedding_cfg(tmp_path)


@pytest.fixture
def records(tmp_path):
    return marked_blocks(tmp_path)


@pytest.fixture
def label_files(cfg):
    write_labels(cfg)


def test_it_learns_which_lesions_are_alike(cfg, records, label_files):
    cfg.MODEL.EMBEDDING.WEIGHTS = train_embedding(cfg, records)
    embed = build_embed(cfg)
    items = [(r, x["boxes"][0][0], x["boxes"][0][1:]) for r in records for x in r["lesions"]]
    embedding = embed(items)
    assert embedding.shape == (12, 16) and embedding.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, rtol=1e-5)
    distance = np.linalg.norm(embedding[:, None] - embedding[None], axis=2)
    alike = (np.arange(12)[:, None] - np.arange(12)) % 2 == 0
    assert distance[alike].mean() * 2 < distance[~alike].mean()
    # Order and company make no difference; no box, no row.
    order = np.random.default_rng(0).permutation(12)
    np.testing.assert_allclose(embed([items[i] for i in order]), embedding[order], atol=1e-5)
    small = LesionEmbedder(
        network=load_lesanet(cfg, cfg.MODEL.EMBEDDING.WEIGHTS), cache=build_cache(cfg), batch_size=1
    )
    np.testing.assert_allclose(small.embed(items), embedding, atol=1e-5)
    assert embed([]).shape == (0, 16)


def test_no_batch_is_larger_than_it_may_be(cfg, records, monkeypatch):
    """Volumes do not divide the batches."""
    sizes = []
    embedder = LesionEmbedder(network=LesaNet(cfg, 2), cache=build_cache(cfg), batch_size=5)
    monkeypatch.setattr(embedder, "_forward", lambda patches, boxes: sizes.append(len(boxes)) or np.zeros((1, 16)))
    embedder.embed([(r, x["boxes"][0][0], x["boxes"][0][1:]) for r in records for x in r["lesions"]])
    assert sizes == [5, 5, 2]


def test_checkpoints_of_other_architectures_are_refused(cfg, tmp_path):
    path = tmp_path / "wide.pth"
    torch.save({"model": LesaNet(cfg, 4).state_dict()}, path)
    assert load_lesanet(cfg, str(path)).label_scores.out_features == 4
    cfg.MODEL.EMBEDDING.WIDTH = 4
    with pytest.raises(DataError, match="wide.pth.*another architecture"):
        load_lesanet(cfg, str(path))
    torch.save({"model": {"conv1.weight": torch.zeros(1)}}, path)
    with pytest.raises(DataError, match="wide.pth: weights of another architecture: no key label_scores"):
        load_lesanet(cfg, str(path))
    with pytest.raises(DataError, match="MODEL.EMBEDDING.WEIGHTS: is empty"):
        build_embed(cfg)

"""The losses of the lesion embedding against values computed by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_d2.modeling.embedding.losses import (
    draw_triplets,
    label_similarity,
    rhem_loss,
    triplet_loss,
    weighted_cross_entropy,
)


def test_weighted_cross_entropy_by_hand():
    logits = torch.tensor([[0.0, math.log(3)], [-math.log(3), 2.0]])
    positive = torch.tensor([[True, False], [False, True]])
    known = torch.tensor([[True, True], [True, False]])
    heavy, light = torch.tensor([4.0, 2.0]), torch.tensor([1.0, 0.5])
    # Positive at 0.5: 4 ln 2; negative at 0.75: 0.5 ln 4; negative at 0.25: ln(4/3); the last is not known.
    expected = (4 * math.log(2) + 0.5 * math.log(4) + math.log(4 / 3)) / 4
    loss = weighted_cross_entropy(logits, positive, known, heavy, light)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_rhem_draws_reliable_labels_by_difficulty():
    logits = torch.tensor([[0.0, math.log(3), 5.0]], requires_grad=True)
    positive = torch.tensor([[True, False, False]])
    reliable = torch.tensor([[True, True, False]])
    # Difficulties 0.5 ** 2 and 0.75 ** 2, so shares 4/13 and 9/13, losses ln 2 and ln 4.
    expected = (4 * math.log(2) + 9 * math.log(4)) / 13
    generator = torch.Generator().manual_seed(0)
    loss = rhem_loss(logits, positive, reliable, generator, power=2.0, draws=200000)
    assert loss.item() == pytest.approx(expected, rel=5e-3)
    loss.backward()
    assert logits.grad[0, 2] == 0 and (logits.grad[0, :2] != 0).all()
    flat = rhem_loss(logits, positive, reliable, generator, power=0.0, draws=200000)
    assert flat.item() == pytest.approx((math.log(2) + math.log(4)) / 2, rel=5e-3)
    assert rhem_loss(logits, positive, ~reliable & False, generator).item() == 0


def test_similarity_is_shared_labels_times_jaccard():
    positive = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    similarity = label_similarity(positive)
    torch.testing.assert_close(similarity[0], torch.tensor([2.0, 0.5, 2 * 2 / 3, 0.0]))


def test_triplets_by_hand():
    positive = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 0, 1], [0, 0, 1]], dtype=torch.bool)

    def draw(min_similarity):
        drawn = draw_triplets(positive, 2000, torch.Generator().manual_seed(0), min_similarity)
        return {tuple(t) for t in drawn.tolist()}

    # 0 and 1 are alike (2.0); both share one of three labels with 2 (0.33) and nothing with 3; 2 and 3 share one
    # of two (0.5), and are each other's most similar.
    alike = {(0, 1, 2), (0, 1, 3), (1, 0, 2), (1, 0, 3), (2, 3, 0), (2, 3, 1), (3, 2, 0), (3, 2, 1)}
    assert draw(1.0) == draw(0.4) == alike
    assert draw(0.3) == draw(0.0) == alike | {(0, 2, 3), (1, 2, 3)}


@settings(max_examples=30, deadline=None)
@given(
    labels=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=7),
    least=st.sampled_from([0.0, 0.5, 1.0, 4.0]),
)
def test_triplets_of_any_batch(labels, least):
    positive = torch.tensor(labels, dtype=torch.bool)
    triplets = draw_triplets(positive, 50, torch.Generator().manual_seed(0), least)
    similarity = label_similarity(positive)
    for a, p, n in triplets.tolist():
        most = max(s for b, s in enumerate(similarity[a].tolist()) if b != a)
        assert len({a, p, n}) == 3 and 0 < similarity[a, p] > similarity[a, n]
        assert similarity[a, p] >= min(least, most)


def test_triplet_loss_by_hand():
    positive = torch.tensor([[1, 0], [1, 0], [0, 1]], dtype=torch.bool)
    embedding = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]], requires_grad=True)
    # Anchors 0 and 1: |0-1| = sqrt(0.4), |0-2| = sqrt(0.8), |1-2| = sqrt(0.08); lesion 2 has no similar one.
    from_0 = max(math.sqrt(0.4) - math.sqrt(0.8) + 0.1, 0)
    from_1 = max(math.sqrt(0.4) - math.sqrt(0.08) + 0.1, 0)
    generator = torch.Generator().manual_seed(0)
    drawn = draw_triplets(positive, 3000, torch.Generator().manual_seed(0))
    share = (drawn[:, 0] == 1).float().mean().item()
    loss = triplet_loss(embedding, positive, generator, margin=0.1, triplets=3000)
    assert share == pytest.approx(0.5, abs=0.05)
    assert loss.item() == pytest.approx((1 - share) * from_0 + share * from_1, rel=1e-4)
    loss.backward()
    assert torch.isfinite(embedding.grad).all()
    assert triplet_loss(embedding, positive[:, :1] & False, generator).item() == 0

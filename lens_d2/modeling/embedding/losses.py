"""The four losses of the lesion embedding: weighted cross-entropy (twice), RHEM, triplets.

Shape shorthand in this file:

    n: lesions of a batch
    C: labels
    E: length of the embedding
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def weighted_cross_entropy(
    logits: Tensor, positive: Tensor, known: Tensor, positive_weight: Tensor, negative_weight: Tensor
) -> Tensor:
    """Binary cross-entropy, mean over all labels of all lesions; the loss of an unknown label is 0.

    Args:
        logits: (n, C).
        positive: (n, C) bool.
        known: (n, C) bool.
        positive_weight: (C,) of a positive label.
        negative_weight: (C,) of a negative label.
    """
    weight = torch.where(positive, positive_weight, negative_weight) * known
    return F.binary_cross_entropy_with_logits(logits, positive.to(logits.dtype), weight)


def rhem_loss(
    logits: Tensor,
    positive: Tensor,
    reliable: Tensor,
    generator: torch.Generator,
    power: float = 2.0,
    draws: int = 10000,
) -> Tensor:
    """Relational hard example mining: mean cross-entropy of labels drawn by their difficulty.

    Labels of lesions are drawn with repetition, the probability proportional to |score - target| ** power. Only
    reliable labels take part: positive ones, and those that a positive one excludes.

    Args:
        logits: (n, C).
        positive: (n, C) bool.
        reliable: (n, C) bool.
        generator: of the draws, on the CPU.
        power: of the difficulty.
        draws: number of draws in a batch.
    """
    target = positive.to(logits.dtype)
    with torch.no_grad():
        difficulty = ((logits.sigmoid() - target).abs() ** power * reliable).flatten().double().cpu()
    if not difficulty.sum() > 0:
        return logits.sum() * 0
    drawn = torch.multinomial(difficulty, draws, replacement=True, generator=generator).to(logits.device)
    return F.binary_cross_entropy_with_logits(logits.flatten()[drawn], target.flatten()[drawn])


def label_similarity(positive: Tensor) -> Tensor:
    """(n, n) number of labels that two lesions share times the labels' Jaccard index."""
    labels = positive.float()
    shared = labels @ labels.T
    count = labels.sum(dim=1)
    union = count[:, None] + count - shared
    return shared * shared / union.clamp(min=1)


def draw_triplets(positive: Tensor, count: int, generator: torch.Generator, min_similarity: float = 1.0) -> Tensor:
    """Draw triplets: a lesion, a similar one, and one that is less similar to it.

    Args:
        positive: (n, C) bool.
        count: number of draws; those without two such lesions are left out.
        generator: of the draws, on the CPU.
        min_similarity: of similar lesions, by :func:`label_similarity`. Where no other lesion is as similar, it is
            the most similar one that shares a label.

    Returns:
        (at most count, 3) anchor, similar and dissimilar lesion.
    """
    similarity = label_similarity(positive.cpu())
    lesions = len(positive)
    anchor = torch.randint(lesions, (count,), generator=generator)
    others = ~torch.eye(lesions, dtype=torch.bool)
    most = (similarity * others).amax(dim=1, keepdim=True)
    related = (similarity > 0) & (similarity >= most.clamp(max=min_similarity)) & others
    similar, found = _draw_each(related, anchor, generator)
    less = (similarity[anchor] < similarity[anchor, similar][:, None]) & others[anchor]
    dissimilar, found_too = _draw_each(less, torch.arange(count), generator)
    return torch.stack([anchor, similar, dissimilar], dim=1)[found & found_too]


def _draw_each(eligible: Tensor, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(k,) a random eligible column for each of the rows, and whether there is one."""
    ranks = torch.rand(len(rows), eligible.shape[1], generator=generator).masked_fill(~eligible[rows], -1)
    best, column = ranks.max(dim=1)
    return column, best >= 0


def triplet_loss(
    embedding: Tensor,
    positive: Tensor,
    generator: torch.Generator,
    margin: float = 0.1,
    triplets: int = 5000,
    min_similarity: float = 1.0,
) -> Tensor:
    """Mean over triplets of how far the dissimilar lesion is from being ``margin`` farther than the similar one.

    Args:
        embedding: (n, E).
        positive: (n, C) bool.
        generator: as for :func:`draw_triplets`.
        margin: of the distances.
        triplets: number of draws.
        min_similarity: as for :func:`draw_triplets`.
    """
    drawn = draw_triplets(positive, triplets, generator, min_similarity).to(embedding.device)
    if not len(drawn):
        return embedding.sum() * 0
    anchor, similar, dissimilar = embedding[drawn].unbind(dim=1)
    return F.triplet_margin_loss(anchor, similar, dissimilar, margin=margin)

"""Classification where labels are missing: in a partially labelled dataset some of the background is lesions.

A treatment weighs background in the classification. ``MODEL.ROI_HEADS.MISSING_LABELS`` and
``MODEL.AFP.MISSING_LABELS`` name it, for proposals and for AFP's pixels; it serves the experts of
``MODEL.LENS.PARTIALLY_LABELED`` alone.

    OBHS         overlap-based hard sampling (Faster R-CNN): only what overlaps a known lesion is background
    OBSS         overlap-based soft sampling (Wu et al.): what overlaps less weighs less
    MOBHS        modified OBHS: everything is background, what overlaps weighs twice as much
    HIGH_SCORES  what the detector takes for a lesion weighs less, as it may be one (in neither paper)

The first three are for proposals (Lesion-Harvester, Section IV-F2): a pixel overlaps nothing. With the weight 0 a
proposal is not sampled. What is known to be no lesion, a hard negative, weighs 1.

To add one, write a function of (n,) overlaps and (n,) scores to (n,) weights under ``@MISSING_LABELS.register()``,
and under :func:`of_pixels` if it needs no overlap.

:class:`PartialLabels` also has the risk of positive-unlabelled learning (``MODEL.LENS.LABELED_SHARE``).

MGTM-SLLP, the treatment that works for every detector, mines the labels instead: see
:mod:`lens_d2.mining.lens.strategies.missing_ground_truth`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from fvcore.common.registry import Registry
from torch import Tensor

from .supervision import sum_over_ranks

MISSING_LABELS = Registry("MISSING_LABELS")
MISSING_LABELS.__doc__ = "Treatments of missing labels, by the names that the keys MISSING_LABELS have."

# IoU with a known lesion from which on a background proposal "overlaps" it (Section II-A).
OVERLAP = 0.1

# The Gompertz function of soft sampling, a + (1 - a) exp(-b exp(-c IoU)): a, b, c of Wu et al.
SOFT_SAMPLING = (0.25, 50.0, 20.0)


Treatment = Callable[[Tensor, Tensor], Tensor]


def of_pixels(treatment: Treatment) -> Treatment:
    """Decorator of a treatment that needs no overlap, and so serves AFP's pixels, too."""
    treatment.of_pixels = True  # type: ignore[attr-defined]
    return treatment


def treatments_of_pixels() -> list[str]:
    """Names of the treatments that serve AFP's pixels."""
    return [name for name, treatment in MISSING_LABELS if getattr(treatment, "of_pixels", False)]


@MISSING_LABELS.register()
def OBHS(overlap: Tensor, score: Tensor) -> Tensor:
    """1 for what overlaps a lesion, 0 for the rest."""
    return (overlap >= OVERLAP).to(overlap)


@MISSING_LABELS.register()
def OBSS(overlap: Tensor, score: Tensor) -> Tensor:
    """From nearly 0.25 without overlap to 1."""
    a, b, c = SOFT_SAMPLING
    return a + (1 - a) * torch.exp(-b * torch.exp(-c * overlap))


@MISSING_LABELS.register()
def MOBHS(overlap: Tensor, score: Tensor) -> Tensor:
    """2 for what overlaps a lesion, 1 for the rest."""
    return 1 + (overlap >= OVERLAP).to(overlap)


@MISSING_LABELS.register()
@of_pixels
def HIGH_SCORES(overlap: Tensor, score: Tensor) -> Tensor:
    """1 less the score, for what overlaps no known lesion."""
    return 1 - score * (overlap < OVERLAP)


@dataclass(frozen=True)
class PartialLabels:
    """The classification loss of a partially labelled dataset.

    With ``labeled_share`` below 1 it is the risk of positive-unlabelled learning, never below 0 (Kiryo et al.,
    2017). A share c of all lesions is labelled, and the labelled ones look like the rest. So the background's loss
    is too high by 1/c - 1 times what the labelled lesions would lose as background. The total is multiplied by c,
    which leaves a labelled lesion's weight unchanged.

    Attributes:
        weight: treatment, see :data:`MISSING_LABELS`; None: background weighs 1.
        labeled_share: c, in (0, 1].
    """

    weight: Treatment | None = None
    labeled_share: float = 1.0

    @classmethod
    def from_config(cls, cfg: CfgNode, treatment: str) -> PartialLabels | None:
        """Read ``MODEL.LENS.LABELED_SHARE``, take the name of a treatment; None if neither changes the loss."""
        if not treatment and cfg.MODEL.LENS.LABELED_SHARE == 1.0:
            return None
        return cls(MISSING_LABELS.get(treatment) if treatment else None, cfg.MODEL.LENS.LABELED_SHARE)

    def weights(self, overlap: Tensor, score: Tensor | None = None) -> Tensor:
        """(n,) weights of background.

        Args:
            overlap: (n,) highest IoU with a lesion.
            score: (n,) in [0, 1], taken as 0 if left out.
        """
        if self.weight is None:
            return torch.ones_like(overlap)
        return self.weight(overlap, torch.zeros_like(overlap) if score is None else score)

    def loss(
        self,
        as_lesion: Tensor,
        as_background: Tensor,
        is_lesion: Tensor,
        is_known: Tensor,
        weight: Tensor,
        seen: Tensor | float = 1.0,
    ) -> Tensor:
        """Sum up the losses; what is known to be no lesion counts in full, whatever share is labelled.

        Args:
            as_lesion: (n,) losses of pixels or proposals as lesions.
            as_background: (n,) their losses as background.
            is_lesion: (n,) bool, the label.
            is_known: (n,) bool, lesions and hard negatives; the others are background that may hold lesions.
            weight: (n,) of each, background's by :meth:`weights`.
            seen: (n,) or one, for a lesion how much more likely its image's background is to be among the n than
                its lesions are.
        """
        known = (as_lesion.where(is_lesion, as_background) * weight)[is_known].sum()
        background = (as_background * weight)[~is_known].sum()
        if self.labeled_share == 1:
            return known + background
        unlabeled = (as_background * weight * seen)[is_lesion].sum()
        share = self.labeled_share
        risk = share * background - (1 - share) * unlabeled
        return known + risk * (sum_over_ranks(risk) > 0)

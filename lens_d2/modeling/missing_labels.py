"""Treatments of missing labels in the second stage (Lesion-Harvester, Section IV-F2).

In a partially labelled dataset some of the background proposals are lesions. A treatment weighs each background
proposal in the classification by its overlap with the known lesions; with the weight 0 it is not sampled.
``MODEL.ROI_HEADS.MISSING_LABELS`` names the treatment.

    OBHS     overlap-based hard sampling (Faster R-CNN): only what overlaps a known lesion is background
    OBSS     overlap-based soft sampling (Wu et al.): what overlaps less weighs less
    MOBHS    modified OBHS: everything is background, what overlaps weighs twice as much

To add one, write a function from (n,) overlaps to (n,) weights under ``@MISSING_LABELS.register()``.

MGTM-SLLP, the treatment that works for every detector, mines the labels instead: see
:mod:`lens_d2.mining.lens.strategies.missing_ground_truth`.
"""

from __future__ import annotations

import torch
from fvcore.common.registry import Registry
from torch import Tensor

MISSING_LABELS = Registry("MISSING_LABELS")
MISSING_LABELS.__doc__ = "Treatments of missing labels, by the names that MODEL.ROI_HEADS.MISSING_LABELS has."

# IoU with a known lesion from which on a background proposal "overlaps" it (Section II-A).
OVERLAP = 0.1

# The Gompertz function of soft sampling, a + (1 - a) exp(-b exp(-c IoU)): a, b, c of Wu et al.
SOFT_SAMPLING = (0.25, 50.0, 20.0)


@MISSING_LABELS.register()
def OBHS(overlap: Tensor) -> Tensor:
    """1 for what overlaps a lesion, 0 for the rest."""
    return (overlap >= OVERLAP).to(overlap)


@MISSING_LABELS.register()
def OBSS(overlap: Tensor) -> Tensor:
    """From nearly 0.25 without overlap to 1."""
    a, b, c = SOFT_SAMPLING
    return a + (1 - a) * torch.exp(-b * torch.exp(-c * overlap))


@MISSING_LABELS.register()
def MOBHS(overlap: Tensor) -> Tensor:
    """2 for what overlaps a lesion, 1 for the rest."""
    return 1 + (overlap >= OVERLAP).to(overlap)

"""Optimizer, and the length of training in epochs."""

from __future__ import annotations

import logging

import torch
from detectron2.config import CfgNode
from detectron2.solver.build import (
    GradientClipType,
    get_default_optimizer_params,
    maybe_add_gradient_clipping,
)
from torch import nn
from torch.nn.utils import clip_grad_value_

# Optimizers by name, each with what it takes from cfg.SOLVER besides the learning rate and the weight decay.
OPTIMIZERS = {
    "RAdam": (torch.optim.RAdam, lambda solver: {}),
    "Adam": (torch.optim.Adam, lambda solver: {}),
    "AdamW": (torch.optim.AdamW, lambda solver: {}),
    "SGD": (torch.optim.SGD, lambda solver: {"momentum": solver.MOMENTUM, "nesterov": solver.NESTEROV}),
}


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Build ``SOLVER.OPTIMIZER`` over all parameters, with Detectron2's per-parameter settings and clipping.

    Raises:
        KeyError, ValueError: the optimizer, or the way of clipping, does not exist.
    """
    parameters = get_default_optimizer_params(
        model,
        base_lr=cfg.SOLVER.BASE_LR,
        weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM,
        bias_lr_factor=cfg.SOLVER.BIAS_LR_FACTOR,
        weight_decay_bias=cfg.SOLVER.WEIGHT_DECAY_BIAS,
    )
    optimizer_type, options = OPTIMIZERS[cfg.SOLVER.OPTIMIZER]
    clipping = cfg.SOLVER.CLIP_GRADIENTS
    by_value = clipping.ENABLED and clipping.CLIP_TYPE == GradientClipType.VALUE.value
    optimizer_type = optimizer_type if by_value else maybe_add_gradient_clipping(cfg, optimizer_type)
    optimizer = optimizer_type(
        parameters,
        lr=cfg.SOLVER.BASE_LR,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
        foreach=True,
        **options(cfg.SOLVER),
    )
    if by_value:  # Detectron2's fails on parameters without a gradient: those of experts that a step leaves alone
        optimizer.register_step_pre_hook(lambda *_: clip_grad_value_(_taught(optimizer), clipping.CLIP_VALUE))
    return optimizer


def _taught(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """The parameters that have a gradient."""
    return [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def with_epochs(cfg: CfgNode, epoch_length: int) -> CfgNode:
    """The config with ``SOLVER.EPOCHS`` and ``EPOCH_STEPS``, if given, as ``MAX_ITER`` and ``STEPS``.

    Args:
        cfg: not changed. As in every Detectron2 config, its numbers are those of ``SOLVER.REFERENCE_WORLD_SIZE``
            ranks; Detectron2 scales them to the actual ranks.
        epoch_length: batches of an epoch.
    """
    if not cfg.SOLVER.EPOCHS:
        return cfg
    cfg, frozen = cfg.clone(), cfg.is_frozen()
    cfg.defrost()
    cfg.SOLVER.MAX_ITER = cfg.SOLVER.EPOCHS * epoch_length
    cfg.SOLVER.STEPS = tuple(epoch * epoch_length for epoch in cfg.SOLVER.EPOCH_STEPS)
    if frozen:
        cfg.freeze()
    logging.getLogger(__name__).info(
        "%d iterations, of %d an epoch; steps after %s", cfg.SOLVER.MAX_ITER, epoch_length, cfg.SOLVER.STEPS
    )
    return cfg

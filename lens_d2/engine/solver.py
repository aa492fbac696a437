"""Optimiser, and the length of training in epochs."""

from __future__ import annotations

import logging

import torch
from detectron2.config import CfgNode
from detectron2.solver.build import get_default_optimizer_params
from torch import Tensor, nn

# What each optimizer takes besides the learning rate and the weight decay, from cfg.SOLVER.
OPTIMIZERS = {
    "RAdam": (torch.optim.RAdam, lambda solver: {}),
    "AdamW": (torch.optim.AdamW, lambda solver: {}),
    "SGD": (torch.optim.SGD, lambda solver: {"momentum": solver.MOMENTUM, "nesterov": solver.NESTEROV}),
}


def clip_norms(gradients: list[Tensor], limit: float, norm_type: float) -> None:
    """Scale down, in place, each gradient whose own norm is above the limit."""
    norms = torch.stack(torch._foreach_norm(gradients, norm_type))
    factors = (limit / (norms + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, list(factors.unbind()))


def clip_values(gradients: list[Tensor], limit: float, norm_type: float) -> None:
    """Clamp, in place, every element of the gradients to the limit on both sides."""
    torch._foreach_clamp_min_(gradients, -limit)
    torch._foreach_clamp_max_(gradients, limit)


# SOLVER.CLIP_GRADIENTS.CLIP_TYPE, as Detectron2 means it: each parameter on its own. Here all of them go through
# each operation together, for a step has hundreds of small ones and a call for each costs more than the work.
CLIPPERS = {"norm": clip_norms, "value": clip_values}


def add_gradient_clipping(optimizer: torch.optim.Optimizer, settings: CfgNode) -> None:
    """Clip gradients before every step, as ``SOLVER.CLIP_GRADIENTS`` says."""
    if settings.CLIP_TYPE not in CLIPPERS:
        raise ValueError(f"CLIP_GRADIENTS.CLIP_TYPE is not one of {', '.join(CLIPPERS)}: {settings.CLIP_TYPE}")
    clip, limit, norm_type = CLIPPERS[settings.CLIP_TYPE], settings.CLIP_VALUE, settings.NORM_TYPE

    def before_step(optimizer, args, kwargs) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if gradients:
            clip(gradients, limit, norm_type)

    optimizer.register_step_pre_hook(before_step)


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """``SOLVER.OPTIMIZER`` over all parameters, with Detectron2's per-parameter settings and clipping."""
    parameters = get_default_optimizer_params(
        model,
        base_lr=cfg.SOLVER.BASE_LR,
        weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM,
        bias_lr_factor=cfg.SOLVER.BIAS_LR_FACTOR,
        weight_decay_bias=cfg.SOLVER.WEIGHT_DECAY_BIAS,
    )
    if cfg.SOLVER.OPTIMIZER not in OPTIMIZERS:
        raise ValueError(f"SOLVER.OPTIMIZER is not one of {', '.join(OPTIMIZERS)}: {cfg.SOLVER.OPTIMIZER}")
    optimizer_type, options = OPTIMIZERS[cfg.SOLVER.OPTIMIZER]
    optimizer = optimizer_type(
        parameters,
        lr=cfg.SOLVER.BASE_LR,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
        foreach=True,
        **options(cfg.SOLVER),
    )
    if cfg.SOLVER.CLIP_GRADIENTS.ENABLED:
        add_gradient_clipping(optimizer, cfg.SOLVER.CLIP_GRADIENTS)
    return optimizer


def with_epochs(cfg: CfgNode, epoch_length: int) -> CfgNode:
    """The config with ``SOLVER.EPOCHS`` and ``EPOCH_STEPS``, where given, as ``MAX_ITER`` and ``STEPS``.

    Args:
        cfg: not changed. As in every Detectron2 config, its numbers are those of ``SOLVER.REFERENCE_WORLD_SIZE``
            ranks; Detectron2 scales them to the ranks that there are.
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

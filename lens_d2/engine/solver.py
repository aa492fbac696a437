"""Optimizer, the parts that learn, and the length of training in epochs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

import torch
from detectron2.config import CfgNode
from detectron2.solver import build_lr_scheduler
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim.lr_scheduler import LRScheduler

from ..io.errors import DataError, did_you_mean

# Optimizers by name, each with what it takes from cfg.SOLVER besides the learning rate and the weight decay.
OPTIMIZERS = {
    "RAdam": (torch.optim.RAdam, lambda solver: {}),
    "RAdamW": (torch.optim.RAdam, lambda solver: {"decoupled_weight_decay": True}),
    "Adam": (torch.optim.Adam, lambda solver: {}),
    "AdamW": (torch.optim.AdamW, lambda solver: {}),
    "SGD": (torch.optim.SGD, lambda solver: {"momentum": solver.MOMENTUM, "nesterov": solver.NESTEROV}),
}
# By SOLVER.CLIP_GRADIENTS.CLIP_TYPE, functions of the parameters that have a gradient and of CLIP_VALUE; None:
# Detectron2 clips, by the norm of each parameter. Its clipping by value fails on parameters without a gradient,
# those of experts that a step leaves alone.
CLIPPINGS: dict[str, Callable | None] = {"value": clip_grad_value_, "norm": None, "full_model": clip_grad_norm_}


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
    clip = CLIPPINGS[clipping.CLIP_TYPE] if clipping.ENABLED else None
    optimizer_type = optimizer_type if clip else maybe_add_gradient_clipping(cfg, optimizer_type)
    optimizer = optimizer_type(
        parameters,
        lr=cfg.SOLVER.BASE_LR,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
        foreach=True,
        **options(cfg.SOLVER),
    )
    if clip is not None:
        optimizer.register_step_pre_hook(partial(_clip_gradients, clip, clipping.CLIP_VALUE))
    return optimizer


def build_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRScheduler:
    """Build Detectron2's scheduler, without steps that a shorter training does not reach."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.SOLVER.STEPS = tuple(step for step in cfg.SOLVER.STEPS if step < cfg.SOLVER.MAX_ITER)
    return build_lr_scheduler(cfg, optimizer)


def follow_config(
    cfg: CfgNode, model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: LRScheduler
) -> None:
    """Give a resumed training the settings of the config, where its checkpoint has brought back earlier ones.

    Args:
        cfg: of the training.
        model: that the optimizer is for.
        optimizer: of :func:`build_optimizer`; keeps its moments.
        scheduler: of the optimizer; keeps its place.
    """
    for group, new in zip(optimizer.param_groups, build_optimizer(cfg, model).param_groups, strict=True):
        group.update({name: value for name, value in new.items() if name != "params"})
    scheduler.base_lrs = [group["lr"] for group in optimizer.param_groups]
    for group, rate in zip(optimizer.param_groups, scheduler.get_lr(), strict=True):
        group["initial_lr"], group["lr"] = group["lr"], rate


def _clip_gradients(clip: Callable, value: float, optimizer: torch.optim.Optimizer, *_) -> None:
    """Clip the gradients before a step."""
    clip(_taught(optimizer), value)


def _taught(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """The parameters that have a gradient."""
    return [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def freeze_all_but(model: nn.Module, parts: Sequence[str]) -> None:
    """Let parts of a model learn alone; batch norms of the others use and keep their running statistics.

    Args:
        model: changed in place.
        parts: beginnings of parameters' names, as of ``SOLVER.PARTS``; empty: all learn.

    Raises:
        DataError: no parameter's name begins so.
    """
    if not parts:
        return
    for part in parts:
        if not any(name.startswith(part) for name, _ in model.named_parameters()):
            modules = [name for name, _ in model.named_modules()]
            raise DataError("SOLVER.PARTS", f"no parameter begins with {part!r}{did_you_mean(part, modules)}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(tuple(parts)))
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    kept = [norm for norm in norms if not any(p.requires_grad for p in norm.parameters())]

    def keep_statistics(*_) -> None:
        for norm in kept:
            norm.eval()

    model.register_forward_pre_hook(keep_statistics)


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

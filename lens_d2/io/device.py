"""Devices of torch, and the GPUs that a job was promised."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import torch
import torch.distributed
from detectron2.config import CfgNode

from .errors import DataError

logger = logging.getLogger(__name__)

# Variables with the numbers of a job's GPUs, and with their count.
GPU_LISTS = ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_GPUS", "SLURM_STEP_GPUS")
GPU_COUNTS = ("SLURM_GPUS_ON_NODE", "SLURM_GPUS")
NO_GPUS = ("", "-1", "NoDevFiles")


def find_device(name: str, setting: str) -> torch.device:
    """Find the device of a name, such as "cuda:1".

    Args:
        name: of the device.
        setting: that the name was given to, for the error.

    Raises:
        DataError: torch knows no such device; names the setting.
    """
    try:
        return torch.device(name)
    except RuntimeError:
        raise DataError(setting, f"no device {name!r}; cpu, cuda or cuda:N") from None


def fall_back_to_cpu(cfg: CfgNode) -> None:
    """Set ``MODEL.DEVICE`` to the CPU, with a warning, if it is a GPU and none is found."""
    if torch.device(cfg.MODEL.DEVICE).type == "cuda" and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
        logger.warning("no GPU found: running on the CPU")


def check_device(cfg: CfgNode, num_gpus: int | None = None) -> None:
    """Refuse to continue without a GPU that was asked for or allotted.

    Args:
        cfg: ``MODEL.DEVICE`` is read.
        num_gpus: of the command line, None unless given there.

    Raises:
        DataError: torch does not know the device; or it is a GPU, none can be used, and ``--num-gpus``, torchrun
            or SLURM has promised one.
    """
    device = find_device(cfg.MODEL.DEVICE, "MODEL.DEVICE")
    if device.type != "cuda" or torch.cuda.is_available():
        return
    reason = _gpus_expected(num_gpus)
    if reason:
        hint = "look at nvidia-smi and at torch's CUDA version, or set MODEL.DEVICE cpu"
        raise DataError("MODEL.DEVICE", f"{device}, but torch finds no GPU, and {reason}: {hint}")


def _gpus_expected(num_gpus: int | None) -> str:
    """The reason why a job must not continue without a GPU; empty if it may."""
    if num_gpus:
        return f"--num-gpus {num_gpus} asks for some"
    launcher = "torchrun" if torch.distributed.is_torchelastic_launched() else ""
    launcher = launcher or ("SLURM" if "SLURM_JOB_ID" in os.environ else "")
    if not launcher or os.environ.get("CUDA_VISIBLE_DEVICES", "unset") in NO_GPUS:
        return ""
    promised = any(os.environ.get(name, "") not in NO_GPUS for name in GPU_LISTS)
    promised = promised or any(os.environ.get(name, "0") != "0" for name in GPU_COUNTS)
    promised = promised or any(Path("/dev").glob("nvidia[0-9]*"))
    return f"{launcher} has started a job with GPUs" if promised else ""

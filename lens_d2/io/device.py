"""Devices of torch."""

from __future__ import annotations

import logging

import torch
from detectron2.config import CfgNode

from .errors import DataError

logger = logging.getLogger(__name__)


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

"""Devices of torch."""

from __future__ import annotations

import logging

import torch
from detectron2.config import CfgNode

from .errors import DataError

logger = logging.getLogger(__name__)


def device_name(name: str) -> str:
    """The name of a device, such as "cuda:1".

    Raises:
        DataError: torch knows no such device.
    """
    try:
        return str(torch.device(name))
    except RuntimeError:
        raise DataError("device", f"no device {name!r}: cpu, cuda, cuda:1, ...") from None


def fall_back_to_cpu(cfg: CfgNode) -> None:
    """Set ``MODEL.DEVICE`` to the CPU, with a warning, if it is a GPU and none is found."""
    if torch.device(cfg.MODEL.DEVICE).type == "cuda" and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
        logger.warning("no GPU found: running on the CPU")

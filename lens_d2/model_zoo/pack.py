"""Trained weights made small enough to come with the package."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..evaluation.operating_points import OperatingPoints
from ..io.checkpoint import load_weights
from ..io.errors import DataError
from ..io.files import write_whole

LIMIT = 2_000_000  # bytes of a file
STATISTICS = ("running_mean", "running_var")  # of batch norms: their values span more than half precision does


def pack_weights(
    checkpoint: str | os.PathLike,
    target: str | os.PathLike,
    *,
    operating_points: Mapping[str, OperatingPoints] | None = None,
    prefix: str = "",
    note: str = "",
) -> Path:
    """Write the weights of a checkpoint alone, in half precision but for the statistics of batch norms.

    Args:
        checkpoint: of a training.
        target: file to write.
        operating_points: of the detector's outputs ("fused", or experts), on the validation patients.
        prefix: start of the names of the weights that are kept, such as ``backbone.``.
        note: that every prediction with them warns of.

    Raises:
        DataError: the checkpoint cannot be read or has no such weights, or the result is larger than 2 MB.
    """
    state = load_weights(str(checkpoint))
    state = {name: value for name, value in state.get("model", state).items() if name.startswith(prefix)}
    if not state:
        raise DataError(checkpoint, f"no weights whose names start with {prefix!r}")
    content: dict = {
        "model": {name: value if name.endswith(STATISTICS) else _halved(value) for name, value in state.items()}
    }
    if operating_points:
        content["operating_points"] = {name: points.to_dict() for name, points in operating_points.items()}
    if note:
        content["note"] = note
    file = io.BytesIO()
    torch.save(content, file)
    if file.tell() > LIMIT:
        raise DataError(target, f"{file.tell():,} bytes of weights; at most {LIMIT:,} come with the package")
    return write_whole(target, file.getbuffer())


def _halved(value: Tensor) -> Tensor:
    """The value in half precision, unless that is too coarse or too narrow for it."""
    half = value.to(torch.float16) if value.is_floating_point() else value
    return half.contiguous().clone() if torch.isfinite(half).all() else value

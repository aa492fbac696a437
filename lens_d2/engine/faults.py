"""Faults of a training that is running, told in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import DataError


@contextmanager
def finite_losses(output_dir: str) -> Iterator[None]:
    """Turns Detectron2's error about a loss that is not finite into one line.

    Raises:
        DataError: names the iteration and each loss.
    """
    try:
        yield
    except (FloatingPointError, AssertionError) as error:
        if isinstance(error, AssertionError) and "NaN" not in str(error):  # boxes that weights of NaN give
            raise
        hint = "lower SOLVER.BASE_LR, or clip gradients; --resume goes on from the last checkpoint, which is sound"
        raise DataError(output_dir, f"{error}: {hint}") from error

"""Files of weights, read without running code."""

from __future__ import annotations

import os
from typing import Any

import torch

from .errors import DataError
from .pickles import read_pickle
from .zoo import local_path


def load_weights(path: str) -> dict[str, Any]:
    """Read a file of weights: tensors, arrays and plain values only.

    Args:
        path: a ``.pth`` file of ``torch.save``, a ``.pkl`` of NumPy arrays, or an address in the model zoo.

    Raises:
        DataError: the file is absent, cut short, or holds anything that is not data.
    """
    path = local_path(path)
    if not os.path.isfile(path):
        raise DataError(path, "no such file")
    if str(path).endswith(".pkl"):
        loaded = read_pickle(path)
    else:
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file can fail in any way at all
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise DataError(path, f"not a file of weights: {reason[:160]}") from error
    if not isinstance(loaded, dict):
        raise DataError(path, "holds no state_dict")
    return loaded

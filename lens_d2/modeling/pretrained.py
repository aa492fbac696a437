"""Initial weights of the backbone from a 2D DenseNet (LENS, Section VI-B)."""

from __future__ import annotations

import logging
import re

import torch
from torch import Tensor, nn
from torchvision.models import DenseNet121_Weights

from ..errors import DataError
from ..weights import load_weights

IMAGENET = "imagenet"
# "denselayer1.norm.1.weight" of older files is "denselayer1.norm1.weight" today.
_OLD_LAYER = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
_STEM = {"conv0": "stem.0", "norm0": "stem.1"}


def backbone_key(key: str) -> str | None:
    """The :class:`DenseNet25D` key for a key of torchvision's ``densenet121``, or None where it has none."""
    if not key.startswith("features."):
        return None
    module, _, rest = _OLD_LAYER.sub(r"\1\2", key.removeprefix("features.")).partition(".")
    if module in _STEM:
        return f"{_STEM[module]}.{rest}"
    match = re.fullmatch(r"(denseblock|transition)(\d)", module)
    if match is None:
        return None
    return f"{match[1].removeprefix('dense')}{match[2]}.{rest}"


def load_backbone_weights(backbone: nn.Module, source: str) -> None:
    """Load a trunk's weights, and log every key that has no counterpart on either side.

    Args:
        backbone: a :class:`DenseNet25D`.
        source: a file with torchvision's DenseNet ``state_dict``, ``"imagenet"`` for torchvision's own
            weights of ``densenet121``, or empty: random initialisation stays, with a warning.

    Raises:
        DataError: the file cannot be read, or its trunk has other sizes.
    """
    logger = logging.getLogger(__name__)
    if not source:
        logger.warning("the backbone starts from random weights: MODEL.DENSENET.WEIGHTS is empty")
        return
    state = _imagenet_state() if source == IMAGENET else load_weights(source)
    state = state.get("model", state.get("state_dict", state))
    own = backbone.state_dict()
    names = {key: backbone_key(key) for key in state}
    matched = {name: state[key] for key, name in names.items() if name in own}
    wrong = [key for key, value in matched.items() if tuple(value.shape) != tuple(own[key].shape)]
    if wrong or not matched:
        fault = f"{wrong[0]} has another shape" if wrong else "no key is one of a DenseNet's trunk"
        raise DataError(source, f"weights of another architecture: {fault}")
    backbone.load_state_dict({key: torch.as_tensor(value) for key, value in matched.items()}, strict=False)
    logger.info("%d of %d keys of %s are in the backbone", len(matched), len(state), source)
    for key in sorted(key for key, name in names.items() if name not in own):
        logger.info("not used, no such key in the backbone: %s", key)
    for key in sorted(set(own) - set(matched)):
        logger.info("stays at its initial value, not in the file: %s", key)


def _imagenet_state() -> dict[str, Tensor]:
    """torchvision's ImageNet weights, from its own cache or download."""
    weights = DenseNet121_Weights.IMAGENET1K_V1
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except OSError as error:
        raise DataError(
            weights.url,
            f"cannot be fetched ({error}); give a local file as MODEL.DENSENET.WEIGHTS, or '' for random weights",
        ) from error

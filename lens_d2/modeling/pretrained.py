"""Initial weights from 2D networks of torchvision (LENS, Section VI-B)."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision.models import DenseNet121_Weights, WeightsEnum

from ..io.checkpoint import load_weights
from ..io.errors import DataError

IMAGENET = "imagenet"
# "denselayer1.norm.1.weight" of older files is "denselayer1.norm1.weight" today.
_OLD_LAYER = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
_STEM = {"conv0": "stem.0", "norm0": "stem.1"}


def backbone_key(key: str) -> str | None:
    """Key of :class:`DenseNet25D` for one of torchvision's ``densenet121`` or of a detector; None without one."""
    if key.startswith("backbone."):
        return key.removeprefix("backbone.")
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
    """Start a :class:`DenseNet25D` from a DenseNet's trunk, or from the backbone of a detector of this project.

    Args:
        backbone: changed in place.
        source: as for :func:`load_initial_weights`.
    """
    load_initial_weights(backbone, source, DenseNet121_Weights.IMAGENET1K_V1, key_of=backbone_key)


def load_initial_weights(
    module: nn.Module,
    source: str,
    imagenet: WeightsEnum,
    key_of: Callable[[str], str | None] = lambda key: key,
    fit: Callable[[Tensor, torch.Size], Tensor] = lambda value, shape: value,
) -> None:
    """Load what a file and a module have in common, and log every key that has no counterpart on either side.

    Args:
        module: changed in place.
        source: a file with a ``state_dict``, ``"imagenet"`` for torchvision's own weights, or empty: random
            initialisation stays, with a warning.
        imagenet: torchvision's weights.
        key_of: from a key of the file to the module's, or to None if the module has no such key.
        fit: from a tensor of the file and the shape of the module's to the tensor in that shape.

    Raises:
        DataError: the file cannot be read, or its tensors have other sizes.
    """
    logger = logging.getLogger(__name__)
    network = type(module).__name__
    if not source:
        logger.warning("%s starts from random weights: no file is configured", network)
        return
    state = _imagenet_state(imagenet) if source == IMAGENET else load_weights(source)
    state = state.get("model", state.get("state_dict", state))
    own = module.state_dict()
    names = {key: key_of(key) for key in state}
    matched = {
        name: fit(torch.as_tensor(state[key]), own[name].shape) for key, name in names.items() if name in own
    }
    wrong = [key for key, value in matched.items() if value.shape != own[key].shape]
    if wrong or not matched:
        fault = f"{wrong[0]} has another shape" if wrong else f"no key is one of {network}"
        raise DataError(source, f"weights of another architecture: {fault}")
    module.load_state_dict(matched, strict=False)
    logger.info("%d of %d keys of %s are in %s", len(matched), len(state), source, network)
    for key in sorted(key for key, name in names.items() if name not in own):
        logger.info("not used, no such key in %s: %s", network, key)
    for key in sorted(set(own) - set(matched)):
        logger.info("stays at its initial value, not in the file: %s", key)


def _imagenet_state(weights: WeightsEnum) -> dict[str, Tensor]:
    """Weights that torchvision trained on ImageNet, from its cache or download."""
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except OSError as error:
        raise DataError(
            weights.url, f"cannot be fetched ({error}); give a local file of weights, or '' for random ones"
        ) from error

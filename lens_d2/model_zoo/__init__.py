"""Configs and trained weights that come with the package, as in ``detectron2.model_zoo``.

::

    from lens_d2 import model_zoo
    model = model_zoo.get("phantom/lens_multi", trained=True)

``MODEL.WEIGHTS lens_d2://phantom/lens_multi`` names the same weights in a config. ``MODEL_ZOO.md`` lists them with
the commands that made them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..io.zoo import CONFIGS, PREFIX, weights_file, weights_names

if TYPE_CHECKING:
    from detectron2.config import CfgNode
    from torch import nn

__all__ = ["get", "get_checkpoint_url", "get_config", "get_config_file", "names"]

# The config key of each file of weights that a trained config may have, by the ending of its name.
ROLES = {"": "MODEL.WEIGHTS", ".fpr": "MODEL.FPR.WEIGHTS", ".embedding": "MODEL.EMBEDDING.WEIGHTS"}


def names() -> list[str]:
    """Names of the configs that have trained weights."""
    return [name for name in weights_names() if (CONFIGS / f"{name}.yaml").is_file()]


def get_config_file(name: str) -> str:
    """Path of a config by name, such as ``phantom/lens_multi``; an ending ``.yaml`` may be given or not.

    Raises:
        DataError: no config of that name comes with the package.
    """
    from ..io.config_files import find_config

    return str(find_config(f"{name.removesuffix('.yaml')}.yaml"))


def get_checkpoint_url(name: str) -> str:
    """Address of a config's trained weights, as ``MODEL.WEIGHTS`` takes it.

    Raises:
        DataError: no weights of that name come with the package.
    """
    name = name.removesuffix(".yaml")
    weights_file(name)
    return PREFIX + name


def get_config(name: str, trained: bool = False) -> CfgNode:
    """Config by name.

    Args:
        name: such as ``phantom/lens_multi``.
        trained: whether all its weights are the trained ones; else they are those that training starts from.

    Raises:
        DataError: no config, or no weights, of that name come with the package.
    """
    from ..config import load_config

    opts: list[str] = []
    if trained:
        get_checkpoint_url(name)
        stem = name.removesuffix(".yaml")
        known = weights_names()
        for role, key in ROLES.items():
            opts += [key, f"{PREFIX}{stem}{role}"] if f"{stem}{role}" in known else []
    return load_config(get_config_file(name), opts)


def get(name: str, trained: bool = False, device: str | None = None) -> nn.Module:
    """Model by name, in evaluation mode if trained, else as training starts.

    Args:
        name: such as ``phantom/lens_multi``.
        trained: whether it has the trained weights.
        device: of the model; that of the config if None.

    Raises:
        DataError: as :func:`get_config`.
    """
    from detectron2.modeling import build_model

    from ..io.checkpoint import LENSCheckpointer

    cfg = get_config(name, trained)
    if device is not None:
        cfg.MODEL.DEVICE = device
    model = build_model(cfg)
    if trained:
        LENSCheckpointer(model, whole=True).load(cfg.MODEL.WEIGHTS)
        model.eval()
    return model

"""Universal lesion detection in CT as a Detectron2 extension (LENS and Lesion-Harvester).

Importing the package loads neither Detectron2 nor torch. :func:`add_lens_config` does, and registers the networks
and the datasets with it.
"""

import warnings
from importlib import import_module

__version__ = "0.1.0"

# Detectron2 compiles two functions with torch.jit.script when it is imported.
warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)

# The public names, imported when they are asked for.
_HOMES = {"LesionDetector": "lesion_detector", "add_lens_config": "config"}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    except ModuleNotFoundError as error:
        if error.name != "detectron2":
            raise
        hint = "lens_d2 needs Detectron2: run `lens-d2 setup`, or in a clone `make setup`"
        raise ModuleNotFoundError(hint, name="detectron2") from None

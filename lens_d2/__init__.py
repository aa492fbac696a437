"""Universal lesion detection in CT as a Detectron2 extension (LENS and Lesion-Harvester)."""

__version__ = "0.1.0"

try:
    import detectron2  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "detectron2":
        raise
    hint = "lens_d2 needs Detectron2: run `make setup` (see README.md)"
    raise ModuleNotFoundError(hint, name="detectron2") from None

from . import modeling  # noqa: E402, F401
from .config import add_lens_config  # noqa: E402
from .data import datasets  # noqa: E402, F401

__all__ = ["add_lens_config"]

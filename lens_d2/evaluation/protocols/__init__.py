"""Published protocols, one file each; :data:`PROTOCOLS` has them by name."""

from . import lens3d, luna16, p3d  # noqa: F401, I001  (they register themselves)
from .protocol import PROTOCOLS, Evaluation, Protocol

__all__ = ["PROTOCOLS", "Evaluation", "Protocol"]

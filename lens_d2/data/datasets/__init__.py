"""One file per dataset; importing this package registers all of them, and opens nothing."""

from . import deeplesion, lits, luna, nih_ln  # noqa: F401
from .catalog import register_all

__all__ = ["register_all"]

"""One module for each dataset; importing this package registers all of them and opens no file."""

from . import deeplesion, lits, luna, nih_ln  # noqa: F401
from .catalog import import_readers, register_all

__all__ = ["import_readers", "register_all"]

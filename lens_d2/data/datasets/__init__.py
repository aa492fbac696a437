"""One file per dataset; importing this package registers all of them."""

from . import deeplesion  # noqa: F401
from .catalog import register_all

__all__ = ["register_all"]

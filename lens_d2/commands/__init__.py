"""The command line: one module for each command of ``lens-d2``, their options in :mod:`.options`."""

from __future__ import annotations

import argparse
from importlib import import_module

from ..io import cli
from .options import get_parser


def main(argv: list[str] | None = None) -> int:
    """Run the command that ``argv`` names, with its options, and return its exit status.

    Nothing that is slow to import is imported before the options have been read.
    """
    args = get_parser().parse_args(argv)
    return cli.run(lambda: run(args))


def run(args: argparse.Namespace) -> int | None:
    """Run the command of parsed options."""
    return import_module(f".{args.command}", __name__).run(args)

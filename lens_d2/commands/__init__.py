"""The command line: one module for each command of ``lens-d2``, their options in :mod:`.options`."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from importlib import import_module

from ..io import cli, preemption
from ..io.errors import DataError
from .options import get_parser


def main(argv: list[str] | None = None) -> int:
    """Run the command that ``argv`` names, with its options, and return its exit status.

    Nothing that is slow to import is imported before the options have been read.
    """
    args = get_parser().parse_args(argv)
    return cli.run(lambda: run(args))


def run(args: argparse.Namespace) -> int | None:
    """Run the command of parsed options.

    A command with ranks handles requests to stop from the start, as its imports take seconds.

    Raises:
        DataError: Detectron2 is not installed.
        SystemExit: a rank has failed or was asked to stop.
    """
    try:
        with preemption.obeyed() if hasattr(args, "num_gpus") else nullcontext():
            return import_module(f".{args.command}", __name__).run(args)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "detectron2":
            raise
        raise DataError("Detectron2", "not installed: run `lens-d2 setup`, or in a clone `make setup`") from None

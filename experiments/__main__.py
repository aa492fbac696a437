"""Runs an experiment.

    python -m experiments NAME --help         options of one
    python -m experiments NAME [options]      run it

Experiments by name:
"""

from __future__ import annotations

import argparse
import importlib
import sys

from . import EXPERIMENTS


def main(argv: list[str] | None = None) -> int:
    """Run the experiment that ``argv`` names, and return its exit status."""
    name, *words = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print(__doc__, *(f"  {known:10}{summary}" for known, summary in EXPERIMENTS.items()), sep="\n")
        return 0

    from lens_d2.io import cli
    from lens_d2.io.errors import DataError, did_you_mean

    def body() -> int | None:
        if name not in EXPERIMENTS:
            raise DataError(name, f"no such experiment{did_you_mean(name, EXPERIMENTS)}")
        experiment = importlib.import_module(f"experiments.{name}")
        parser = argparse.ArgumentParser(
            prog=f"python -m experiments {name}",
            description=experiment.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        experiment.add_arguments(parser)
        return experiment.run(parser.parse_args(words))

    return cli.run(body)


if __name__ == "__main__":
    sys.exit(main())

"""Measures the speed that the documentation reports.

    python -m benchmarks --list
    python -m benchmarks --only NAME ...

Prints one JSON line a measurement: {"name", "ratio", "baseline_seconds", "ours_seconds", "details"}.
"""

from __future__ import annotations

import argparse
import json
import sys

from lens_d2.io import cli

from . import MEASUREMENTS


def main(argv: list[str] | None = None) -> int:
    """Takes the measurements that ``argv`` names, or all, and returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=list(MEASUREMENTS))
    parser.add_argument("--list", action="store_true", help="names of the measurements")
    args = parser.parse_args(argv)

    def body() -> None:
        if args.list:
            print(*MEASUREMENTS, sep="\n")
            return
        for name in args.only or MEASUREMENTS:
            print(json.dumps({"name": name, **MEASUREMENTS[name]()}), flush=True)

    return cli.run(body)


if __name__ == "__main__":
    sys.exit(main())

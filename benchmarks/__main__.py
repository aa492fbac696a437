"""Measures the speed that the documentation reports.

    python -m benchmarks --list
    python -m benchmarks --only NAME ...
    python -m benchmarks gpu

The first two take those of a CPU, the last one those of a GPU, with the full-size network. Prints one JSON line a
measurement: {"name", "ratio", "baseline_seconds", "ours_seconds", "details"}.
"""

from __future__ import annotations

import argparse
import json
import sys

import torch

from lens_d2.io import cli
from lens_d2.io.errors import DataError

from . import MEASUREMENTS
from .gpu import GPU_MEASUREMENTS, Setting


def main(argv: list[str] | None = None) -> int:
    """Take the measurements that ``argv`` names, or all, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suite", nargs="?", choices=["gpu"], help="measure the full-size network on a GPU instead")
    names = [*MEASUREMENTS, *GPU_MEASUREMENTS]
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names)
    parser.add_argument("--list", action="store_true", help="names of the measurements")
    gpu = parser.add_argument_group("with gpu")
    gpu.add_argument("--device", default="cuda", help="cuda:1, or cpu to try it out (default: %(default)s)")
    gpu.add_argument("--size", type=int, default=512, help="pixels of a slice's sides (default: %(default)s)")
    gpu.add_argument("--slices", type=int, default=32, help="of the volume (default: %(default)s)")
    gpu.add_argument("--repeats", type=int, default=3, help="turns that count (default: %(default)s)")
    gpu.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="overrides of the config; last"
    )
    args = parser.parse_args(argv)

    def body() -> None:
        suite = GPU_MEASUREMENTS if args.suite else MEASUREMENTS
        if args.list:
            print(*suite, sep="\n")
            return
        given = (setting(args),) if args.suite else ()
        for name in args.only or suite:
            if name not in suite:
                raise DataError("--only", f"{name} is no measurement of {args.suite or 'a CPU'}; --list has them")
            print(json.dumps({"name": name, **suite[name](*given)}), flush=True)

    return cli.run(body)


def setting(args: argparse.Namespace) -> Setting:
    """The setting of measurements of a GPU.

    Raises:
        DataError: there is no such device.
    """
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DataError("--device", f"{device}, but torch finds no GPU; --device cpu --size 64 tries it out")
    return Setting(device, args.size, args.slices, args.repeats, tuple(args.opts))


if __name__ == "__main__":
    sys.exit(main())

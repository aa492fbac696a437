#!/usr/bin/env python
"""Checks a ledger of mined annotations against its datasets, counts what it adds, or converts it.

    python tools/ledger.py check output/lens_full/train/mining/ledger.csv --dataset deeplesion_train
    python tools/ledger.py counts output/lens_full/train/mining/ledger.parquet --dataset deeplesion_train
    python tools/ledger.py convert ledger.parquet ledger.csv

``counts`` prints the columns of LENS's Table III. An edited ledger is trained on with DATASETS.LEDGER. One that
contradicts itself or its datasets is refused in one line that names the row, with the status 2.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

from lens_d2.data.datasets import register_all
from lens_d2.data.ledger.counts import count_training_data, format_counts, strategies_of
from lens_d2.data.ledger.table import check_ledger, read_ledger, to_table, write_ledger
from lens_d2.data.loader import load_records
from lens_d2.io import cli


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("check", "counts"):
        command = commands.add_parser(name)
        command.add_argument("ledger", help=".parquet or .csv")
        command.add_argument("--dataset", required=True, nargs="+", help="registered names of what was mined")
        command.add_argument("--root", help="folder of the datasets (default: DETECTRON2_DATASETS, or datasets)")
    convert = commands.add_parser("convert")
    convert.add_argument("ledger", help=".parquet or .csv")
    convert.add_argument("output", help=".csv or .parquet")
    return parser.parse_args(args)


def check(args: argparse.Namespace) -> None:
    """Checks a ledger and prints how many rows it has."""
    ledger, _ = _read_with_dataset(args)
    print(f"{args.ledger}: {len(ledger)} rows, sound")


def counts(args: argparse.Namespace) -> None:
    """Prints what each strategy adds."""
    ledger, records = _read_with_dataset(args)
    print(format_counts(count_training_data(records, ledger, strategies_of(ledger))))


def convert(args: argparse.Namespace) -> None:
    """Writes a ledger in the format that the output's suffix names."""
    rows = write_ledger(args.output, [to_table(read_ledger(args.ledger))])
    print(f"{args.output}: {rows} rows")


COMMANDS = {"check": check, "counts": counts, "convert": convert}


def _read_with_dataset(args: argparse.Namespace):
    if args.root:
        register_all(args.root)
    ledger, records = read_ledger(args.ledger), load_records(args.dataset)
    check_ledger(ledger, records, args.ledger)
    return ledger, records


def main(args: list[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parsed = parse_args(args)
    return cli.run(partial(COMMANDS[parsed.command], parsed))


if __name__ == "__main__":
    sys.exit(main())

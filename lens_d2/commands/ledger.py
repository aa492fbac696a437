"""Checks, counts and conversion of a ledger: ``lens-d2 ledger``."""

from __future__ import annotations

import argparse

from ..config import load_config
from ..data.datasets import register_all
from ..data.ledger.counts import count_training_data, format_counts, strategies_of
from ..data.ledger.table import read_ledger, to_table, write_ledger
from ..data.loader import load_records


def check(args: argparse.Namespace) -> None:
    """Check a ledger and print how many rows it has."""
    ledger, _ = _read_with_dataset(args)
    print(f"{args.ledger}: {len(ledger)} rows, sound")


def counts(args: argparse.Namespace) -> None:
    """Print what each strategy adds."""
    ledger, records = _read_with_dataset(args)
    print(format_counts(count_training_data(records, ledger, strategies_of(ledger))))


def convert(args: argparse.Namespace) -> None:
    """Write a ledger in the format that the output's suffix names."""
    rows = write_ledger(args.output, [to_table(read_ledger(args.ledger))])
    print(f"{args.output}: {rows} rows")


ACTIONS = {"check": check, "counts": counts, "convert": convert}


def _read_with_dataset(args: argparse.Namespace):
    register_all(args.root)
    load_config(args.config_file)  # registers what its readers read
    records = load_records(args.dataset)
    return read_ledger(args.ledger, records), records


def run(args: argparse.Namespace) -> None:
    """Do what ``args.action`` names.

    Raises:
        DataError: the ledger is unsound, or contradicts its datasets.
    """
    ACTIONS[args.action](args)

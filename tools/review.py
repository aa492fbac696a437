#!/usr/bin/env python
"""Lets a radiologist judge what mining has proposed, and takes the verdicts back into the ledger.

    python tools/review.py output/lens_full/train/mining/ledger.parquet --dataset deeplesion_train
    python tools/review.py output/lens_full/train/mining/ledger.parquet --apply ledger_verdicts.json

The first writes a page that opens in any browser, without a network: proposals one at a time, the likeliest first,
with keys for the verdicts, which the page saves as a file. The second makes these verdicts the status of the rows:
an accepted proposal is trained on as a lesion, a rejected one has no effect, an unsure one is left out of the
losses.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from lens_d2.config import load_config
from lens_d2.data.cache import build_cache
from lens_d2.data.datasets import register_all
from lens_d2.data.ledger.table import check_ledger, read_ledger, to_table, write_ledger
from lens_d2.data.ledger.verdicts import apply_verdicts, proposals_of, read_verdicts
from lens_d2.data.loader import load_records
from lens_d2.export.review_page import write_review_page
from lens_d2.io import cli


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ledger", type=Path, help=".parquet or .csv")
    parser.add_argument("--output", type=Path, help="the page (default: review.html beside the ledger), or with "
                        "--apply the new ledger (default: in place of the old one)")  # fmt: skip
    page = parser.add_argument_group("writing the page")
    page.add_argument("--dataset", nargs="+", metavar="NAME", help="registered names of the mined datasets")
    page.add_argument("--root", help="folder of the datasets (default: DETECTRON2_DATASETS, or datasets)")
    page.add_argument("--config-file", help="its INPUT keys count; else the project's defaults")
    page.add_argument("--all", action="store_true", help="show what has been judged before, too")
    page.add_argument(
        "--strategy", action="append", help="show only what this strategy has found; may be repeated"
    )
    page.add_argument("--max-proposals", type=int, default=5000, metavar="N", help="default: %(default)s")
    applying = parser.add_argument_group("applying verdicts")
    applying.add_argument("--apply", type=Path, metavar="VERDICTS", help="file that the page has given")
    parsed = parser.parse_args(args)
    if not parsed.apply and not parsed.dataset:
        parser.error("--dataset is needed to write a page, --apply to take verdicts back")
    return parsed


def write_page(args: argparse.Namespace) -> None:
    """Writes the page."""
    if args.root:
        register_all(args.root)
    cfg = load_config(args.config_file)
    ledger, records = read_ledger(args.ledger), load_records(args.dataset)
    check_ledger(ledger, records, args.ledger)
    proposals = proposals_of(ledger, judged=args.all)
    if args.strategy:
        proposals = [each for each in proposals if each.strategy in args.strategy]
    shown = proposals[: args.max_proposals]
    path = args.output or args.ledger.with_name("review.html")
    left_out = len(proposals) - len(shown)
    size = write_review_page(path, args.ledger.name, shown, records, build_cache(cfg), left_out)
    more = f", {left_out} left out (--max-proposals)" if left_out else ""
    print(
        f"{path}: {len(shown)} proposals{more}, {size / 1e6:.1f} MB, {size / 1e3 / max(len(shown), 1):.1f} kB each"
    )


def take_back(args: argparse.Namespace) -> None:
    """Writes the ledger with the verdicts."""
    ledger, counts = apply_verdicts(read_ledger(args.ledger), read_verdicts(args.apply), args.apply)
    path = args.output or args.ledger
    write_ledger(path, [to_table(ledger)])
    print(f"{path}: {', '.join(f'{count} {verdict}' for verdict, count in counts.items())}")


def main(args: list[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parsed = parse_args(args)
    return cli.run(partial(take_back if parsed.apply else write_page, parsed))


if __name__ == "__main__":
    sys.exit(main())

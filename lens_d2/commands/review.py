"""Page for a radiologist's verdicts, and their way back into the ledger: ``lens-d2 review``."""

from __future__ import annotations

import argparse

from ..config import load_config
from ..data.cache import build_cache
from ..data.datasets import register_all
from ..data.ledger.queue import QUEUES
from ..data.ledger.table import LEDGER, LEDGER_CSV, read_ledger, to_table, write_ledger
from ..data.ledger.verdicts import VERDICTS, apply_verdicts, proposals_of, read_verdicts
from ..data.loader import load_records
from ..export.review_page import write_review_page
from ..io.errors import DataError


def write_page(args: argparse.Namespace) -> None:
    """Write the page."""
    if args.output and args.output.suffix.lower() not in (".html", ".htm"):
        fault = "the page must end in .html; to write a ledger, add --apply"
        raise DataError(args.output, fault)
    register_all(args.root)
    cfg = load_config(args.config_file)
    records = load_records(args.dataset)
    ledger = read_ledger(args.ledger, records)
    everything = proposals_of(ledger, judged=True)
    known = sorted({each.strategy for each in everything})
    for name in args.strategy or ():
        if name not in known:
            fault = f"nothing in {args.ledger.name} is of {name!r}; there are {', '.join(known)}"
            raise DataError("--strategy", fault)
    queue = QUEUES[args.queue](everything, records, cfg.MINING.CALIBRATION.SIZES)
    proposals = [
        each
        for each in queue
        if (args.all or each.status not in VERDICTS) and (not args.strategy or each.strategy in args.strategy)
    ]
    shown = proposals[: args.limit]
    path = args.output or args.ledger.with_name("review.html")
    left_out = len(proposals) - len(shown)
    size = write_review_page(path, args.ledger.name, shown, records, build_cache(cfg), left_out)
    more = f", {left_out} left out (--limit)" if left_out else ""
    print(
        f"{path}: {len(shown)} proposals{more}, {size / 1e6:.1f} MB, {size / 1e3 / max(len(shown), 1):.1f} kB each"
    )


def take_back(args: argparse.Namespace) -> None:
    """Write the ledger with the verdicts."""
    path = args.output or args.ledger
    ledger = read_ledger(args.ledger, exact=path == args.ledger)
    ledger, counts = apply_verdicts(ledger, read_verdicts(args.apply), args.apply)
    paths = [path]
    if path == args.ledger and path.name in (LEDGER, LEDGER_CSV):  # a run keeps it in both forms, and reads one
        twins = (path.with_name(name) for name in (LEDGER, LEDGER_CSV))
        paths += [twin for twin in twins if twin != path and twin.is_file()]
    for each in paths:
        write_ledger(each, [to_table(ledger)])
    print(f"{path}: {', '.join(f'{count} {verdict}' for verdict, count in counts.items())}")


def run(args: argparse.Namespace) -> None:
    """Write the page, or take verdicts back.

    Raises:
        DataError: neither is asked for, or a file is unsound.
    """
    if not args.apply and not args.dataset:
        raise DataError("--dataset", "not given: it is needed to write a page, --apply to take verdicts back")
    (take_back if args.apply else write_page)(args)

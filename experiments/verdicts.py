"""Verdicts of the hidden truth, in the radiologist's place: what a hundred of them bring, and in which order.

    python -m experiments verdicts output/phantom/lens_best/train/mining/ledger.parquet --output output/verdicts

For each order (``lens-d2 review --queue``) and each number of verdicts it writes a ledger to train from,
``<order>_<number>.parquet``, and ``results.md``: the verdicts, and how many of the missing lesions training has
afterwards, all of them and by size. ``DATASETS.LEDGER`` takes such a ledger.

A proposal is accepted if its box with the highest score has an IoU of at least 0.5 with a hidden lesion's box on
that slice; the verdict is unsure if it merely touches one, and rejected if none is there.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lens_d2.config import load_config
from lens_d2.data.datasets import register_all
from lens_d2.data.datasets.catalog import root_of
from lens_d2.data.ledger.queue import QUEUES, USED
from lens_d2.data.ledger.table import read_ledger, to_table, write_ledger
from lens_d2.data.ledger.verdicts import VERDICTS, Proposal, apply_verdicts, proposals_of
from lens_d2.data.loader import load_records
from lens_d2.structures.boxes import pairwise_iou, size_classes

from .mined import SIDES, SIZES, TOTAL, HiddenTruth, measure
from .runs import add_output_argument, write_table

ACCEPTED_IOU = 0.5


def verdict_of(proposal: Proposal, truth: HiddenTruth) -> str:
    """Verdict of the hidden truth on a proposal."""
    z, *box = proposal.slice_boxes[proposal.slice_boxes[:, 5].argmax(), :5]
    boxes, _ = truth.boxes(proposal.volume)
    iou = pairwise_iou(np.array([box]), boxes[boxes[:, 0] == z, 1:]).max(initial=0.0)
    return "accepted" if iou >= ACCEPTED_IOU else "unsure" if iou > 0 else "rejected"


def unjudged(ledger: pd.DataFrame, records: list[dict], order: str) -> list[Proposal]:
    """The proposals of a ledger without a verdict, in the order of a queue; arguments as of :func:`answered`."""
    sizes = load_config().MINING.CALIBRATION.SIZES
    queue = QUEUES[order](proposals_of(ledger, judged=True), records, sizes)
    return [each for each in queue if each.status not in VERDICTS]


def judge(ledger: pd.DataFrame, queue: Sequence[Proposal], truth: HiddenTruth) -> tuple[pd.DataFrame, Counter]:
    """A ledger with verdicts on these proposals, and the counts of the verdicts."""
    verdicts = {each.id: {"verdict": verdict_of(each, truth)} for each in queue}
    return apply_verdicts(ledger, verdicts, "the ledger")[0], Counter(x["verdict"] for x in verdicts.values())


def answered(
    ledger: pd.DataFrame, records: list[dict], truth: HiddenTruth, order: str, number: int
) -> tuple[pd.DataFrame, Counter]:
    """A ledger with the verdicts on the first proposals of a queue, and the counts of the verdicts.

    Args:
        ledger: of mining.
        records: of the mined dataset.
        truth: of it.
        order: of the queue, a name in QUEUES.
        number: of verdicts.
    """
    return judge(ledger, unjudged(ledger, records, order)[:number], truth)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("ledger", type=Path, help=".parquet or .csv, of mining")
    parser.add_argument(
        "--dataset", default="phantom_deeplesion_train", help="the mined one (default: %(default)s)"
    )
    parser.add_argument("--root", help="folder of the datasets (default: DETECTRON2_DATASETS, or datasets)")
    text = "numbers of verdicts (default: 50 100 200 400)"
    parser.add_argument("--counts", type=int, nargs="+", default=[50, 100, 200, 400], metavar="N", help=text)
    add_output_argument(parser, "output/verdicts")


def run(args: argparse.Namespace) -> None:
    """Run the experiment."""
    register_all(args.root)
    records = load_records((args.dataset,))
    ledger = read_ledger(args.ledger, records)
    truth = HiddenTruth(root_of(args.dataset))
    classes = size_classes(np.array(SIDES), SIZES)
    rows, content = [_row("", 0, {}, ledger, records, truth, classes)], []
    for name in QUEUES:
        queue = unjudged(ledger, records, name)
        for count in args.counts:
            judged, counts = judge(ledger, queue[:count], truth)
            path = args.output / f"{name}_{count}.parquet"
            write_ledger(path, [to_table(judged)])
            rows.append(_row(name, counts.total(), counts, judged, records, truth, classes))
            content.append({"order": name, "verdicts": counts.total(), "ledger": str(path), **counts})
    header = ["order", "verdicts", *VERDICTS, "missing lesions known", *classes]
    print(write_table(args.output, rows, header, content))


def _row(
    name: str,
    number: int,
    counts: dict,
    ledger: pd.DataFrame,
    records: list[dict],
    truth: HiddenTruth,
    classes: list[str],
) -> list:
    """Cells of a line: the numbers of missing lesions that training has as lesions."""
    measured = measure(ledger[ledger["status"].isin(USED)], records, truth)
    missing, known = measured["missing_lesions"], measured["tallies"][TOTAL].found_lesions
    size = {lesion: truth.size_class(*lesion) for lesion in missing}
    of_class = [{lesion for lesion in missing if size[lesion] == each} for each in classes]
    shares = [f"{len(known & own)} of {len(own)}" for own in (missing, *of_class)]
    return [name, number, *(counts.get(each, "") for each in VERDICTS), *shares]

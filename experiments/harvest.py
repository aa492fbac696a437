"""The gain from harvesting and from the hard negative suppression loss, over several seeds.

    python -m experiments harvest --seeds 1 2 3 --output output/harvest

For every seed it runs the rounds of a config, and trains the same detector from the beginning, with the same
number of iterations, on three label sets (Lesion-Harvester, Table IV):

    lesions   the original marks and the harvested lesions
    ordinary  these, and the slices of the hard negatives, which count as any other background
    hnsl      these, and hard negatives suppressed by the loss (Eq. 8)

It prints, for every seed and as their mean, the recall of the original marks, the recall at 90% precision of each
round, and the average precision of each detector on DATASETS.TEST; ``results.json`` and ``results.md`` have the
same. If it is run again, it resumes after the last finished unit of work.
"""

from __future__ import annotations

import argparse
import json

from lens_d2.data.ledger.table import read_ledger, to_table, write_ledger
from lens_d2.evaluation.evaluators import summaries

from . import runs

SUPPRESS = ("MODEL.CENTERNET.SUPPRESS_HARD_NEGATIVES", "False", "True")
# Label set -> whether it has the hard negatives, and whether the loss suppresses them.
ARMS = {"lesions": (False, False), "ordinary": (True, False), "hnsl": (True, True)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    runs.add_seed_arguments(parser, "configs/phantom/harvester.yaml", "output/harvest")
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), default=list(ARMS), help="detectors to train")
    parser.add_argument(
        "--suppress", nargs=3, metavar=("KEY", "OFF", "ON"), default=SUPPRESS, help="key that turns the loss on"
    )


def harvest(args: argparse.Namespace, seed: int) -> tuple[dict[str, float], str]:
    """The recalls of one seed's rounds, by their names, and the ledger of the best."""
    folder = args.output / f"seed_{seed}"
    runs.train(args, folder, "SEED", seed, "STAGES", "('harvest',)")
    rows = json.loads((folder / "harvest/table.json").read_text())
    recalls = {"original marks": rows[0]["R@100P"]}
    recalls |= {f"{row['labels']}, R@90P": row["R@90P"] for row in rows[1:]}
    recalls["gain at 90P"] = max(r["R@90P"] for r in rows[1:] if r["labels"].endswith("^+")) - rows[0]["R@100P"]
    return recalls, runs.stage_result(folder, "harvest")["ledger"]


def detect(args: argparse.Namespace, seed: int, arm: str, ledger: str) -> float | None:
    """The average precision of the detector that is trained on one label set."""
    with_negatives, suppressed = ARMS[arm]
    folder = args.output / f"seed_{seed}" / f"detector_{arm}"
    if not with_negatives:
        rows = read_ledger(ledger)
        ledger = str(args.output / f"seed_{seed}" / "lesions.parquet")
        write_ledger(ledger, [to_table(rows[rows["status"] != "hard_negative"])])
    opts = ["SEED", seed, "STAGES", "('retrain',)", "DATASETS.LEDGER", ledger]
    key, *values = args.suppress
    runs.train(args, folder, *opts, key, values[suppressed])
    return average_precision(runs.stage_result(folder, "retrain")["metrics"])


def average_precision(metrics: dict) -> float | None:
    """The mean over the datasets of an evaluation; None if none of them has it."""
    return runs.mean_of(summaries(metrics, "ap").values())


def run(args: argparse.Namespace) -> None:
    """Runs the experiment."""
    results: runs.Results = {}
    for seed in args.seeds:
        results[seed], ledger = harvest(args, seed)
        print(runs.write_results(args.output, results), flush=True)
        for arm in args.arms:
            results[seed][f"AP, {arm}"] = detect(args, seed, arm, ledger)
            print(runs.write_results(args.output, results), flush=True)
    for numbers in results.values():
        lesions, hnsl = numbers.get("AP, lesions"), numbers.get("AP, hnsl")
        if lesions is not None and hnsl is not None:
            numbers["AP, hnsl - lesions"] = hnsl - lesions
    print(runs.write_results(args.output, results), flush=True)

#!/usr/bin/env python
"""What harvesting and the hard negative suppression loss bring, over several seeds.

    python tools/harvest_experiment.py --seeds 1 2 3 --output output/harvest_experiment

For every seed it runs the rounds of a config, and trains the same detector from the beginning, with the same
number of iterations, on three label sets (Lesion-Harvester, Table IV):

    lesions   the original marks and the harvested lesions
    ordinary  these, and the slices of the hard negatives, which count as any other background
    hnsl      these, and hard negatives suppressed by the loss (Eq. 8)

It prints, for every seed and as their mean, the recall of the original marks, the recall at 90% precision of each
round, and the average precision of each detector on DATASETS.TEST; ``results.json`` and ``results.csv`` have the
same. Run again, it goes on from the last finished unit of work.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from lens_d2.data.ledger.table import read_ledger, to_table, write_ledger
from lens_d2.evaluation.evaluators import summaries
from lens_d2.io.files import write_whole

ROOT = Path(__file__).resolve().parents[1]
SUPPRESS = ("MODEL.CENTERNET.SUPPRESS_HARD_NEGATIVES", "False", "True")
# Label set -> whether it has the hard negatives, and whether the loss suppresses them.
ARMS = {"lesions": (False, False), "ordinary": (True, False), "hnsl": (True, True)}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--config-file", default="configs/phantom/harvester.yaml")
    parser.add_argument("--output", type=Path, default=ROOT / "output/harvest_experiment", help="folder to write")
    parser.add_argument("--arms", nargs="*", choices=list(ARMS), default=list(ARMS), help="detectors to train")
    parser.add_argument(
        "--suppress",
        nargs=3,
        metavar=("KEY", "OFF", "ON"),
        default=SUPPRESS,
        help="what turns the loss off and on",
    )
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the config, after --")
    return parser.parse_args(argv)


def train(args: argparse.Namespace, folder: Path, *opts: object) -> None:
    """Run train_net.py, which goes on where it was; end where it fails."""
    command = [sys.executable, str(ROOT / "train_net.py"), "--config-file", args.config_file, "--resume"]
    command += [*args.opts, "OUTPUT_DIR", str(folder), *map(str, opts)]
    code = subprocess.run(command, cwd=ROOT).returncode
    if code:
        sys.exit(f"{folder}: train_net.py ended with exit code {code}; its last lines above say why")


def result_of(folder: Path, stage: str) -> dict:
    return json.loads((folder / stage / "stage.json").read_text())["result"]


def harvest(args: argparse.Namespace, seed: int) -> tuple[dict[str, float], str]:
    """The recalls of one seed's rounds, by their names, and the ledger of the best."""
    folder = args.output / f"seed_{seed}"
    train(args, folder, "SEED", seed, "STAGES", "('harvest',)")
    rows = json.loads((folder / "harvest/table.json").read_text())
    recalls = {"original marks": rows[0]["R@100P"]}
    recalls |= {f"{row['labels']}, R@90P": row["R@90P"] for row in rows[1:]}
    recalls["gain at 90P"] = max(r["R@90P"] for r in rows[1:] if r["labels"].endswith("^+")) - rows[0]["R@100P"]
    return recalls, result_of(folder, "harvest")["ledger"]


def detect(args: argparse.Namespace, seed: int, arm: str, ledger: str) -> float:
    """The average precision of the detector that is trained on one label set."""
    with_negatives, suppressed = ARMS[arm]
    folder = args.output / f"seed_{seed}" / f"detector_{arm}"
    if not with_negatives:
        rows = read_ledger(ledger)
        ledger = str(args.output / f"seed_{seed}" / "lesions.parquet")
        write_ledger(ledger, [to_table(rows[rows["status"] != "hard_negative"])])
    opts = ["SEED", seed, "STAGES", "('retrain',)", "DATASETS.LEDGER", ledger]
    key, *values = args.suppress
    train(args, folder, *opts, key, values[suppressed])
    return average_precision(result_of(folder, "retrain")["metrics"])


def average_precision(metrics: dict) -> float:
    """The mean over the datasets of an evaluation; NaN where there is none."""
    found = summaries(metrics, "ap").values()
    return statistics.mean(found) if found else float("nan")


def summary(results: dict[int, dict[str, float]]) -> list[list]:
    """A row for every number: its name, the mean over the seeds that have it, and each seed's."""
    names = list(dict.fromkeys(name for numbers in results.values() for name in numbers))
    rows = []
    for name in names:
        values = [numbers.get(name) for numbers in results.values()]
        rows.append([name, statistics.mean(v for v in values if v is not None), *values])
    return rows


def write(output: Path, results: dict[int, dict[str, float]]) -> str:
    """Write the results so far; the table that is printed."""
    rows, header = summary(results), ["", "mean", *(f"seed {seed}" for seed in results)]
    content = {"seeds": results, "mean": {name: mean for name, mean, *_ in rows}}
    write_whole(output / "results.json", json.dumps(content, indent=1).encode())
    table = pd.DataFrame(rows, columns=header, dtype=object)
    write_whole(output / "results.csv", table.to_csv(index=False).encode())
    return tabulate(rows, header, tablefmt="pipe", floatfmt=".4f")


def main(argv: list[str] | None = None, *, harvest: Callable = harvest, detect: Callable = detect) -> None:
    args = parse_args(argv)
    args.output = args.output.resolve()
    args.output.mkdir(parents=True, exist_ok=True)
    results: dict[int, dict[str, float]] = {}
    for seed in args.seeds:
        results[seed], ledger = harvest(args, seed)
        print(write(args.output, results), flush=True)
        for arm in args.arms:
            results[seed][f"AP, {arm}"] = detect(args, seed, arm, ledger)
            print(write(args.output, results), flush=True)
    if {"lesions", "hnsl"} <= set(args.arms):
        for numbers in results.values():
            numbers["AP, hnsl - lesions"] = numbers["AP, hnsl"] - numbers["AP, lesions"]
    print(write(args.output, results), flush=True)


if __name__ == "__main__":
    main()

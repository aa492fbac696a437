#!/usr/bin/env python
"""What mining with retraining, and false-positive reduction after it, bring on the synthetic cohort.

    python tools/mining_experiment.py --seeds 1 2 3 --output output/mining_experiment

For every seed it runs all stages of a config (LENS, Section III). Printed and written to ``results.json`` are the
average sensitivities on the test patients after each stage, per seed and as their mean; ``mining.md`` of each
seed has what was mined, against the hidden truth (tools/measure_mining.py). Run again, it goes on from the last
finished unit of work. Overrides that concern all stages go after ``--``:

    python tools/mining_experiment.py --seeds 1 -- SOLVER.MAX_ITER 2500 SOLVER.STEPS "(1700, 2250)"
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from tabulate import tabulate

from lens_d2.evaluation.evaluators import summaries
from lens_d2.io.files import write_whole

ROOT = Path(__file__).resolve().parents[1]
# What stands in each row: the stage whose evaluation it is, and what the model has had by then.
STAGES = {"train": "annotations alone", "retrain": "+ mining, retrained", "evaluate": "+ false-positive reduction"}
METRIC = "average_sensitivity"


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--config-file", default="configs/phantom/lens_full.yaml")
    parser.add_argument("--mined", default="phantom_deeplesion_train", help="dataset whose mining is measured")
    parser.add_argument("--test", default="phantom_deeplesion_1k_test", help="dataset of the figures")
    parser.add_argument("--output", type=Path, default=ROOT / "output/mining_experiment", help="folder to write")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the config, after --")
    return parser.parse_args(args)


def run(*command: object) -> None:
    """Run a command of the project; end where it fails."""
    words = [sys.executable, *map(str, command)]
    code = subprocess.run(words, cwd=ROOT).returncode
    if code:
        sys.exit(f"{command[0]} ended with exit code {code}; its last lines above say why")


def average_sensitivity(metrics: dict, dataset: str) -> float:
    """That of the model's own output, from an evaluation of this dataset alone or of several by name."""
    return next(iter(summaries(metrics.get(dataset, metrics), METRIC).values()))


def experiment(args: argparse.Namespace, seed: int) -> dict[str, float]:
    """All stages of one seed; the average sensitivity after each, by its name in ``STAGES``."""
    folder = args.output / f"seed_{seed}"
    run(
        "train_net.py",
        "--config-file",
        args.config_file,
        "--resume",
        *args.opts,
        "OUTPUT_DIR",
        folder,
        "SEED",
        seed,
    )
    results = {stage: json.loads((folder / stage / "stage.json").read_text())["result"] for stage in STAGES}
    table = folder / "mining.md"
    run("tools/measure_mining.py", results["train"]["ledger"], "--dataset", args.mined, "--output", table)
    return {name: average_sensitivity(results[stage]["metrics"], args.test) for stage, name in STAGES.items()}


def main(args: list[str] | None = None) -> None:
    parsed = parse_args(args)
    parsed.output = parsed.output.resolve()
    results: dict[int, dict[str, float]] = {}
    for seed in parsed.seeds:
        results[seed] = experiment(parsed, seed)
        means = {name: statistics.mean(r[name] for r in results.values()) for name in STAGES.values()}
        content = json.dumps({"dataset": parsed.test, "seeds": results, "mean": means}, indent=1)
        write_whole(parsed.output / "results.json", content.encode())
    rows = [[name, *(r[name] for r in results.values()), means[name]] for name in STAGES.values()]
    print(tabulate(rows, ["average sensitivity", *(f"seed {s}" for s in results), "mean"], floatfmt=".3f"))


if __name__ == "__main__":
    main()

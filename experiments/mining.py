"""The gain from mining with retraining, and from false-positive reduction after it, on the synthetic cohort.

    python -m experiments mining --seeds 1 2 3 --output output/mining

For every seed it runs all stages of a config (LENS, Section III). It prints the average sensitivities on the test
patients after each stage, by seed and as their mean; ``results.json`` and ``results.md`` have the same. In the
folder of each seed, ``mining.md`` compares what was mined with the hidden truth (``python -m experiments mined``).
If it is run again, it resumes after the last finished unit of work. Overrides of all stages go after ``--``:

    python -m experiments mining --seeds 1 -- SOLVER.MAX_ITER 2500 SOLVER.STEPS "(1700, 2250)"
"""

from __future__ import annotations

import argparse

from lens_d2.evaluation.evaluators import summaries

from . import mined, runs

# Row of the table for each stage that evaluates.
STAGES = {"train": "annotations alone", "retrain": "+ mining, retrained", "evaluate": "+ false-positive reduction"}
METRIC = "average_sensitivity"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    runs.add_seed_arguments(parser, "configs/phantom/lens_full.yaml", "output/mining")
    parser.add_argument("--mined", default="phantom_deeplesion_train", help="dataset whose mining is measured")
    parser.add_argument("--test", default="phantom_deeplesion_1k_test", help="dataset of the figures")


def average_sensitivity(metrics: dict, dataset: str) -> float:
    """That of the model's own output, from an evaluation of this dataset alone or of several by name."""
    return next(iter(summaries(metrics.get(dataset, metrics), METRIC).values()))


def experiment(args: argparse.Namespace, seed: int) -> dict[str, float]:
    """All stages of one seed; the average sensitivity after each, by its name in ``STAGES``."""
    folder = args.output / f"seed_{seed}"
    runs.train(args, folder, "SEED", seed)
    results = {stage: runs.stage_result(folder, stage) for stage in STAGES}
    mined.report(results["train"]["ledger"], [args.mined], folder / "mining.md")
    return {name: average_sensitivity(results[stage]["metrics"], args.test) for stage, name in STAGES.items()}


def run(args: argparse.Namespace) -> None:
    """Runs the experiment."""
    results: runs.Results = {}
    for seed in args.seeds:
        results[seed] = experiment(args, seed)
        print(runs.write_results(args.output, results, dataset=args.test), flush=True)

#!/usr/bin/env python
"""Demonstrates the project in one command: a synthetic cohort, its cache, LENS trained on it, the evaluation.

    make demo
    python tools/demo.py --output output/demo

Each step is a command of the project, run as a user would run it. Under the output folder, ``data/`` is the
cohort with its cache and ``training/`` what train_net.py writes; what one wants to look at lies beside them.
A second run begins anew.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from tabulate import tabulate

from lens_d2.io import cli
from lens_d2.io.errors import DataError
from lens_d2.io.files import write_whole

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "configs/phantom/lens_multi.yaml"
# The completely annotated test patients, whose curve and pictures are shown.
TEST_SET = "phantom_deeplesion_1k_test"
WRITTEN = ("training", "model_final.pth", "metrics.json", "froc.png", "overlays")


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "output/demo", help="folder to write")
    parser.add_argument("--size", default="small", help="of the cohort, see datasets/prepare_phantom.py")
    parser.add_argument("--seed", type=int, default=0, help="of the cohort")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the config, for short trials")
    return parser.parse_args(args)


def steps(output: Path, size: str, seed: int, opts: list[str]) -> dict[str, list[str]]:
    """Title and command of each step, in running order."""
    cohort = ["--output", str(output / "data/phantom"), "--overwrite", "--size", size, "--seed", str(seed)]
    # So small a cohort is prepared sooner than a second process has started.
    preparing = ["--processes", "1", "--config-file", CONFIG]
    training = ["--config-file", CONFIG, "OUTPUT_DIR", str(output / "training"), *opts]
    return {
        "Writing the synthetic cohort": ["datasets/prepare_phantom.py", *cohort],
        "Checking the data and filling the cache": ["datasets/prepare_datasets.py", *preparing],
        "Training and evaluating": ["train_net.py", *training],
    }


def environment(output: Path) -> dict[str, str]:
    """Variables of the steps: folder of the datasets, a thread for each core but the loader's, no warnings."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = min(max(cores - 1, 1), 8)
    defaults = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    defaults["PYTHONWARNINGS"] = "ignore::FutureWarning,ignore::DeprecationWarning"
    return {**defaults, **os.environ, "DETECTRON2_DATASETS": str(output / "data")}


def run(title: str, command: list[str], env: dict[str, str]) -> None:
    """Runs one step with its output shown.

    Raises:
        DataError: it failed.
    """
    print(f"\n=== {title}\n    python {' '.join(command)}", flush=True)
    start = time.monotonic()
    code = subprocess.run([sys.executable, *command], cwd=ROOT, env=env).returncode
    if code:
        raise DataError(command[0], f"ended with exit code {code}; its last lines above say why")
    print(f"=== {title}: {time.monotonic() - start:.0f} s", flush=True)


def remove_old(output: Path) -> None:
    """Removes what an earlier run wrote, except its cohort, which is replaced when the new one is complete."""
    for name in WRITTEN:
        path = output / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def collect(output: Path) -> dict:
    """Copies weights, curve and pictures beside ``training/`` and sums up the evaluation in ``metrics.json``.

    Returns:
        {dataset: its metrics}.
    """
    inference = output / "training/inference"
    metrics = {path.parent.name: json.loads(path.read_text()) for path in sorted(inference.glob("*/metrics.json"))}
    write_whole(output / "metrics.json", f"{json.dumps(metrics, indent=1)}\n".encode())
    shutil.copy2(output / "training/model_final.pth", output)
    shutil.copy2(inference / TEST_SET / "froc.png", output)
    shutil.copytree(inference / TEST_SET / "overlays", output / "overlays")
    return metrics


def summary(metrics: dict, output: Path) -> str:
    """The sensitivities of the fused output and, on the test patients, of each expert; where to look."""
    test = metrics[TEST_SET]
    rows = {f"{name}, fused": entry for name, entry in metrics.items()}
    rows |= {f"{TEST_SET}, {expert} alone": entry for expert, entry in test["experts"].items()}
    header = ["sensitivity at FPs per sub-volume", *(f"{fps:g}" for fps in test["fps"]), "average"]
    lines = [
        [name, *(f"{value:.3f}" for value in (*entry["sensitivity"], entry["average_sensitivity"]))]
        for name, entry in rows.items()
    ]
    places = {
        "FROC plot": output / "froc.png",
        "overlay pictures": output / "overlays",
        "metrics": output / "metrics.json",
        "weights": output / "model_final.pth",
        "predictions, log, training events": output / "training",
    }
    table = tabulate(lines, header, disable_numparse=True)
    return f"{table}\n\n{tabulate(places.items(), tablefmt='plain')}"


def demonstrate(args: argparse.Namespace) -> None:
    """Runs all steps and prints what they gave."""
    output = args.output.resolve()
    start = time.monotonic()
    remove_old(output)
    env = environment(output)
    for title, command in steps(output, args.size, args.seed, args.opts).items():
        run(title, command, env)
    metrics = collect(output)
    print(f"\n{summary(metrics, output)}\n\ndemo finished in {(time.monotonic() - start) / 60:.1f} minutes")


def main(args: list[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    return cli.run(partial(demonstrate, parse_args(args)))


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python
"""Demonstrate the project in one command, from a synthetic cohort to the report of a scan.

    make demo
    python tools/demo.py --output output/demo

Writes and prepares a small cohort, trains LENS on its four datasets from a backbone that comes with the package,
evaluates it and the trained detector of the model zoo on the same test patients, and looks for lesions in a scan.
Each step is a command of the project, run as a user would run it. Under the output folder, ``data/`` is the cohort
with its cache, ``training/`` and ``zoo/`` are what ``lens-d2 train`` writes; what one wants to look at lies beside
them. A second run begins anew.
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

from lens_d2.commands.options import DEFAULT_MODEL as MODEL
from lens_d2.io import cli
from lens_d2.io.errors import DataError
from lens_d2.io.files import write_whole

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "configs/phantom/lens_finetune.yaml"
# The completely annotated test patients, on whom both detectors are evaluated.
TEST_SET = "phantom_deeplesion_1k_test"
SCAN = "data/phantom/LiTS/volume-0.nii"
WRITTEN = ("training", "zoo", "comparison", "scan", "model_final.pth", "metrics.json", "froc.png", "overlays")


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "output/demo", help="folder to write")
    parser.add_argument("--size", default="small", help="of the cohort, see lens-d2 phantom --help")
    parser.add_argument("--seed", type=int, default=0, help="of the cohort")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the config, for short trials")
    return parser.parse_args(args)


def steps(output: Path, size: str, seed: int, opts: list[str]) -> dict[str, list[str]]:
    """List title and command of each step, in running order."""
    one_set = ["DATASETS.TEST", f"('{TEST_SET}',)"]
    cohort = ["--output", f"{output}/data/phantom", "--overwrite", "--size", size, "--seed", str(seed)]
    # So small a cohort is prepared sooner than a second process has started.
    preparing = ["--workers", "1", "--config-file", CONFIG]
    training = ["--config-file", CONFIG, "OUTPUT_DIR", f"{output}/training", *one_set, *opts]
    zoo = ["--config-file", f"configs/{MODEL}.yaml", "--eval-only", "OUTPUT_DIR", f"{output}/zoo", *one_set]
    zoo += ["MODEL.WEIGHTS", f"lens_d2://{MODEL}", "MODEL.FPR.WEIGHTS", f"lens_d2://{MODEL}.fpr"]
    found = [f"{output}/{name}/inference/{TEST_SET}/predictions.json" for name in ("training", "zoo")]
    truth = f"{output}/zoo/inference/{TEST_SET}/ground_truth.json"
    comparison = ["--protocol", "lens3d", "--ground-truth", truth, "--output", f"{output}/comparison"]
    return {
        "Writing the synthetic cohort": ["phantom", *cohort],
        "Checking the data and filling the cache": ["prepare", *preparing],
        "Training and evaluating": ["train", *training],
        f"Evaluating {MODEL} of the model zoo": ["train", *zoo],
        "Comparing the two": ["compare", *comparison, "--predictions", *found, "--names", "trained here", MODEL],
        "Looking for lesions in a scan": ["predict", "--input", f"{output}/{SCAN}", "--output", f"{output}/scan"],
    }


def environment(output: Path) -> dict[str, str]:
    """Set variables of the steps: folder of the datasets, a thread for each core but the loader's."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = min(max(cores - 1, 1), 8)
    defaults = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    return {**defaults, **os.environ, "DETECTRON2_DATASETS": str(output / "data")}


def run(title: str, command: list[str], env: dict[str, str]) -> None:
    """Run one step with its output shown.

    Raises:
        DataError: it failed.
    """
    print(f"\n=== {title}\n    lens-d2 {' '.join(command)}", flush=True)
    start = time.monotonic()
    code = subprocess.run([sys.executable, "-m", "lens_d2", *command], cwd=ROOT, env=env).returncode
    if code:
        raise DataError(f"lens-d2 {command[0]}", f"ended with exit code {code}; its last lines above say why")
    print(f"=== {title}: {time.monotonic() - start:.0f} s", flush=True)


def remove_old(output: Path) -> None:
    """Remove what an earlier run wrote, except its cohort, which is replaced when the new one is complete.

    Raises:
        DataError: there are such files, but no cohort: no demo has written them.
    """
    old = [output / name for name in WRITTEN if (output / name).exists()]
    if old and not (output / "data/phantom").is_dir():
        raise DataError(old[0], "is there, and no demo has written it: give another --output")
    for path in old:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def collect(output: Path) -> dict:
    """Copy weights, curves and pictures to the output folder and sum up the evaluations in ``metrics.json``.

    Returns:
        {"training" or "zoo": metrics on the test patients}.
    """
    found = {name: output / name / "inference" / TEST_SET for name in ("training", "zoo")}
    metrics = {name: json.loads((folder / "metrics.json").read_text()) for name, folder in found.items()}
    write_whole(output / "metrics.json", f"{json.dumps(metrics, indent=1)}\n".encode())
    shutil.copy2(output / "training/model_final.pth", output)
    shutil.copy2(output / "comparison/froc.png", output)
    if (found["zoo"] / "overlays").is_dir():  # no pictures of a cohort without lesions in the first sub-volumes
        shutil.copytree(found["zoo"] / "overlays", output / "overlays")
    return metrics


def summary(metrics: dict, output: Path) -> str:
    """Tell both average sensitivities, and where to look."""
    trained, zoo = (metrics[name] for name in ("training", "zoo"))
    places = {
        "scan/report.html": "report of a scan: open it in a browser",
        "froc.png": "both FROC curves",
        "overlays": "detections of the zoo's detector on test slices",
        "metrics.json": "all figures, of each expert too",
        "model_final.pth": "weights trained here",
    }
    width = max(len(str(output / name)) for name in places)
    lines = [
        f"Average sensitivity on {zoo['num_volumes']} sub-volumes of test patients "
        "(3D FROC, 1/8 to 8 false positives each):",
        f"    {trained['average_sensitivity']:.3f}  trained here, from a backbone of the model zoo",
        f"    {zoo['average_sensitivity']:.3f}  {MODEL} of the model zoo",
        "",
        *(f"{str(output / name):{width}}  {what}" for name, what in places.items()),
    ]
    return "\n".join(lines)


def demonstrate(args: argparse.Namespace) -> None:
    """Run all steps and print what they gave."""
    output = args.output.resolve()
    start = time.monotonic()
    remove_old(output)
    env = environment(output)
    for title, command in steps(output, args.size, args.seed, args.opts).items():
        run(title, command, env)
    metrics = collect(output)
    print(f"\n{summary(metrics, output)}\n\nThe demo took {(time.monotonic() - start) / 60:.1f} minutes.")


def main(args: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return cli.run(partial(demonstrate, parse_args(args)))


if __name__ == "__main__":
    sys.exit(main())

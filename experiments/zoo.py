"""Trains the weights that come with the package, and packs them into the model zoo.

    python -m experiments zoo phantom/lens_multi --output output/zoo

The synthetic cohort that they learn from (``--size``, ``--cohort-seed``) is written and prepared below
``--output`` unless it is there. Training resumes where it stopped. Thresholds and calibration are found on the
validation patients. ``phantom/backbone`` is the backbone of ``phantom/lens_multi``, from which training on the
synthetic cohort starts. Without ``--pack`` the weights are written below ``--output`` alone.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from lens_d2.evaluation.operating_points import OperatingPoints, find_operating_points
from lens_d2.evaluation.readers import read_box_detections, read_lesion_boxes
from lens_d2.io.zoo import WEIGHTS
from lens_d2.model_zoo.pack import pack_weights

from . import runs

VALIDATION = "phantom_deeplesion_1k_val"


@dataclass(frozen=True)
class Recipe:
    """How weights are made.

    Attributes:
        config: of the training. opts: key, value, ... over it.
        prefix: of the names of the weights that are kept.
    """

    config: str
    opts: tuple = ()
    prefix: str = ""


LENS_MULTI = ("SOLVER.MAX_ITER", 8000, "SOLVER.STEPS", "(5600,7200)", "SOLVER.CHECKPOINT_PERIOD", 1000)
RECIPES = {
    "phantom/backbone": Recipe("configs/phantom/lens_multi.yaml", LENS_MULTI, prefix="backbone."),
    "phantom/lens_multi": Recipe("configs/phantom/lens_multi.yaml", LENS_MULTI),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", choices=list(RECIPES), help="weights to make")
    runs.add_output_argument(parser, "output/zoo")
    parser.add_argument("--size", default="large", help="of the cohort (default: %(default)s)")
    parser.add_argument("--cohort-seed", type=int, default=100, help="default: %(default)s")
    parser.add_argument("--pack", action="store_true", help="replace the weights that come with the package")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the config, after --")


def prepare(args: argparse.Namespace, recipe: Recipe) -> None:
    """Writes and prepares the cohort unless it is there; commands find it afterwards."""
    data = args.output / f"{args.size}_{args.cohort_seed}"
    os.environ["DETECTRON2_DATASETS"] = str(data)
    if (data / "phantom/phantom.json").is_file():
        return
    cohort = ["--size", args.size, "--seed", args.cohort_seed, "--output", data / "phantom"]
    runs.call("datasets/prepare_phantom.py", *cohort)
    runs.call("datasets/prepare_datasets.py", "--config-file", recipe.config)


def operating_points(folder: Path, source: str) -> dict[str, OperatingPoints]:
    """Operating points of every output, from the predictions of an evaluation."""
    truth = read_lesion_boxes(folder / "ground_truth.json")
    points = {}
    for path in sorted(folder.glob("predictions*.json")):
        name = path.stem.removeprefix("predictions").removeprefix("_") or "fused"
        points[name] = find_operating_points(truth, read_box_detections(path, truth), source=source)
    return points


def run(args: argparse.Namespace) -> None:
    recipe = RECIPES[args.name]
    prepare(args, recipe)
    folder = args.output / Path(recipe.config).stem
    opts = ["OUTPUT_DIR", folder, *recipe.opts, "DATASETS.TEST", f"('{VALIDATION}',)", *args.opts]
    runs.call("train_net.py", "--config-file", recipe.config, "--resume", *opts)
    source = f"{VALIDATION} of the synthetic cohort {args.size}, seed {args.cohort_seed}"
    points = None if recipe.prefix else operating_points(folder / "inference" / VALIDATION, source)
    target = (WEIGHTS if args.pack else args.output / "weights") / f"{args.name}.pth"
    pack_weights(folder / "model_final.pth", target, operating_points=points, prefix=recipe.prefix)
    print(f"{target}: {target.stat().st_size / 1e6:.2f} MB")

"""Trains the weights that come with the package, and packs them into the model zoo with their model cards.

    python -m experiments zoo phantom/lens_multi --output output/zoo

The synthetic cohort that they learn from (``--size``, ``--cohort-seed``) is written and prepared below
``--output`` unless it is there. Training resumes where it stopped. Thresholds and calibration are found on the
validation patients, and the card's figures are those of the test patients, whom training does not see.
``phantom/backbone``, from which training on the synthetic cohort starts, is the backbone of
``phantom/lens_multi``, which itself starts from random weights.

Without ``--pack`` the weights and the facts of their card are written below ``--output`` alone. ``--card`` writes
nothing but MODEL_ZOO.md and the cards again, from the facts in the package.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.registry import machine
from lens_d2.config import load_config
from lens_d2.evaluation.operating_points import OperatingPoints, find_operating_points
from lens_d2.evaluation.readers import read_box_detections, read_lesion_boxes
from lens_d2.evaluation.report import write_json
from lens_d2.io.errors import DataError
from lens_d2.io.files import write_whole
from lens_d2.io.zoo import CARDS, WEIGHTS
from lens_d2.model_zoo.pack import pack_weights

from . import runs

VALIDATION, TEST = "phantom_deeplesion_1k_val", "phantom_deeplesion_1k_test"
TEMPLATES = Path(__file__).parent / "templates"
NOTE = "the detector has learned from synthetic patients alone: in a patient's scan its detections mean nothing"


@dataclass(frozen=True)
class Part:
    """One file of weights.

    Attributes:
        checkpoint: below the folder of the training.
        inference: folder of the evaluations whose predictions give the operating points; none if empty.
        prefix: of the names of the weights that are kept.
    """

    checkpoint: str = "model_final.pth"
    inference: str = ""
    prefix: str = ""


@dataclass(frozen=True)
class Recipe:
    """Recipe of a model.

    Attributes:
        config: of the training.
        kind: of the model, in words.
        opts: key, value, ... over the config.
        folder: of the training, below ``--output``.
        parts: its files of weights, by the endings of their names.
        inference: folder of the evaluations that the card cites; without it nothing is evaluated.
    """

    config: str
    kind: str
    opts: tuple
    folder: str
    parts: Mapping[str, Part] = field(default_factory=lambda: {"": Part(inference="inference")})
    inference: str = "inference"


STEPS = ("SOLVER.MAX_ITER", 8000, "SOLVER.STEPS", "(5600,7200)", "SOLVER.CHECKPOINT_PERIOD", 1000)
MORE_STEPS = ("SOLVER.MAX_ITER", 12000, "SOLVER.STEPS", "(8400,10800)", "SOLVER.CHECKPOINT_PERIOD", 1000)
RETRAINED = Part("retrain/model_final.pth", "retrain/inference")
RESCORED = Part("fpr/model_final.pth", "evaluate/inference")
FROM_RANDOM = (*MORE_STEPS, "MODEL.DENSENET.WEIGHTS", "")
SELF_TRAINED = (
    *STEPS,
    *("MODEL.WEIGHTS", "lens_d2://phantom/lens_multi", "MINING.STRATEGIES", "('SelfTraining','SamePlace')"),
    *("STAGES", "('mine','retrain','fpr','evaluate')"),
)
RECIPES = {
    "phantom/backbone": Recipe(
        "configs/phantom/lens_multi.yaml",
        "backbone of phantom/lens_multi, from which training on the synthetic cohort starts",
        FROM_RANDOM,
        "lens_multi",
        {"": Part(prefix="backbone.")},
        inference="",
    ),
    "phantom/lens_multi": Recipe(
        "configs/phantom/lens_multi.yaml", "LENS on four datasets, from random weights", FROM_RANDOM, "lens_multi"
    ),
    "phantom/lens_best": Recipe(
        "configs/phantom/lens_best.yaml",
        "LENS with self-training, from phantom/lens_multi, which proposes what it is trained on again; with a 3D "
        "classifier for false-positive reduction, at two scales",
        SELF_TRAINED,
        "lens_best",
        {"": RETRAINED, ".fpr": RESCORED},
        "evaluate/inference",
    ),
    "phantom/lens_full": Recipe(
        "configs/phantom/lens_best.yaml",
        "detector and classifier of phantom/lens_best, at one scale",
        (*SELF_TRAINED, "TEST.SCALES", "(1.0,)"),
        "lens_full",
        {"": RETRAINED, ".fpr": RESCORED},
        "evaluate/inference",
    ),
    "phantom/cecn": Recipe(
        "configs/phantom/cecn.yaml",
        "CECN, Lesion-Harvester's proposal generator, from phantom/backbone",
        STEPS,
        "cecn",
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", choices=list(RECIPES), help="weights to make")
    runs.add_output_argument(parser, "output/zoo")
    parser.add_argument("--size", default="large", help="of the cohort (default: %(default)s)")
    parser.add_argument("--cohort-seed", type=int, default=100, help="default: %(default)s")
    parser.add_argument("--pack", action="store_true", help="replace the weights that come with the package")
    parser.add_argument("--card", action="store_true", help="write MODEL_ZOO.md and the cards again, nothing else")
    text = "overrides of the config, at the end"
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help=text)


def operating_points(folder: Path, source: str) -> dict[str, OperatingPoints]:
    """Operating points of every output, from the predictions of an evaluation."""
    truth = read_lesion_boxes(folder / "ground_truth.json")
    points = {}
    for path in sorted(folder.glob("predictions*.json")):
        name = path.stem.removeprefix("predictions").removeprefix("_") or "fused"
        points[name] = find_operating_points(truth, read_box_detections(path, truth), source=source)
    return points


def pack(args: argparse.Namespace, recipe: Recipe, folder: Path, target: Path) -> dict[str, dict]:
    """Pack a model's parts, and return size and checksum of each file by its name in the zoo."""
    source = f"{VALIDATION} of the synthetic cohort {args.size}, seed {args.cohort_seed}"
    files = {}
    for ending, part in recipe.parts.items():
        points = operating_points(folder / part.inference / VALIDATION, source) if part.inference else None
        path = target / f"{args.name}{ending}.pth"
        pack_weights(folder / part.checkpoint, path, operating_points=points, prefix=part.prefix, note=NOTE)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        files[f"{args.name}{ending}"] = {"sha256": digest, "megabytes": round(path.stat().st_size / 1e6, 2)}
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    return files


def results(folder: Path) -> dict[str, dict]:
    """Figures of the outputs on the test patients: sensitivities, their average and its interval."""
    metrics = json.loads((folder / TEST / "metrics.json").read_text())
    outputs = {"fused": metrics, **metrics["experts"]} if len(metrics["experts"]) > 1 else {"alone": metrics}
    keys = ("fps", "sensitivity", "average_sensitivity", "average_sensitivity_ci", "num_volumes", "num_lesions")
    return {name: {key: own[key] for key in keys if key in own} for name, own in outputs.items()}


def command_of(args: argparse.Namespace) -> str:
    """The command that makes the model: its name and the options that are not the defaults."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = ["python", "-m", "experiments", "zoo", args.name]
    for option in ("size", "cohort_seed"):
        value = getattr(args, option)
        words += [f"--{option.replace('_', '-')}", value] * (value != parser.get_default(option))
    words += ["--opts", *args.opts] if args.opts else []
    return shlex.join(map(str, words))


def write_cards() -> None:
    """Write MODEL_ZOO.md and the cards from the facts of all models in the package."""
    found = {path.relative_to(CARDS).as_posix().removesuffix(".json"): path for path in CARDS.rglob("*.json")}
    models = [json.loads(found[name].read_text()) for name in RECIPES if name in found]
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    for model in models:
        text = templates.get_template("model_card.md").render(model=model)
        write_whole(CARDS / f"{model['name']}.md", f"{text.rstrip()}\n".encode())
    text = templates.get_template("model_zoo.md").render(models=models)
    write_whole(runs.ROOT / "MODEL_ZOO.md", f"{text.rstrip()}\n".encode())


def run(args: argparse.Namespace) -> None:
    if args.card:
        write_cards()
        return
    if not args.name:
        raise DataError("NAME", f"not given: {', '.join(RECIPES)}, or --card")
    recipe = RECIPES[args.name]
    data = args.output / f"{args.size}_{args.cohort_seed}"
    runs.write_cohort(data, args.size, args.cohort_seed, recipe.config)
    folder = args.output / recipe.folder
    tested = f"('{VALIDATION}','{TEST}')" if recipe.inference else "()"
    opts = ["OUTPUT_DIR", folder, *recipe.opts, "DATASETS.TEST", tested, *args.opts]
    with runs.timed(folder / "seconds.json"):
        runs.call("train_net.py", "--config-file", recipe.config, "--resume", *opts)
    hours = json.loads((folder / "seconds.json").read_text()) / 3600
    manifest = runs.read_manifest(data)
    files = pack(args, recipe, folder, WEIGHTS if args.pack else args.output / "weights")
    facts = {
        "name": args.name,
        "kind": recipe.kind,
        "config": recipe.config,
        "command": command_of(args),
        "training_seed": load_config(recipe.config, list(map(str, opts))).SEED,
        "opts": shlex.join(map(str, (*recipe.opts, *args.opts))),
        "cohort": {
            "size": args.size,
            "seed": args.cohort_seed,
            "generator": manifest.get("generator", 1),
            "missing_rate": manifest["plan"]["missing_rate"],
        },
        "commit": runs.commit(),
        "machine": machine(),
        "hours": round(hours, 2),
        "files": files,
        "results": results(folder / recipe.inference) if recipe.inference else {},
    }
    write_json((CARDS if args.pack else args.output / "cards") / f"{args.name}.json", facts)
    if args.pack:
        write_cards()

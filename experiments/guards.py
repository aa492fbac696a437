"""Is the synthetic cohort more than a toy? Two guards, measured on its test patients with 3D IoBB FROC.

    python -m experiments guards --seeds 1 2 3 --output output/guards

1. A tuned Laplacian-of-Gaussian blob detector must stay below half of LENS's average sensitivity.
2. LENS trained on the hidden full truth must be clearly better than LENS trained on the partial labels: same
   config, same number of steps, other labels alone. What is fully labelled is sampled as all fully labelled
   datasets are, with one negative slice to two positive ones (Section VI-B); partial labels have no negatives.

LENS learns from the three single-type datasets as well, and their experts fill in for the marks that the
universal one lacks. ``--others`` without names leaves them out, so that the second guard compares labels alone;
``--patients`` takes the first ones of the universal dataset, so that labels are short:

    python -m experiments guards --output output/guards_alone --patients 70 --others --

The cohort is that of DETECTRON2_DATASETS. ``results.json`` and ``results.md`` have the average sensitivities. If
it is run again, it resumes where it stopped. It opens the hidden truth, which training and mining never do.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from lens_d2.data.datasets.catalog import register_derived, root_of
from lens_d2.io.files import write_whole
from lens_d2.structures.records import make_lesion

from . import blobs, runs

UNIVERSAL = "phantom_deeplesion_train"
PARTIAL, FULL = f"{UNIVERSAL}_partial", f"{UNIVERSAL}_full_truth"
OTHERS = ("phantom_luna_train", "phantom_lits_train", "phantom_nih_ln_train")
VAL, TEST = "phantom_deeplesion_1k_val", "phantom_deeplesion_1k_test"
ARMS = {"LENS, partial labels": PARTIAL, "LENS, hidden full truth": FULL}


def partial_records(patients: int | None = None) -> list[dict]:
    """The training records with their marks, of the first patients or of all."""
    records = DatasetCatalog.get(UNIVERSAL)
    chosen = sorted({record["patient"] for record in records})[:patients]
    return [record for record in records if record["patient"] in chosen]


def full_truth_records(patients: int | None = None) -> list[dict]:
    """The same with all lesions of the hidden truth, on all their slices, instead of the marks."""
    hidden = runs.read_hidden_truth(root_of(UNIVERSAL))
    records = []
    for record in partial_records(patients):
        lesions = [
            make_lesion(f"{record['volume']}/{i}", lesion["boxes"], box3d=lesion["box3d"], kind=lesion["type"])
            for i, lesion in enumerate(hidden[record["volume"]]["lesions"])
        ]
        records.append({**record, "lesions": lesions})
    return records


def register(patients: int | None) -> None:
    """Registers :data:`PARTIAL`, and :data:`FULL`, a fully labelled dataset of the same expert."""
    register_derived(PARTIAL, UNIVERSAL, partial(partial_records, patients))
    register_derived(FULL, UNIVERSAL, partial(full_truth_records, patients), fully_labelled=True)


def average_sensitivity(folder: Path) -> float:
    """That of an evaluation, from its folder."""
    return json.loads((folder / "metrics.json").read_text())["average_sensitivity"]


def train(args: argparse.Namespace, dataset: str, seed: int) -> float:
    """Trains LENS with ``dataset`` as its universal one, unless that is done; its average sensitivity."""
    folder = args.output / f"{dataset}_seed{seed}"
    tested = folder / "inference" / TEST
    if not (tested / "metrics.json").is_file():
        reader = args.output / "labels.py"
        write_whole(reader, f"from experiments.guards import register\n\nregister({args.patients})\n".encode())
        experts = tuple(MetadataCatalog.get(name).expert for name in (UNIVERSAL, *args.others))
        opts = ["SEED", seed, "DATASETS.READERS", (str(reader),), "DATASETS.TRAIN", (dataset, *args.others)]
        runs.train(args, folder, *opts, "DATASETS.TEST", (TEST,), "MODEL.LENS.EXPERTS", experts)
    return average_sensitivity(tested)


def blob_detector(folder: Path) -> float:
    """Tunes the blob detector on the validation patients; its average sensitivity on the test patients."""
    predictions, truth = folder / "predictions.json", root_of(TEST) / "DeepLesion/annotations"
    if not predictions.is_file():
        blobs.detect(VAL, TEST, predictions)
    options = ["--protocol", "lens3d", "--split", "test", "--output", folder, "--predictions", predictions]
    runs.call("tools/evaluate.py", *options, "--ground-truth", truth / "DeepLesion_manual_1K_test_release.pkl")
    return average_sensitivity(folder)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    runs.add_seed_arguments(parser, "configs/phantom/lens_multi.yaml", "output/guards")
    parser.add_argument("--others", nargs="*", default=OTHERS, help="trained on beside the universal dataset")
    parser.add_argument("--patients", type=int, help="of the universal dataset (default: all)")


def run(args: argparse.Namespace) -> None:
    """Runs the experiment."""
    found = blob_detector(args.output / "blobs")
    results = {seed: {"blob detector": found} for seed in args.seeds}
    for name, dataset in ARMS.items():
        for seed in args.seeds:
            results[seed][name] = train(args, dataset, seed)
            print(runs.write_results(args.output, results), flush=True)

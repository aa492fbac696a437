#!/usr/bin/env python
"""Is the synthetic cohort more than a toy? Two guards, measured on its test patients with 3D IoBB FROC.

    python tools/phantom_guards.py --output-dir output/guards --seeds 1 2 3

1. A tuned Laplacian-of-Gaussian blob detector must stay below half of LENS's average sensitivity.
2. LENS trained on the hidden full truth must be clearly better than LENS trained on the partial labels: same
   config, same number of steps, other labels alone. What is fully labelled is sampled as all fully labelled
   datasets are, with one negative slice to two positive ones (Section VI-B); partial labels have no negatives.

LENS learns from the three single-type datasets as well, and their experts fill in for the marks that the
universal one lacks. ``--others`` without names leaves them out, so that the second guard compares labels alone:

    python tools/phantom_guards.py --output-dir output/guards_alone --others --

The cohort is that of DETECTRON2_DATASETS. Runs that are complete are not repeated, so that the command can be
interrupted and called again. This tool opens the hidden truth, which training and mining never do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from tabulate import tabulate

from lens_d2.data.datasets.catalog import register_derived, root_of
from lens_d2.data.files import write_whole
from lens_d2.data.records import make_lesion

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "configs/phantom/lens_multi.yaml"
PARTIAL, FULL = "phantom_deeplesion_train", "phantom_deeplesion_train_full_truth"
OTHERS = ("phantom_luna_train", "phantom_lits_train", "phantom_nih_ln_train")
TEST = "phantom_deeplesion_1k_test"


def full_truth_records() -> list[dict]:
    """The training records with all lesions of the hidden truth, on all their slices, instead of the marks."""
    hidden = json.loads((root_of(PARTIAL) / "hidden_truth.json").read_text())["volumes"]
    records = []
    for record in DatasetCatalog.get(PARTIAL):
        lesions = [
            make_lesion(f"{record['volume']}/{i}", lesion["boxes"], box3d=lesion["box3d"], kind=lesion["type"])
            for i, lesion in enumerate(hidden[record["volume"]]["lesions"])
        ]
        records.append({**record, "lesions": lesions})
    return records


def register_full_truth() -> None:
    """Under :data:`FULL`, a fully labelled dataset of the same expert."""
    register_derived(FULL, PARTIAL, full_truth_records, fully_labelled=True)


def train(dataset: str, others: Sequence[str], seed: int, folder: Path, opts: list[str]) -> dict:
    """Train and evaluate LENS with ``dataset`` as its universal one, unless that is done; the test metrics."""
    result = folder / "inference" / TEST / "metrics.json"
    if not result.is_file():
        code = f"import sys; sys.path[:0] = [{str(ROOT / 'tools')!r}, {str(ROOT)!r}]; " + (
            "import phantom_guards, train_net; phantom_guards.register_full_truth(); "
            "train_net.main(train_net.default_argument_parser().parse_args(sys.argv[1:]))"
        )
        experts = tuple(MetadataCatalog.get(name).expert for name in (PARTIAL, *others))
        words = ["--config-file", CONFIG, "--resume", "OUTPUT_DIR", str(folder), "SEED", str(seed)]
        words += ["DATASETS.TRAIN", str((dataset, *others)), "MODEL.LENS.EXPERTS", str(experts)]
        words += ["DATASETS.TEST", str((TEST,)), *opts]
        subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, check=True)
    return json.loads(result.read_text())


def blob_detector(folder: Path) -> dict:
    """Tune the blob detector on the validation patients and evaluate it on the test patients."""
    predictions, truth = folder / "predictions.json", root_of(TEST) / "DeepLesion/annotations"
    if not predictions.is_file():
        command = ["tools/log_baseline.py", "--output", str(predictions)]
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
    evaluate = ["tools/evaluate.py", "--protocol", "lens3d", "--split", "test", "--output-dir", str(folder)]
    evaluate += ["--ground-truth", str(truth / "DeepLesion_manual_1K_test_release.pkl")]
    subprocess.run([sys.executable, *evaluate, "--predictions", str(predictions)], cwd=ROOT, check=True)
    return json.loads((folder / "metrics.json").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output-dir", type=Path, default=Path("output/guards"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--others", nargs="*", default=OTHERS, help="trained on beside the universal dataset")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the config, after --")
    args = parser.parse_args()
    output = args.output_dir.resolve()
    output.mkdir(parents=True, exist_ok=True)

    average = {"blob detector": [blob_detector(output / "blobs")["average_sensitivity"]]}
    for name, dataset in (("LENS, partial labels", PARTIAL), ("LENS, hidden full truth", FULL)):
        average[name] = [
            train(dataset, args.others, seed, output / f"{dataset}_seed{seed}", args.opts)["average_sensitivity"]
            for seed in args.seeds
        ]
    content = {"seeds": args.seeds, "average_sensitivity": average}
    write_whole(output / "guards.json", json.dumps(content, indent=1).encode())
    rows = [[name, *values, statistics.mean(values)] for name, values in average.items()]
    print(tabulate(rows, ["average sensitivity", *(f"seed {s}" for s in args.seeds), "mean"], floatfmt=".3f"))


if __name__ == "__main__":
    main()

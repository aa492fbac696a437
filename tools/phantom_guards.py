#!/usr/bin/env python
"""Is the synthetic cohort more than a toy? Two guards, measured on its test patients with 3D IoBB FROC.

    python tools/phantom_guards.py --output-dir output/guards --seeds 1 2 3

1. A tuned Laplacian-of-Gaussian blob detector must stay below half of LENS's average sensitivity.
2. LENS trained on the hidden full truth must be clearly better than LENS trained on the partial labels: same
   config, same number of steps, other labels alone. What is fully labelled is sampled as all fully labelled
   datasets are, with one negative slice to two positive ones (Section VI-B); partial labels have no negatives.

LENS learns from the three single-type datasets as well, and their experts fill in for the marks that the
universal one lacks. ``--others`` without names leaves them out, so that the second guard compares labels alone;
``--patients`` takes the first ones of the universal dataset, so that labels are short:

    python tools/phantom_guards.py --output-dir output/guards_alone --patients 70 --others --

The cohort is that of DETECTRON2_DATASETS. Runs that are complete are not repeated, so that the command can be
interrupted and called again. This tool opens the hidden truth, which training and mining never do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from tabulate import tabulate

from lens_d2.data.datasets.catalog import register_derived, root_of
from lens_d2.io.files import write_whole
from lens_d2.structures.records import make_lesion

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "configs/phantom/lens_multi.yaml"
UNIVERSAL = "phantom_deeplesion_train"
PARTIAL, FULL = f"{UNIVERSAL}_partial", f"{UNIVERSAL}_full_truth"
OTHERS = ("phantom_luna_train", "phantom_lits_train", "phantom_nih_ln_train")
TEST = "phantom_deeplesion_1k_test"


def partial_records(patients: int | None = None) -> list[dict]:
    """The training records with their marks, of the first patients or of all."""
    records = DatasetCatalog.get(UNIVERSAL)
    chosen = sorted({record["patient"] for record in records})[:patients]
    return [record for record in records if record["patient"] in chosen]


def full_truth_records(patients: int | None = None) -> list[dict]:
    """The same with all lesions of the hidden truth, on all their slices, instead of the marks."""
    hidden = json.loads((root_of(UNIVERSAL) / "hidden_truth.json").read_text())["volumes"]
    records = []
    for record in partial_records(patients):
        lesions = [
            make_lesion(f"{record['volume']}/{i}", lesion["boxes"], box3d=lesion["box3d"], kind=lesion["type"])
            for i, lesion in enumerate(hidden[record["volume"]]["lesions"])
        ]
        records.append({**record, "lesions": lesions})
    return records


def register(patients: int | None) -> None:
    """:data:`PARTIAL`, and :data:`FULL`, a fully labelled dataset of the same expert."""
    register_derived(PARTIAL, UNIVERSAL, partial(partial_records, patients))
    register_derived(FULL, UNIVERSAL, partial(full_truth_records, patients), fully_labelled=True)


def train(args: argparse.Namespace, dataset: str, seed: int) -> dict:
    """Train and evaluate LENS with ``dataset`` as its universal one, unless that is done; the test metrics."""
    folder = args.output_dir / f"{dataset}_seed{seed}"
    result = folder / "inference" / TEST / "metrics.json"
    if not result.is_file():
        code = f"import sys; sys.path[:0] = [{str(ROOT / 'tools')!r}, {str(ROOT)!r}]; " + (
            f"import phantom_guards, train_net; phantom_guards.register({args.patients}); "
            "train_net.main(train_net.default_argument_parser().parse_args(sys.argv[1:]))"
        )
        experts = tuple(MetadataCatalog.get(name).expert for name in (UNIVERSAL, *args.others))
        words = ["--config-file", CONFIG, "--resume", "OUTPUT_DIR", str(folder), "SEED", str(seed)]
        words += ["DATASETS.TRAIN", str((dataset, *args.others)), "MODEL.LENS.EXPERTS", str(experts)]
        words += ["DATASETS.TEST", str((TEST,)), *args.opts]
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
    parser.add_argument("--patients", type=int, help="of the universal dataset (default: all)")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the config, after --")
    args = parser.parse_args()
    args.output_dir = output = args.output_dir.resolve()
    output.mkdir(parents=True, exist_ok=True)

    average = {"blob detector": [blob_detector(output / "blobs")["average_sensitivity"]]}
    for name, dataset in (("LENS, partial labels", PARTIAL), ("LENS, hidden full truth", FULL)):
        average[name] = [train(args, dataset, seed)["average_sensitivity"] for seed in args.seeds]
    content = {"seeds": args.seeds, "average_sensitivity": average}
    write_whole(output / "guards.json", json.dumps(content, indent=1).encode())
    rows = [[name, *values, statistics.mean(values)] for name, values in average.items()]
    print(tabulate(rows, ["average sensitivity", *(f"seed {s}" for s in args.seeds), "mean"], floatfmt=".3f"))


if __name__ == "__main__":
    main()

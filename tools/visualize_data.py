#!/usr/bin/env python
"""Draws the samples that training gets, with the boxes that are known on them.

    python tools/visualize_data.py phantom_deeplesion_train --config-file configs/phantom/lens_multi.yaml
    python tools/visualize_data.py deeplesion_train --ledger output/lens_full/train/mining/ledger.parquet --augment

Writes sheets of PNG, ``samples_01.png`` and so on: the central slice of each sample as the mapper makes it, with
annotations, mined annotations, uncertain regions and hard negatives in colours of their own. With a ledger, every
second sample is a slice of it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from lens_d2.config import load_config
from lens_d2.data.datasets import register_all
from lens_d2.data.ledger.merge import ledger_records
from lens_d2.data.ledger.table import check_ledger, read_ledger
from lens_d2.data.loader import load_records
from lens_d2.data.mapper import SliceMapper
from lens_d2.io import cli
from lens_d2.io.errors import DataError
from lens_d2.io.files import whole_file
from lens_d2.io.progress import progress
from lens_d2.visualization.samples import SamplePicture, central_slice, sheet

ON_A_SHEET = 12
# The kinds of boxes; the first three by the numbers of BoxStatus.
KINDS = ("annotation", "uncertain", "hard_negative", "mined")
KIND_OF_STATUS = {
    "annotation": 0, "mined": 3, "accepted": 3, "uncertain": 1, "unsure": 1, "hard_negative": 2,
}  # fmt: skip


class KindMapper(SliceMapper):
    """The mapper of training, telling mined annotations from given ones: ``gt_status`` is a place in KINDS."""

    gt_status = KIND_OF_STATUS


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", metavar="dataset", help="registered name")
    parser.add_argument("--config-file", help="its INPUT keys count; else the project's defaults")
    parser.add_argument("--root", help="folder of the datasets (default: DETECTRON2_DATASETS, or datasets)")
    parser.add_argument("--ledger", help="of mined boxes, .parquet or .csv")
    parser.add_argument("--augment", action="store_true", help="with the augmentation of training")
    parser.add_argument("--num", type=int, default=ON_A_SHEET, help="samples (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of samples and of the augmentation")
    parser.add_argument(
        "--output", "--output-dir", type=Path, metavar="DIR", help="default: output/visualize/<first dataset>"
    )
    return parser.parse_args(args)


def choose(given: list[dict], mined: list[dict], num: int, seed: int) -> list[tuple[str, int]]:
    """Sub-volumes and slices with a box, drawn without repetition, by turns given and mined ones."""
    rng = np.random.default_rng(seed)
    pools = []
    for records in (given, mined):
        slices = {(r["volume"], int(b[0])) for r in records for x in r["lesions"] for b in x["boxes"]}
        ordered = sorted(slices)
        pools.append([ordered[i] for i in rng.permutation(len(ordered))])
    chosen: dict[tuple[str, int], None] = {}
    while len(chosen) < num and any(pools):
        for pool in filter(None, pools):
            chosen.setdefault(pool.pop())
    return list(chosen)[:num]


def picture(mapper: KindMapper, record: dict, z: int, seed: int) -> SamplePicture:
    """A sample with its boxes by kind. A lesion that augmentation leaves hardly visible is an uncertain region."""
    sample = mapper(record, z, seed)
    boxes, kinds = sample["instances"].gt_boxes.tensor.numpy(), sample["instances"].gt_status.numpy()
    of_kind = {name: boxes[kinds == number] for number, name in enumerate(KINDS)}
    return SamplePicture(
        central_slice(sample, mapper.hu_window), of_kind, f"{record['volume']}, slice {z + record['first_slice']}"
    )


def visualize(args: argparse.Namespace) -> list[Path]:
    """Writes the sheets and returns their paths."""
    if args.root:
        register_all(args.root)
    cfg = load_config(args.config_file)
    given, mined = load_records(args.datasets), []
    if args.ledger:
        ledger = read_ledger(args.ledger)
        check_ledger(ledger, given, args.ledger)
        mined = ledger_records(given, ledger)
    chosen = choose(given, mined, args.num, args.seed)
    if not chosen:
        raise DataError(", ".join(args.datasets), "no slice of it has a box")
    record_of, mined_of = ({r["volume"]: r for r in records} for records in (given, mined))
    mapper = KindMapper(cfg, is_train=args.augment)
    pictures = []
    for number, (volume, z) in enumerate(progress(chosen, "samples")):
        record = record_of[volume]
        lesions = [*record["lesions"], *mined_of.get(volume, {"lesions": []})["lesions"]]
        pictures.append(picture(mapper, {**record, "lesions": lesions}, z, args.seed + number))
    return write_sheets(pictures, args.output or Path("output/visualize") / args.datasets[0])


def write_sheets(pictures: list[SamplePicture], folder: Path) -> list[Path]:
    """Writes pictures, :data:`ON_A_SHEET` to a file, and returns the paths."""
    paths = []
    for start in range(0, len(pictures), ON_A_SHEET):
        paths.append(folder / f"samples_{len(paths) + 1:02d}.png")
        with whole_file(paths[-1]) as temporary:
            sheet(pictures[start : start + ON_A_SHEET], list(KINDS)).savefig(temporary, facecolor="black")
    return paths


def main(args: list[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parsed = parse_args(args)
    return cli.run(lambda: print(*visualize(parsed), sep="\n"))


if __name__ == "__main__":
    sys.exit(main())

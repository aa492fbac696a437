"""Sheets with training samples: ``lens-d2 visualize``."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ..config import load_config
from ..data.datasets import register_all
from ..data.ledger.merge import ledger_records
from ..data.ledger.table import read_ledger
from ..data.loader import load_records
from ..data.mapper import SliceMapper
from ..io.errors import DataError
from ..io.files import whole_file
from ..io.progress import progress
from ..visualization.samples import SamplePicture, central_slice, sheet

ON_A_SHEET = 12
# The kinds of boxes; the first three by the numbers of BoxStatus.
KINDS = ("annotation", "uncertain", "hard_negative", "mined")
KIND_OF_STATUS = {
    "annotation": 0, "mined": 3, "accepted": 3, "uncertain": 1, "unsure": 1, "hard_negative": 2,
}  # fmt: skip


class KindMapper(SliceMapper):
    """Mapper of training that tells mined annotations from given ones: ``gt_status`` is a place in KINDS."""

    gt_status = KIND_OF_STATUS


def choose(given: list[dict], mined: list[dict], num: int, seed: int) -> list[tuple[str, int]]:
    """Draw slices with boxes, without repetition, alternating between given and mined."""
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
    """Make a sample's picture with its boxes by kind.

    A lesion that augmentation leaves hardly visible is an uncertain region.
    """
    sample = mapper(record, z, seed)
    boxes, kinds = sample["instances"].gt_boxes.tensor.numpy(), sample["instances"].gt_status.numpy()
    of_kind = {name: boxes[kinds == number] for number, name in enumerate(KINDS)}
    return SamplePicture(
        central_slice(sample, mapper.hu_window), of_kind, f"{record['volume']}, slice {z + record['first_slice']}"
    )


def run(args: argparse.Namespace) -> None:
    """Write the sheets and print their paths.

    Raises:
        DataError: no slice has a box, or the ledger contradicts the datasets.
    """
    register_all(args.root)
    cfg = load_config(args.config_file)
    given, mined = load_records(args.datasets), []
    if args.ledger:
        mined = ledger_records(given, read_ledger(args.ledger, given))
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
    print(*write_sheets(pictures, args.output or Path("output/visualize") / args.datasets[0]), sep="\n")


def write_sheets(pictures: list[SamplePicture], folder: Path) -> list[Path]:
    """Write pictures, :data:`ON_A_SHEET` to a file, and return the paths."""
    paths = []
    for start in range(0, len(pictures), ON_A_SHEET):
        paths.append(folder / f"samples_{len(paths) + 1:02d}.png")
        with whole_file(paths[-1]) as temporary:
            sheet(pictures[start : start + ON_A_SHEET], list(KINDS)).savefig(temporary, facecolor="black")
    return paths

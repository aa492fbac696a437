"""From DeepLesion's PNGs to training samples: through the volume cache, against the direct way."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from lens_d2.data.mapper import SliceMapper

from .networks import config
from .registry import compare, in_turns, measurement

SLICES, SIZE, SPACING, INTERVAL = 40, 512, 0.75, 5.0
CENTERS = range(10, 30, 4)


def write_pngs(folder: Path) -> dict:
    """A record of a folder of PNGs as DeepLesion's: a body of soft tissue with fine and coarse texture."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE]
    body = ((x - SIZE / 2) / 220) ** 2 + ((y - SIZE / 2) / 160) ** 2 < 1
    for number in range(1, SLICES + 1):
        organs = cv2.resize(rng.normal(0, 60, (16, 16)).astype(np.float32), (SIZE, SIZE))
        hu = np.where(body, 40 + organs + rng.normal(0, 12, body.shape), -1000 + rng.normal(0, 8, body.shape))
        cv2.imwrite(str(folder / f"{number:03d}.png"), (hu + 32768).astype(np.uint16))
    return {
        "file_name": str(folder), "volume": f"000001_01_01_001-{SLICES:03d}", "expert": "deeplesion",
        "num_slices": SLICES, "first_slice": 1, "spacing": [SPACING, SPACING, INTERVAL], "z_direction": 1,
        "lesions": [],
    }  # fmt: skip


def direct(record: dict, center: int, pixel_spacing: float = 0.8) -> torch.Tensor:
    """9 slices of 2 mm around a slice, from the files alone."""
    positions = np.clip(center + (np.arange(9) - 4) * (2.0 / INTERVAL), 0, SLICES - 1)
    numbers = sorted({int(n) for p in positions for n in (np.floor(p), np.ceil(p))})
    native = {
        n: cv2.imread(f"{record['file_name']}/{n + 1:03d}.png", cv2.IMREAD_UNCHANGED).astype(np.float32) - 32768
        for n in range(min(numbers[0], center - 4), max(numbers[-1], center + 4) + 1)  # 9 files
    }
    slices = [
        native[int(np.floor(p))] * (1 - p % 1) + native[int(np.ceil(p))] * (p % 1) if p % 1 else native[int(p)]
        for p in positions
    ]
    image = np.clip((np.stack(slices) + 1024) / 4095 * 255, 0, 255).astype(np.float32)
    side = round(SIZE * SPACING / pixel_spacing)
    return F.interpolate(torch.from_numpy(image)[None], size=(side, side), mode="bilinear")[0]


@measurement("data-path")
def data_path() -> dict:
    """Seconds a sample of 9 slices; the first pass, which writes the cache, beside a plain read of all slices.

    Samples are those of training, of records that know their cache file.
    """
    with tempfile.TemporaryDirectory() as folder:
        pngs = Path(folder) / "000001_01_01"
        pngs.mkdir()
        record = write_pngs(pngs)
        mapper = SliceMapper(config("lens_multi.yaml", "INPUT.CACHE_DIR", str(Path(folder) / "cache")), False)

        def first_pass():
            mapper.cache.path(record).unlink(missing_ok=True)
            mapper.cache.build(record)

        passes = in_turns(
            {
                "plain": lambda: [cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in sorted(pngs.iterdir())],
                "ours": first_pass,
            },
            5,
            clock=time.process_time,
        )
        (resolved,) = mapper.cache.resolve([record])
        times = in_turns(
            {
                "direct": lambda: [direct(record, center) for center in CENTERS],
                "cached": lambda: [mapper(resolved, center) for center in CENTERS],
            },
            5,
        )
        stored, read = mapper.cache.path(record).stat().st_size, sum(p.stat().st_size for p in pngs.iterdir())
        return compare(
            times["direct"] / len(CENTERS),
            times["cached"] / len(CENTERS),
            slices_a_second=9 * len(CENTERS) / times["cached"],
            first_pass_over_plain_read=passes["ours"] / passes["plain"],
            first_pass_seconds_a_slice=passes["ours"] / SLICES,
            cache_bytes_a_slice=stored / SLICES,
            png_bytes_a_slice=read / SLICES,
        )

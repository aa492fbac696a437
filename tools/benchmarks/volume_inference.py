"""Trunk, pyramid and fusions over a volume, against the same slice by slice: full DenseNet-121 at 512x512."""

from __future__ import annotations

import time

import torch

from lens_d2.inference.folded_backbone import FoldedDenseNet25D

from .networks import LEVELS, SIZE, inference_on_scan, multiply_adds, sample
from .registry import compare, in_turns, measurement, peak_mb

BASELINE_LEVELS = (0, LEVELS // 2, LEVELS - 1)


@measurement("volume-inference")
@torch.no_grad()
def volume_inference() -> dict:
    with inference_on_scan() as (cfg, inference, volume):
        backbone = inference.model.backbone
        samples = {level: sample(cfg, inference, volume, level) for level in BASELINE_LEVELS}
        samples = {k: inference.model.preprocess_image([s]).tensor for k, s in samples.items()}
        expected = {level: backbone(image)["p2"] for level, image in samples.items()}  # warms up, too
        worst = [0.0]

        def whole_volume():
            level = 0
            for features, _ in inference.slice_features(volume, 1.0):
                for own in features["p2"]:
                    if level in expected:
                        error = (own - expected[level][0]).abs().max() / expected[level].abs().max()
                        worst[0] = max(worst[0], float(error))
                    level += 1

        start = time.perf_counter()
        whole_volume()
        first = time.perf_counter() - start
        times = in_turns(
            {"plain": lambda: [backbone(image) for image in samples.values()], "ours": whole_volume}, 3, warm=False
        )
        folded = FoldedDenseNet25D(backbone)
        image = torch.zeros(1, 3, SIZE, SIZE)
        parts = folded.encode(image)
        images = folded.num_images
        return compare(
            times["plain"] / len(samples),
            times["ours"] / LEVELS,
            seconds="a slice; ours with reading, and with the images beyond the volume's ends",
            slices=LEVELS,
            size=SIZE,
            first_run_seconds=first / LEVELS,
            largest_difference=worst[0],
            difference="of the map, over its largest value",
            multiply_adds_g={
                "plain": multiply_adds(lambda x: backbone(x)["p2"], image.repeat(1, images, 1, 1)),
                "ours": multiply_adds(folded.encode, image)
                + multiply_adds(lambda *p: folded.decode([p] * images)["p2"], *parts),
            },
            window_mb=sum(p.nbytes for p in parts) * (inference.slices_per_batch + 6) / 2**20,
            peak_mb=peak_mb(),
        )

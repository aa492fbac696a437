"""Inference over a volume (trunk, pyramid and fusions; all of a slice's work) against the same slice by slice."""

from __future__ import annotations

import math
import time
from unittest.mock import patch

import torch

from lens_d2.inference import joint_afp
from lens_d2.inference.folded_backbone import FoldedDenseNet25D
from lens_d2.inference.joint_afp import JointAFP
from lens_d2.inference.volume import VolumeInference

from .networks import LEVELS, SIZE, inference_on_scan, multiply_adds, sample
from .registry import compare, in_turns, measurement, peak_mb

BASELINE_LEVELS = (0, LEVELS // 2, LEVELS - 1)
WINOGRAD_LEVELS, WINOGRAD_SIZE = 4, 512  # the paper's size of a slice
SCORE, PIXELS = 1e-4, 1e-2  # detections are equal within


@measurement("volume-inference")
@torch.no_grad()
def volume_inference() -> dict:
    """Trunk, pyramid and fusions: full DenseNet-121 at 512x512."""
    with inference_on_scan() as (cfg, inference, volume):
        backbone = inference.model.backbone
        samples = {level: sample(cfg, volume, level) for level in BASELINE_LEVELS}
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


@measurement("end-to-end-inference")
def end_to_end() -> dict:
    """LENS with four experts."""
    return measure()


@measurement("end-to-end-inference-one-expert")
def one_expert() -> dict:
    """LENS with DeepLesion's expert alone."""
    return measure("MODEL.LENS.EXPERTS", ("deeplesion",))


@measurement("inference-bf16")
@torch.no_grad()
def bf16() -> dict:
    """The same volume in bfloat16 against float32, both with shared work; off unless TEST.BF16 says so."""
    with inference_on_scan() as (_, inference, volume):

        def run(low: bool) -> None:
            inference.bf16 = low
            inference.detect(volume)

        def first_maps(low: bool) -> torch.Tensor:
            with torch.autocast(inference.model.device.type, torch.bfloat16, enabled=low):
                features, _ = next(iter(inference.slice_features(volume, 1.0)))
            return features["p2"].float()

        plain, rounded = first_maps(False), first_maps(True)
        times = in_turns({"float32": lambda: run(False), "bfloat16": lambda: run(True)}, 2)
        return compare(
            times["float32"] / LEVELS,
            times["bfloat16"] / LEVELS,
            seconds="a slice",
            mean_map_difference=float((rounded - plain).abs().mean() / plain.abs().mean()),
        )


@measurement("winograd")
def winograd() -> dict:
    """The generators' first convolutions by Winograd against oneDNN's direct one; ratio: the lesser of both."""
    four = direct_over_winograd()
    one = direct_over_winograd("MODEL.LENS.EXPERTS", ("deeplesion",))
    worst = min(one, four, key=lambda times: times["direct"] / times["winograd"])
    return compare(
        worst["direct"],
        worst["winograd"],
        seconds="processor time of a volume, all of its work",
        one_expert=one | {"ratio": one["direct"] / one["winograd"]},
        four_experts=four | {"ratio": four["direct"] / four["winograd"]},
        size=WINOGRAD_SIZE,
        slices=WINOGRAD_LEVELS,
    )


@torch.no_grad()
def direct_over_winograd(*opts) -> dict[str, float]:
    """Seconds of a volume by either convolution."""
    with inference_on_scan(*opts, levels=WINOGRAD_LEVELS, size=WINOGRAD_SIZE) as (_, inference, volume):

        def run(channels: float) -> None:
            with patch.object(joint_afp, "WINOGRAD_CHANNELS", channels):
                inference.detect(volume)

        channels = joint_afp.WINOGRAD_CHANNELS
        runs = {"direct": lambda: run(math.inf), "winograd": lambda: run(channels)}
        return in_turns(runs, 4, clock=time.process_time)


@torch.no_grad()
def measure(*opts) -> dict:
    """LENS with ``opts`` over a volume against the same slice by slice, and where its time goes."""
    with inference_on_scan(*opts) as (cfg, inference, volume):
        model = inference.model
        images = {level: sample(cfg, volume, level) for level in BASELINE_LEVELS}
        expected = {level: model([{"image": image}])[0]["experts"] for level, image in images.items()}
        found, spent = watch(inference)

        def whole_volume():
            found.clear()
            spent.clear()
            inference.detect(volume)

        whole_volume()
        differences = [
            different(found[level][name], own) for level in expected for name, own in expected[level].items()
        ]
        times = in_turns(
            {"plain": lambda: [model([{"image": image}]) for image in images.values()], "ours": whole_volume},
            3,
            warm=False,
            clock=time.process_time,
        )
        ours = times["ours"] / LEVELS
        parts = {name: seconds / LEVELS for name, seconds in spent.items()}
        return compare(
            times["plain"] / len(images),
            ours,
            seconds="of the processor, a slice; ours with reading, linking, and images beyond the volume's ends",
            slices=LEVELS,
            size=SIZE,
            experts=list(model.experts),
            detections=sum(len(own) for level in expected.values() for own in level.values()),
            unequal_detections=sum(differences),
            ours_parts=parts | {"trunk, reading, linking": ours - sum(parts.values())},
            proposals_multiply_adds_g=proposals_multiply_adds(inference),
            peak_mb=peak_mb(),
        )


def watch(inference: VolumeInference) -> tuple[list[dict], dict[str, float]]:
    """Lists that fill with every level's detections, and with the seconds of proposal generators and ROI heads."""
    model, found, spent = inference.model, [], {}
    detect = model.detect

    def timed(name, function):
        def run(*args):
            start = time.process_time()
            result = function(*args)
            spent[name] = spent.get(name, 0.0) + time.process_time() - start
            return result

        return run

    def timed_detect(features, image_sizes, propose=None):
        if propose is None:
            return detect(features, image_sizes)
        result = detect(features, image_sizes, timed("proposal generators", propose))
        found.extend(detected["experts"] for detected in result)
        return result

    model.detect = timed_detect
    model.roi_heads.inference = timed("roi heads", model.roi_heads.inference)
    return found, spent


def different(ours, plain) -> int:
    """The number of detections of a slice without an equal, whatever their order (near ties may change places)."""
    scores = (ours.scores[:, None] - plain.scores).abs() <= SCORE
    boxes = ((ours.pred_boxes.tensor[:, None] - plain.pred_boxes.tensor).abs() <= PIXELS).all(dim=2)
    equal = scores & boxes
    return int(max((~equal.any(dim=1)).sum(), (~equal.any(dim=0)).sum()))


def proposals_multiply_adds(inference: VolumeInference) -> dict[str, float]:
    """Of the proposal generators' convolutions, one after another and as one, in billions a slice."""
    generators = list(inference.model.proposal_generators.values())
    feature = torch.zeros(1, inference.model.backbone.output_shape()["p2"].channels, SIZE // 4, SIZE // 4)

    def plain(x):
        return [branch(x) for g in generators for branch in (g.centerness, g.distances)]

    return {"plain": multiply_adds(plain, feature), "ours": multiply_adds(JointAFP(generators).branches, feature)}

"""AFP against other proposal generators on the same backbone: inference time of a slice (LENS, Table II)."""

from __future__ import annotations

import time

import torch
from detectron2.structures import ImageList

from lens_d2.inference.folded_backbone import FoldedDenseNet25D
from lens_d2.inference.joint_afp import joint_proposals

from .networks import SIZE, config, network
from .registry import compare, in_turns, measurement

GENERATORS = ("AFP", "RPN", "CenterNet")
EXPERTS = ("deeplesion", "luna", "lits", "nih_ln")


@measurement("heads")
def heads_four_experts() -> dict:
    """LENS with four experts."""
    return measure(EXPERTS)


@measurement("heads-one-expert")
def heads_one_expert() -> dict:
    """LENS with one expert."""
    return measure(EXPERTS[:1])


@torch.no_grad()
def measure(experts: tuple[str, ...]) -> dict:
    """Seconds of a slice: its own image through the trunk, fusions, proposals, and the shared second stage."""
    runs, proposals = {}, {}
    for name, opts in variants().items():
        cfg = config("lens_multi.yaml", "MODEL.LENS.EXPERTS", experts, *opts)
        runs[name] = slice_of(network(cfg), proposals, name)
    times = in_turns(runs, 2)
    return compare(
        times["RPN"],
        times["AFP"],
        afp_over_rpn=times["AFP"] / times["RPN"],
        experts=len(experts),
        seconds=times,
        proposal_seconds=proposals,
    )


def variants() -> dict[str, list]:
    """The generators by name, and the options that make them; FCOS is one stage, as in the paper's table."""
    ready = {name: ["MODEL.PROPOSAL_GENERATOR.NAME", name] for name in GENERATORS}
    return ready | {"FCOS, one stage": ["MODEL.PROPOSAL_GENERATOR.NAME", "FCOS", "MODEL.LENS.ONE_STAGE", True]}


def slice_of(model, proposals: dict[str, float], name: str):
    """A function that does the work of a slice in the middle of a volume."""
    backbone, image = FoldedDenseNet25D(model.backbone), torch.randn(1, 3, SIZE, SIZE)
    propose = joint_proposals(model.proposal_generators.values())

    def timed(images: ImageList, features):
        start = time.perf_counter()
        result = propose(images, features)
        proposals[name] = time.perf_counter() - start
        return result

    def work():
        parts = backbone.encode(image)
        return model.detect(backbone.decode([parts] * backbone.num_images), [(SIZE, SIZE)], timed)

    return work

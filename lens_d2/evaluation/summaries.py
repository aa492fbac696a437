"""The few numbers that stand for an evaluation."""

from __future__ import annotations

from collections.abc import Mapping

from detectron2.evaluation.testing import flatten_results_dict

from .protocols import PROTOCOLS


def summaries(results: Mapping, metric: str) -> dict[str, float]:
    """One metric of the model's own output, by where it stands; an expert's alone and other measures are left out.

    Args:
        results: as an evaluation gives them, of one dataset or of several by name.
        metric: "average_sensitivity", "ap".

    Returns:
        {"<dataset>/<protocol>" or "<protocol>": value}; empty where no protocol has the metric.
    """
    paths = {key.rpartition("/"): value for key, value in flatten_results_dict(results).items()}
    return {
        where: value
        for (where, _, name), value in paths.items()
        if name == metric and where.split("/")[-1] in PROTOCOLS
    }

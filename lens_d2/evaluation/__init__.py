"""Evaluation under the published protocols, of this project's models and of anyone's detections.

- ``froc.py``: curves from plain arrays; ``overlap.py``: boxes; ``protocols/``: one file a protocol;
- ``files.py``, ``readers.py``, ``report.py``: what is read and written; ``jobs.py``: the tools' options;
- ``bootstrap.py``, ``strata.py``, ``study.py``, ``coco.py``, ``plots.py``: more than the published scripts give;
- ``evaluators.py``, ``slice_ap.py``, ``build.py``: the same as Detectron2 evaluators, in training and testing.
"""


def build_evaluator(cfg, dataset_name: str, output_dir: str | None = None):
    """See :func:`lens_d2.evaluation.build.build_evaluator`; the tools do without what it imports."""
    from .build import build_evaluator as build

    return build(cfg, dataset_name, output_dir)


__all__ = ["build_evaluator"]

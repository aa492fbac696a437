"""Evaluation under the published protocols, of this project's models and of anyone's detections.

- ``arrays.py``: FROC of plain arrays; ``curves.py``: its curves; ``overlap.py``: boxes;
- ``protocols/``: one file a protocol;
- ``readers/``, ``report.py``: input and output, other programs' boxes too; ``jobs.py``: options of the tools;
- ``bootstrap.py``, ``strata.py``, ``study.py``, ``coco.py``, ``plots.py``: more than the published scripts give;
- ``evaluators.py``, ``slice_ap.py``, ``frames.py``: the same as Detectron2 evaluators, in training and testing.

All but the last line works without torch, Detectron2 and SimpleITK.
"""

from importlib import import_module

# Imported when first used, as the tools do not need what these import.
_HOMES = {
    "FROC3DEvaluator": "evaluators",
    "P3DFROCEvaluator": "evaluators",
    "SliceAPEvaluator": "slice_ap",
    "froc": "arrays",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)

"""Evaluation under the published protocols, of this project's models and of anyone's detections.

- ``curves.py``: curves from plain arrays; ``overlap.py``: boxes; ``protocols/``: one file a protocol;
- ``files.py``, ``readers.py``, ``report.py``: what is read and written; ``jobs.py``: the tools' options;
- ``bootstrap.py``, ``strata.py``, ``study.py``, ``coco.py``, ``plots.py``: more than the published scripts give;
- ``evaluators.py``, ``slice_ap.py``: the same as Detectron2 evaluators, in training and testing.
"""

from importlib import import_module

# Imported when they are asked for: the tools do without what these need.
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

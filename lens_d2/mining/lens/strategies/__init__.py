"""Mining strategies, one file each. ``MINING.STRATEGIES`` names those that run, in their order.

All files of this folder are imported here; docs/mining.md has an example. The keys of a strategy stand in
``lens_d2/config.py``, and their allowed values in ``lens_d2/engine/allowed.py``.
"""

from importlib import import_module
from pkgutil import iter_modules

from .cross_dataset import CrossDataset
from .cross_slice import CrossSlice
from .expert_agreement import ExpertAgreement
from .harvested import Harvested
from .intra_patient import IntraPatient
from .missing_ground_truth import MissingGroundTruth
from .same_place import SamePlace
from .self_training import SelfTraining
from .strategy import STRATEGIES, Finding, Patient, PatientVolume, Strategy, VolumeStrategy, build_strategies

__all__ = [
    "STRATEGIES",
    "CrossDataset",
    "CrossSlice",
    "ExpertAgreement",
    "Finding",
    "Harvested",
    "IntraPatient",
    "MissingGroundTruth",
    "Patient",
    "PatientVolume",
    "SamePlace",
    "SelfTraining",
    "Strategy",
    "VolumeStrategy",
    "build_strategies",
]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

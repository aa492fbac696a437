"""Mining strategies, one file each. ``MINING.STRATEGIES`` names those that run, in their order.

To add one, write a class as below in a file of this folder; all of them are imported here:

    @STRATEGIES.register()
    class MyStrategy(Strategy):
        def __call__(self, patient):
            return [Finding(...)]
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
from .strategy import STRATEGIES, Finding, Patient, PatientVolume, Strategy, build_strategies

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
    "build_strategies",
]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

"""Mining strategies, one file each. ``MINING.STRATEGIES`` names those that run, in their order.

To add one, write a class in a file of this folder; all of them are imported here. One that looks at each
sub-volume by itself is a :class:`VolumeStrategy`:

    @STRATEGIES.register()
    class Conspicuous(VolumeStrategy):
        @configurable
        def __init__(self, *, score_thresh: float):
            self.score_thresh = score_thresh

        @classmethod
        def from_config(cls, cfg):
            return {"score_thresh": cfg.MINING.CONSPICUOUS.SCORE_THRESH}

        def of_volume(self, volume):
            name, found = volume.record["volume"], volume.detections["fused"]
            rows = np.flatnonzero(found.scores > self.score_thresh).tolist()
            return [Finding(name, f"{name}/conspicuous-{row}", found.boxes_of(row)) for row in rows]

Its keys stand in ``lens_d2/config.py``, and the numbers that they can have in ``lens_d2/engine/checks.py``.
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

"""The mining strategies, one file each. ``MINING.STRATEGIES`` names those that run, in their order.

To add one, write a class as below in a file of this folder, and import it here:

    @STRATEGIES.register()
    class MyStrategy(Strategy):
        def __call__(self, patient):
            return [Finding(...)]
"""

from .cross_dataset import CrossDataset
from .cross_slice import CrossSlice
from .intra_patient import IntraPatient
from .missing_ground_truth import MissingGroundTruth
from .strategy import STRATEGIES, Strategy, build_strategies

__all__ = [
    "STRATEGIES",
    "CrossDataset",
    "CrossSlice",
    "IntraPatient",
    "MissingGroundTruth",
    "Strategy",
    "build_strategies",
]

"""Registers the universal training set of the synthetic cohort with the hidden truth in the place of its marks.

A file of ``DATASETS.READERS``; the only one through which a training opens the hidden truth, to measure what the
missing marks cost.

    phantom_deeplesion_train_key_truth    all lesions, each on its key slice as a mark is, no negative slices
    phantom_deeplesion_train_full_truth   all lesions on all their slices, fully labelled: with negative slices
"""

from __future__ import annotations

from functools import partial

from detectron2.data import DatasetCatalog

from experiments.runs import read_hidden_truth
from lens_d2.data.datasets.catalog import register_derived, root_of
from lens_d2.structures.records import make_lesion

UNIVERSAL = "phantom_deeplesion_train"
KEY_TRUTH, FULL_TRUTH = f"{UNIVERSAL}_key_truth", f"{UNIVERSAL}_full_truth"


def hidden_records(key_slices_alone: bool) -> list[dict]:
    """The training records with all lesions of the hidden truth, on their key slices or on all slices."""
    hidden = read_hidden_truth(root_of(UNIVERSAL))
    return [
        {
            **record,
            "lesions": [
                _lesion(f"{record['volume']}/{number}", lesion, key_slices_alone)
                for number, lesion in enumerate(hidden[record["volume"]]["lesions"])
            ],
        }
        for record in DatasetCatalog.get(UNIVERSAL)
    ]


def _lesion(name: str, lesion: dict, key_slice_alone: bool) -> dict:
    if key_slice_alone:
        key = lesion["key_slice"]
        return make_lesion(name, [[key, *lesion["key_box"]]], key_slice=key, kind=lesion["type"])
    return make_lesion(name, lesion["boxes"], box3d=lesion["box3d"], kind=lesion["type"])


register_derived(KEY_TRUTH, UNIVERSAL, partial(hidden_records, True))
register_derived(FULL_TRUTH, UNIVERSAL, partial(hidden_records, False), fully_labelled=True)

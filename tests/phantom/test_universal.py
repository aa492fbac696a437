"""The universal dataset: its readers read it, marks lie on lesions and are partial."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from helpers.phantom_cohort import records

from lens_d2.data.datasets import deeplesion
from lens_d2.data.volume import read_volume


def test_table_has_the_columns_of_the_released_one(root, shared_dir):
    released = pd.read_csv(shared_dir / "annotations/deeplesion/DL_info_sample.csv")
    ours = pd.read_csv(root / "DeepLesion/DL_info.csv")
    assert list(ours.columns) == list(released.columns)


def test_readers_read_every_split_and_patients_stay_on_one_side(root, truth):
    patients, volumes = {}, {}
    for split in ("train", "val", "test"):
        found = records(deeplesion, split, root)
        patients[split] = {r["patient"] for r in found}
        volumes |= {r["volume"]: r for r in found}
    assert all(patients.values())
    assert not any(patients[a] & patients[b] for a, b in combinations(patients, 2))
    assert volumes.keys() == {name for name, entry in truth.items() if entry["dataset"] == "deeplesion"}
    for name, record in volumes.items():
        assert record["lesions"]  # DeepLesion releases no sub-volume without a mark
        assert read_volume(record).array.shape == tuple(truth[name]["size"][::-1])


def test_marks_are_on_lesions_and_their_box_is_the_truths(root, truth):
    seen = 0
    for split in ("train", "val", "test"):
        for record in records(deeplesion, split, root):
            hidden = [x for x in truth[record["volume"]]["lesions"] if x["annotated"]]
            assert len(hidden) == len(record["lesions"])
            for lesion in record["lesions"]:
                z, *box = lesion["boxes"][0]
                near = [
                    x for x in hidden if x["key_slice"] == z and np.abs(np.subtract(x["key_box"], box)).max() < 2
                ]
                assert len(near) == 1
                assert lesion["diameter_mm"] == pytest.approx(near[0]["diameter_mm"], abs=2 * record["spacing"][0])
                seen += 1
    assert seen > 5


def test_training_marks_are_partial_and_favour_large_lesions(truth):
    entries = [e for e in truth.values() if e["dataset"] == "deeplesion"]
    lesions = [x for e in entries for x in e["lesions"]]
    assert 0.2 < np.mean([x["annotated"] for x in lesions]) < 0.9


def test_same_lesion_is_seen_again_in_other_series(truth):
    series_of = {}
    for entry in truth.values():
        for lesion in entry["lesions"]:
            series_of.setdefault(lesion["id"], set()).add(
                entry["series"] if entry["dataset"] == "deeplesion" else ""
            )
    assert max(len(series) for series in series_of.values()) > 1

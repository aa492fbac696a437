"""Pairs of marks that are of one lesion, or of two."""

import numpy as np
import pytest
from helpers.dataset_files import mark, write_table
from helpers.marks import record_of

from lens_d2.data.same_lesions import collect_marks, pair_marks, read_places
from lens_d2.io.errors import DataError


def test_places_are_read_by_row(tmp_path):
    rows = [mark(Normalized_lesion_location="0.25, 0.5, 0.625"), mark(Normalized_lesion_location="NaN, 0.5, 0.6")]
    write_table(tmp_path / "DL_info.csv", rows)
    places = read_places(tmp_path / "DL_info.csv")
    assert list(places) == [0] and places[0].tolist() == [0.25, 0.5, 0.625]
    write_table(tmp_path / "DL_info.csv", [rows[0], mark(Normalized_lesion_location="0.5, 0.6")])
    with pytest.raises(DataError, match="line 3: Normalized_lesion_location"):
        read_places(tmp_path / "DL_info.csv")


def test_marks_of_the_released_table_are_told_apart(shared_dir):
    """Patient 000089 has lesions in both lungs and is scanned many times; each place occurs in most studies."""
    places = read_places(shared_dir / "annotations/deeplesion/DL_info_sample.csv")
    assert len(places) == 158
    first = {0: "01_01", 1: "02_01", 2: "02_01", 3: "03_01", 6: "05_01", 7: "05_01"}
    records = [
        record_of("000089", series, *[(row, 3, [1, 1, 4, 4]) for row, s in first.items() if s == series])
        for series in sorted(set(first.values()))
    ]
    marks = collect_marks(records, places)
    row = [
        int(m.record["lesions"][i].get("id").rpartition("/")[2])
        for m, i in zip(marks, [0, 0, 1, 0, 0, 1], strict=True)
    ]
    pairs = pair_marks(marks)
    found = {(row[a], row[b]): bool(s) for a, b, s in zip(*pairs, strict=True)}
    assert found[(1, 2)] is False and found[(6, 7)] is False  # of one series
    assert found[(1, 3)] and found[(3, 6)] and found[(1, 6)]  # the right lung's, three studies
    assert found[(0, 7)] is False and found[(2, 6)] is False


def test_pairs_are_made_within_patients_and_left_open_where_it_is_not_clear():
    places = {0: [0.5, 0.5, 0.5], 1: [0.52, 0.5, 0.5], 2: [0.65, 0.5, 0.5], 3: [0.9, 0.5, 0.5], 4: [0.5, 0.5, 0.5]}
    box = [1, 1, 4, 4]
    records = [
        record_of("a", "a1", (0, 3, box)),
        record_of("a", "a2", (1, 3, box), (2, 3, box)),
        record_of("a", "a3", (3, 3, box)),
        record_of("b", "b1", (4, 3, box)),
    ]
    pairs = pair_marks(collect_marks(records, {row: np.array(place) for row, place in places.items()}))
    # 0-2 is 3 spreads apart and not the nearest; 2-3 is 5.0 spreads: both not known. Patient b has one mark.
    assert list(zip(pairs.first, pairs.second, pairs.same, strict=True)) == [
        (0, 1, True), (0, 3, False), (1, 2, False), (1, 3, False),
    ]  # fmt: skip
    assert len(pair_marks([]).same) == 0

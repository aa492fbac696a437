"""Which detections are told as one finding."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest

from lens_d2.export import CsvTable, JsonFile
from lens_d2.export.findings import group_detections, is_same_lesion
from lens_d2.structures.detections import Detection


@pytest.fixture
def at(report):
    """Makes detections in the scan of 24 slices."""

    def make(*boxes) -> list[Detection]:
        detections = []
        for number, box in enumerate(boxes, 1):
            score = 1 - number / 100
            x1, y1, z1, x2, y2, z2 = box
            rows = [[z, x1, y1, x2, y2, score - 0.001 * abs(z - z1)] for z in range(z1, z2 + 1)]
            values = {"number": number, "score": score, "slice_boxes": np.array(rows)}
            detections.append(Detection.at(np.array(box, float), report.geometry, **values))
        return detections

    return make


@pytest.mark.parametrize(
    ("second", "same"),
    [
        ([10, 10, 6, 20, 20, 9], True),  # the lesion goes on where the first box ends
        ([10, 10, 7, 20, 20, 9], False),  # a slice lies between
        ([12, 12, 4, 22, 22, 9], True),  # both cover two slices
        ([17, 10, 4, 27, 20, 9], False),  # beside it, they share three tenths
        ([12, 12, 3, 18, 18, 4], True),  # a part of it
        ([14, 14, 3, 17, 17, 4], False),  # a small lesion inside a large box
    ],
)
def test_boxes_of_one_lesion(at, second, same):
    first, other = at([10, 10, 2, 20, 20, 5], second)
    assert is_same_lesion(first, other) is is_same_lesion(other, first) is same


def test_a_finding_spans_its_detections_and_bears_the_best_ones_name(at, report):
    detections = at([10, 10, 2, 20, 20, 5], [30, 3, 15, 35, 8, 20], [11, 9, 5, 19, 21, 8])
    first, second = group_detections(detections, report.geometry)
    assert (first.members, second.members) == ((1, 3), (2,))
    assert first.whole.number == 1 and first.whole.score == detections[0].score
    assert first.whole.box == (10, 9, 2, 20, 21, 8) and first.whole.slices == list(range(2, 9))
    assert first.whole.size_mm == pytest.approx((15, 24, 21)) and first.whole.key_slice == 2
    assert first.whole.slice_boxes[3].tolist()[:5] == [5, 10, 9, 20, 21]  # on the common slice around both
    assert second.whole is detections[1]


def test_a_chain_of_boxes_does_not_grow(at, report):
    """The third touches the second alone."""
    chain = at([10, 10, 2, 20, 20, 5], [10, 10, 6, 20, 20, 9], [10, 10, 10, 20, 20, 13])
    assert [each.members for each in group_detections(chain, report.geometry)] == [(1, 2), (3,)]


def test_nothing_is_no_finding(report):
    assert group_detections([], report.geometry) == []


def test_csv_and_json_keep_all_detections_and_name_their_finding(at, report):
    detections = at([10, 10, 2, 20, 20, 5], [30, 3, 15, 35, 8, 20], [11, 9, 5, 19, 21, 8])
    report = replace(report, detections=detections)
    rows = list(csv.DictReader(io.StringIO(CsvTable().render(report).decode())))
    assert [(row["detection"], row["finding"]) for row in rows] == [("1", "1"), ("2", "2"), ("3", "1")]
    entries = json.loads(JsonFile().render(report))["detections"]
    assert [(entry["detection"], entry["finding"]) for entry in entries] == [(1, 1), (2, 2), (3, 1)]

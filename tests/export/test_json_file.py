"""``detections.json``: its numbers and what it says of them."""

import json

import pytest

from lens_d2.export import JsonFile


def test_json_says_what_its_numbers_mean(report):
    content = json.loads(JsonFile().render(report))
    assert content["format_version"] == 1 and "Not a medical device" in content["notice"]
    assert set(content["conventions"]) >= {"voxel_box", "world_box_lps_mm", "slice_boxes", "diameters_mm", "score"}
    assert content["scan"]["size_xyz"] == [40, 36, 24] and content["scan"]["name"] == "Scan"
    assert content["scan"]["spacing_xyz_mm"] == pytest.approx([1.5, 2, 3])
    assert content["scan"]["file_axis_of_xyz"] == [0, 1, 2]
    assert content["provenance"] == {"Model": "test.yaml", "Weights": "model.pth"}
    best = content["detections"][0]
    assert best["voxel_box"] == {"x1": 20, "y1": 20, "z1": 10, "x2": 21, "y2": 28, "z2": 10}
    assert best["slices"] == [10] and best["fpr_score"] is None
    assert best["expert_scores"] == {"deeplesion": 0.92, "luna": pytest.approx(0.08)}
    (slice_box,) = best["slice_boxes"]
    assert slice_box == {"slice": 10, "x1": 20, "y1": 20, "x2": 21, "y2": 28, "score": 0.92}
    assert "patient" not in content["scan"]

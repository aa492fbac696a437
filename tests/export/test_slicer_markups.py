"""``detections.mrk.json``: the schema, colours, names, and boxes of a tilted gantry."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from lens_d2.export import SlicerMarkups
from lens_d2.export.slicer_markups import oriented_box
from lens_d2.visualization.planes import score_color


def test_markups_follow_schema_1_0_3(report):
    content = json.loads(SlicerMarkups().render(report))
    assert re.search(r"markups-schema-v1\.0\.3\.json#$", content["@schema"])
    names = []
    for roi, detection in zip(content["markups"], report.detections, strict=True):
        assert (roi["type"], roi["roiType"], roi["coordinateSystem"]) == ("ROI", "Box", "LPS")
        assert roi["coordinateUnits"] == "mm" and roi["insideOut"] is False
        assert [len(roi[key]) for key in ("center", "orientation", "size")] == [3, 9, 3]
        assert all(isinstance(value, float) for key in ("center", "orientation", "size") for value in roi[key])
        (point,) = roi["controlPoints"]
        assert point["position"] == roi["center"] and point["positionStatus"] == "defined"
        assert roi["display"]["color"] == pytest.approx(score_color(detection.score), abs=1e-4)
        names.append(roi["name"])
    assert names == ["Detection 1 (0.92)", "Detection 2 (0.55)", "Detection 3 (0.31)"]


def test_markups_of_a_tilted_gantry_enclose_the_detection(report):
    affine = np.array(report.geometry.affine)
    affine[1, 2] = 0.8  # every slice a bit further back
    geometry = replace(report.geometry, affine=affine)
    detection = report.detections[0]
    world = geometry.boxes3d_to_world([detection.box])[0]
    center, orientation, size = oriented_box(replace(detection, world_box=tuple(world)), geometry)
    np.testing.assert_array_equal(orientation, np.eye(3))
    np.testing.assert_allclose(np.concatenate([center - size / 2, center + size / 2]), world)

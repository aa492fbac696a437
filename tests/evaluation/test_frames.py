"""Records and detections in the coordinates of the files."""

import numpy as np
import pytest
from helpers.evaluated import A, B, lesion, record

from lens_d2.evaluation.frames import box_truth, frame_of, mark_truth, slice_boxes
from lens_d2.io.errors import DataError
from lens_d2.io.formats import HARVESTER, LENS
from lens_d2.structures.detections import VolumeDetections


def test_a_datasets_metadata_say_how_its_files_count():
    for name in ("deeplesion_1k_val", "phantom_deeplesion_1k_test", "lits_val"):
        assert frame_of(name) == LENS
    for name in ("deeplesion_train", "deeplesion_vd3d_test", "phantom_deeplesion_vh_test"):
        assert frame_of(name) == HARVESTER


def test_truth_has_given_lesions_alone():
    boxes = [[4, 10.0, 20, 30, 40], [5, 11, 20, 30, 40], [6, 10, 20, 30, 40]]
    lesions = [lesion(boxes, [10.0, 20, 4, 30, 40, 6], 5), lesion(boxes, status="mined")]
    truth = box_truth([record(B, []), record(A, lesions)], LENS)
    records = [record(B, []), record(A, [*lesions, lesion(boxes)])]
    assert truth.volumes == [B, A] and truth.volume.tolist() == [1]
    assert truth.boxes.tolist() == [[10, 20, 15, 29, 39, 17]]
    assert mark_truth(records, HARVESTER).boxes.tolist() == [[12, 21, 5, 30, 40, 5]] * 2


def test_a_lesion_without_a_3d_box_is_refused_where_3d_boxes_are_the_truth():
    """Else it would be no part of the truth, and a detector would be charged with finding it."""
    with pytest.raises(DataError, match=f"{A}: a lesion has no 3D box"):
        box_truth([record(A, [lesion([[3, 1, 1, 9, 9]])])], LENS)


def test_new_scores_of_detections_are_those_of_their_slices(scene):
    found = scene[1][0]["detections"]["fused"]
    found.scores = np.array([0.45, 0.5])
    rows, owner = slice_boxes(found)
    assert rows[:, 5] == pytest.approx([0.4, 0.45, 0.4, 0.5]) and owner.tolist() == [0, 0, 0, 1]
    bare = VolumeDetections(found.boxes, found.scores)
    rows, owner = slice_boxes(bare)
    assert rows[:, 0].tolist() == [4, 5, 6, 9] and rows[:, 5].tolist() == [0.45] * 3 + [0.5]

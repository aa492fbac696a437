"""Masks: components, and the lesions that they are."""

import numpy as np

from lens_d2.data.datasets.masks import components, lesions_in


def test_voxels_that_share_a_corner_are_one_component():
    mask = np.zeros((4, 5, 6), dtype=bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[3, 3, 3] = True
    labels = components(mask)
    assert labels[0, 0, 0] == labels[1, 1, 1] == 1 and labels[3, 3, 3] == 2 and labels.max() == 2
    assert not components(np.zeros((4, 5, 6), dtype=bool)).any()


def test_a_lesion_of_every_number_but_for_specks():
    labels = np.zeros((4, 5, 6), dtype=np.int32)
    labels[1, 1:3, 2:5], labels[2, 1, 2] = 1, 1
    labels[0, 0, :2] = 3  # two voxels
    (lesion,) = lesions_in(labels, "v", (0.5, 2.0, 5.0), "node")
    assert lesion["boxes"] == [[1, 2.0, 1.0, 5.0, 3.0], [2, 2.0, 1.0, 3.0, 2.0]]
    assert lesion["box3d"] == [2.0, 1.0, 1.0, 5.0, 3.0, 2.0] and lesion["diameter_mm"] == 4.0
    assert (lesion["id"], lesion["type"]) == ("v/1", "node")

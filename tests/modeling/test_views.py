"""Views of a patch: the window, planes, the pooled inside of a box."""

import pytest
import torch
from helpers.classifiers import lpc_blocks, lpc_cfg

from lens_d2.data.cache import build_cache
from lens_d2.data.patches import PatchGrid
from lens_d2.modeling.views import CORONAL, SAGITTAL, TRANSVERSE, VOLUME, IntensityWindow, roi_align3d


@pytest.fixture
def cfg(tmp_path):
    return lpc_cfg(tmp_path)


@pytest.fixture
def blocks(tmp_path):
    return lpc_blocks(tmp_path)


def test_pooled_values_lie_at_the_middles_of_the_bins():
    """Of a map that holds its own coordinates (patch voxels), linear pooling gives the bins' middles."""
    depth, height, width = 6, 8, 16
    z, y, x = torch.meshgrid(torch.arange(6.0), torch.arange(8.0), torch.arange(16.0), indexing="ij")
    features = torch.stack([x, y, z])[None] + 0.5
    box = torch.tensor([[2.0, 1.0, 1.5, 14.0, 7.0, 4.5]])
    pooled = roi_align3d(features, box, (depth, height, width), (3, 2, 4))
    assert pooled.shape == (1, 3, 3, 2, 4)
    torch.testing.assert_close(pooled[0, 0, 0, 0], torch.tensor([3.5, 6.5, 9.5, 12.5]))
    torch.testing.assert_close(pooled[0, 1, 0, :, 0], torch.tensor([2.5, 5.5]))
    torch.testing.assert_close(pooled[0, 2, :, 0, 0], torch.tensor([2.0, 3.0, 4.0]))


def test_pooling_sees_coarse_maps_in_the_same_place():
    """A map at stride 2 and one at stride 1 of the same linear picture pool to the same values inside."""
    x = torch.arange(32.0)[None, None, None, None].expand(1, 1, 4, 32, 32) + 0.5
    coarse = torch.nn.functional.avg_pool3d(x, (1, 2, 2))
    box = torch.tensor([[6.0, 4.0, 1.0, 26.0, 20.0, 3.0]])
    fine = roi_align3d(x, box, (4, 32, 32), (2, 3, 3))
    torch.testing.assert_close(roi_align3d(coarse, box, (4, 32, 32), (2, 3, 3)), fine)


def test_each_sample_is_pooled_from_its_own_box():
    features = torch.zeros(2, 1, 2, 8, 8)
    features[0, :, :, :, :4], features[1, :, :, :, 4:] = 1.0, 2.0
    boxes = torch.tensor([[0.0, 0, 0, 3, 8, 2], [0.0, 0, 0, 3, 8, 2]])
    assert roi_align3d(features, boxes, (2, 8, 8), (1, 1, 1)).flatten().tolist() == [1.0, 0.0]


@pytest.mark.parametrize("view, along, seen_as", [
    (TRANSVERSE, "z", "point"), (TRANSVERSE, "y", "column"), (TRANSVERSE, "x", "row"),
    (SAGITTAL, "z", "column"), (SAGITTAL, "y", "row"), (SAGITTAL, "x", "point"),
    (CORONAL, "z", "column"), (CORONAL, "y", "point"), (CORONAL, "x", "row"),
])  # fmt: skip
def test_a_line_through_the_middle_is_seen_from_three_sides(view, along, seen_as):
    """An odd patch has a middle voxel; the line runs along one axis through it."""
    patch = torch.zeros(1, 1, 5, 7, 9)
    line = [2, 3, 4]
    line["zyx".index(along)] = slice(None)
    patch[0, 0, line[0], line[1], line[2]] = 1
    image, _ = view(patch, torch.zeros(1, 6))
    height, width = [size for axis, size in enumerate((5, 7, 9)) if axis != view.normal]
    expected = torch.zeros(height, width)
    rows = slice(None) if seen_as == "column" else height // 2
    columns = slice(None) if seen_as == "row" else width // 2
    expected[rows, columns] = 1
    assert torch.equal(image[0, 0], expected)


def test_a_plane_between_two_voxels_is_their_mean():
    patch = torch.arange(4.0)[None, None, :, None, None].expand(1, 1, 4, 6, 6)
    assert (TRANSVERSE(patch, torch.zeros(1, 6)).image == 1.5).all()
    assert torch.equal(SAGITTAL(patch, torch.zeros(1, 6)).image[0, 0, :, 0], torch.arange(4.0))


def test_each_plane_sees_its_sides_of_the_box():
    box = torch.tensor([[1.0, 2, 3, 4, 5, 6]])
    patch = torch.zeros(1, 1, 8, 8, 8)
    assert TRANSVERSE(patch, box).boxes.tolist() == [[1, 2, 4, 5]]
    assert CORONAL(patch, box).boxes.tolist() == [[1, 3, 4, 6]]
    assert SAGITTAL(patch, box).boxes.tolist() == [[2, 3, 5, 6]]


@pytest.mark.parametrize("view", [TRANSVERSE, CORONAL, SAGITTAL, VOLUME])
def test_a_lesion_fills_its_box_at_anisotropic_spacing(view, cfg, blocks):
    """The ROI of a block holds the block's values alone; one twice as wide also what is around it."""
    records, positives, _ = blocks
    grid = PatchGrid((12, 24, 32), (1.5, 2.0, 1.0))
    lesions = positives[records[0]["volume"]][:1]
    patches, boxes = grid.crop(build_cache(cfg).open(records[0]), lesions)
    patches, boxes = torch.from_numpy(patches)[:, None], torch.from_numpy(boxes)
    half = (boxes[:, 3:] - boxes[:, :3]) / 2
    assert half.tolist() == [[14, 6, 3]]
    margin = half * torch.tensor([0.2, 0.2, 0.5])  # a slice's values end at its middle
    inner = torch.cat([boxes[:, :3] + margin, boxes[:, 3:] - margin], dim=1)
    seen = view(patches, inner)
    pooled = view.pool(seen.image, seen, (2, 3, 4))
    assert pooled.shape[2:] == tuple(
        bins for axis, bins in enumerate((2, 3, 4)) if axis != getattr(view, "normal", 3)
    )
    torch.testing.assert_close(pooled, torch.full_like(pooled, 300.0))
    seen = view(patches, torch.cat([boxes[:, :3] - half, boxes[:, 3:] + half], dim=1))
    assert view.pool(seen.image, seen, (2, 3, 4)).min() < 150


def test_pooling_a_plane_sees_coarse_maps_in_the_same_place():
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(48.0), indexing="ij")
    fine = torch.stack([rows, columns])[None] + 0.5
    seen = CORONAL(torch.zeros(1, 1, 32, 8, 48), torch.tensor([[10.0, 0, 6, 34, 8, 22]]))
    pooled = CORONAL.pool(fine, seen, (2, 9, 3))
    torch.testing.assert_close(pooled[0, 0, :, 0], torch.tensor([10.0, 18.0]))
    torch.testing.assert_close(pooled[0, 1, 0], torch.tensor([14.0, 22.0, 30.0]))
    torch.testing.assert_close(CORONAL.pool(torch.nn.functional.avg_pool2d(fine, 4), seen, (2, 9, 3)), pooled)


def test_the_window_is_scaled_clipped_and_normalised():
    window = IntensityWindow((-100, 155), mean=50, std=2)
    hu = torch.tensor([-2000, -100, 0, 155, 3000], dtype=torch.int16)
    assert window(hu).tolist() == [-25, -25, 25, 102.5, 102.5] and not window.state_dict()

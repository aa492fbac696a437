"""LUNA16's nodules become the right boxes, also in scans that are stored reversed."""

from functools import partial

import numpy as np
import pytest
from helpers.dataset_files import read_both, write_image, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_d2.data.datasets.catalog import Faults
from lens_d2.data.datasets.luna import COLUMNS, find_scans, read_nodules, read_split, sphere_boxes
from lens_d2.io.errors import DataError
from lens_d2.structures.geometry import VolumeGeometry

SPACING, ORIGIN = (0.5, 0.7, 2.0), (-20.0, 5.0, -100.0)
SIZE = (60, 50, 20)  # x, y, z


def scan(root, name, subset=0, direction=(1, 1, 1)):
    array = np.zeros(SIZE[::-1], dtype=np.int16)
    return write_image(root / "LUNA16" / f"subset{subset}" / f"{name}.mhd", array, SPACING, direction, ORIGIN)


def annotations(root, *rows):
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in rows]
    return write_table(root / "LUNA16" / "annotations.csv", rows, COLUMNS)


def world(index, direction=(1, 1, 1)):
    return np.array(ORIGIN) + np.array(direction) * SPACING * np.array(index)


everything = partial(read_both, read_split)


@pytest.mark.parametrize("direction", [(1, 1, 1), (-1, -1, 1), (1, 1, -1)])
def test_a_nodule_becomes_a_box_on_every_slice_that_it_crosses(tmp_path, direction):
    center, diameter = (30, 20, 10), 8.0
    scan(tmp_path, "1.2.3", direction=direction)
    annotations(tmp_path, ("1.2.3", *world(center, direction), diameter))
    (record,) = everything(tmp_path).values()
    (lesion,) = record["lesions"]
    assert (record["width"], record["height"], record["num_slices"]) == SIZE
    assert record["z_direction"] == direction[2] and record["patient"] == "1.2.3"
    radii = {9: np.sqrt(16 - 4), 10: 4.0, 11: np.sqrt(16 - 4)}  # slices 8 and 12 only touch the sphere
    assert [box[0] for box in lesion["boxes"]] == list(radii)
    for z, *box in lesion["boxes"]:
        rx, ry = radii[z] / SPACING[0], radii[z] / SPACING[1]
        np.testing.assert_allclose(box, [30.5 - rx, 20.5 - ry, 30.5 + rx, 20.5 + ry], atol=1e-9)
    np.testing.assert_allclose(lesion["box3d"], [22.5, 20.5 - 4 / 0.7, 9, 38.5, 20.5 + 4 / 0.7, 11])
    assert (lesion["diameter_mm"], lesion["type"]) == (8.0, "lung nodule")


@settings(deadline=None, max_examples=80)
@given(
    center=st.tuples(*[st.floats(0, n - 1) for n in SIZE]),
    diameter=st.floats(3, 30),
    signs=st.tuples(*[st.sampled_from([-1, 1])] * 3),
)
def test_boxes_hold_the_voxels_of_the_sphere(center, diameter, signs):
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = np.diag(np.array(SPACING) * signs), ORIGIN
    geometry = VolumeGeometry(SIZE, affine)
    middle = geometry.index_to_world([center])[0]
    boxes = sphere_boxes(geometry, middle, diameter)
    x, y, z = np.meshgrid(*map(np.arange, SIZE), indexing="ij")
    distance = np.linalg.norm(geometry.index_to_world(np.stack([x, y, z], -1).reshape(-1, 3)) - middle, axis=1)
    inside = (distance <= diameter / 2).reshape(SIZE)
    found = {int(box[0]): box[1:] for box in boxes}
    for k in np.flatnonzero(inside.any(axis=(0, 1))):
        if k not in found:  # a circle of less than a pixel
            assert inside[:, :, k].sum() <= 2
            continue
        columns, rows = (np.flatnonzero(inside[:, :, k].any(axis=axis)) for axis in (1, 0))
        x1, y1, x2, y2 = found[k]
        assert x1 <= columns[0] + 0.5 and columns[-1] + 0.5 <= x2
        assert y1 <= rows[0] + 0.5 and rows[-1] + 0.5 <= y2


def test_scans_without_nodules_and_nodules_without_scans(tmp_path):
    scan(tmp_path, "1.1")
    scan(tmp_path, "1.2", subset=9)
    annotations(tmp_path, ("1.2", *world((30, 20, 10)), 6), ("1.9", 0, 0, 0, 6))
    records = everything(tmp_path)
    assert {name: len(record["lesions"]) for name, record in records.items()} == {"1.1": 0, "1.2": 1}


def test_a_table_of_other_scans_would_make_all_free_of_nodules(tmp_path):
    scan(tmp_path, "1.1")
    annotations(tmp_path, ("1.9", 0, 0, 0, 6))
    with pytest.raises(DataError, match="annotations.csv: its 1 scans with nodules are none of those in "):
        everything(tmp_path)


def test_a_table_that_was_cut_to_its_header_is_told(tmp_path, caplog):
    scan(tmp_path, "1.1")
    annotations(tmp_path)
    with caplog.at_level("WARNING"):
        assert len(everything(tmp_path)) == 1
    assert "annotations.csv: has no nodule, so that all 1 scans count as free of them; is it cut?" in caplog.text


def test_hidden_files_are_no_scans_and_subsets_may_have_folders(tmp_path, caplog):
    """As disks of macOS and unpacking into a folder of its own leave them."""
    header = scan(tmp_path, "1.2.3")
    header.with_name("._1.2.3.mhd").write_bytes(b"\0")
    scan(tmp_path, "1.2.4", subset="1/subset1")
    annotations(tmp_path, ("1.2.3", *world((30, 20, 10)), 8.0), ("1.2.5", 0, 0, 0, 8.0))
    assert sorted(find_scans(tmp_path / "LUNA16")) == sorted(everything(tmp_path)) == ["1.2.3", "1.2.4"]
    assert "nodules of 1 scans that are not in" in caplog.text


def test_a_scan_at_fault_is_left_out_and_named(tmp_path):
    for name in ("1.1", "1.2", "1.3", "1.4"):
        scan(tmp_path, name)
    (tmp_path / "LUNA16" / "subset0" / "1.4.mhd").write_text("NDims = 3\n")
    rows = [("1.1", *world((30, 20, 10)), 6), ("1.2", *world((300, 20, 10)), 6), ("1.3", "", 0, 0, 6)]
    annotations(tmp_path, *rows)
    faults = Faults()
    assert list(everything(tmp_path, faults)) == ["1.1"]
    assert "annotations.csv: line 3 (1.2): the nodule's centre is voxel 300.0, 20.0, 10.0" in str(faults["1.2"])
    assert "annotations.csv: line 4 (1.3): no centre and diameter: , 0, 0, 6" in str(faults["1.3"])
    assert faults["1.4"].path.endswith("1.4.mhd")


@pytest.mark.parametrize("diameter", ["NaN", "-3", "0", "six", "1e200", "1_0"])
def test_diameters_that_make_no_sense(tmp_path, diameter):
    path = annotations(tmp_path, ("1.1", 0, 0, 0, diameter))
    with pytest.raises(DataError, match=f"line 2 .1.1.: no centre and diameter: 0, 0, 0, {diameter}"):
        read_nodules(path)


def test_table_and_scans_that_are_not_there(tmp_path):
    with pytest.raises(DataError, match="LUNA16: no scan"):
        everything(tmp_path)
    scan(tmp_path, "1.1")
    with pytest.raises(DataError, match="annotations.csv: cannot be read"):
        everything(tmp_path)
    write_table(tmp_path / "LUNA16" / "annotations.csv", [{"seriesuid": "1.1"}])
    with pytest.raises(DataError, match="no column coordX, coordY, coordZ, diameter_mm"):
        everything(tmp_path)
    scan(tmp_path, "1.1", subset=3)
    with pytest.raises(DataError, match="the same series as"):
        find_scans(tmp_path / "LUNA16")


def test_the_challenge_s_own_table(shared_dir):
    nodules = read_nodules(shared_dir / "annotations" / "luna16" / "annotations.csv")
    assert sum(map(len, nodules.values())) == 1186

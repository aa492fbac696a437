"""The single-type datasets: their own type is annotated, masks meet their volumes, seeds differ."""

import numpy as np
import pytest
import SimpleITK as sitk
from helpers.phantom_cohort import PLAN, records

from lens_d2.data.datasets import lits, luna, nih_ln
from lens_d2.phantom.single_type import write_luna


@pytest.mark.parametrize(
    ("module", "dataset", "kinds"),
    [
        (luna, "luna", {"lung_nodule"}),
        (lits, "lits", {"liver_tumour"}),
        (nih_ln, "nih_ln", {"mediastinal_node", "abdominal_node"}),
    ],
)
def test_own_type_is_fully_annotated_and_no_other(module, dataset, kinds, root, truth):
    found = {r["volume"]: r for split in ("train", "val") for r in records(module, split, root)}
    entries = {e["patient"]: e for e in truth.values() if e["dataset"] == dataset}
    assert len(found) == len(entries)
    for record in found.values():
        hidden = entries[record["patient"]]["lesions"]
        own = [x for x in hidden if x["annotated"]]
        assert {x["type"] for x in own} <= kinds
        assert len(record["lesions"]) == len(own)
        for lesion in record["lesions"]:
            centre = np.add(lesion["box3d"][:3], lesion["box3d"][3:]) / 2
            inside = [
                x
                for x in own
                if np.all(centre >= x["box3d"][:3]) and np.all(centre <= np.add(x["box3d"][3:], 0.01))
            ]
            assert len(inside) == 1  # world coordinates and reversed axes are right


def test_masks_share_the_geometry_of_their_volumes(root):
    volume = sitk.ReadImage(str(next((root / "LiTS").glob("volume-*.nii"))))
    mask = sitk.ReadImage(str(next((root / "LiTS").glob("segmentation-*.nii"))))
    assert volume.GetSize() == mask.GetSize()
    np.testing.assert_allclose(volume.GetDirection(), mask.GetDirection(), atol=1e-5)
    labels = sitk.GetArrayFromImage(mask)
    hu = sitk.GetArrayFromImage(volume)
    assert 30 < hu[labels == 1].mean() < 180  # it is the liver


def test_another_seed_gives_another_cohort(root, tmp_path):
    write_luna(PLAN.with_changes(seed=4), tmp_path, 0)
    written, other = (next((folder / "LUNA16/subset0").glob("*.raw")) for folder in (root, tmp_path))
    assert written.name != other.name
    assert written.read_bytes() != other.read_bytes()

"""A record that contradicts itself is refused, by name."""

import pytest

from lens_d2.io.errors import DataError
from lens_d2.structures.records import check_record, make_lesion, make_record


def record(**changes):
    values = {
        "volume": "v",
        "expert": "luna",
        "patient": "p",
        "size": (30, 20, 10),
        "spacing": (1, 1, 2),
        "lesions": [make_lesion("v/0", [[2, 1, 2, 3, 4]])],
    }
    return make_record("scan.mhd", **{**values, **changes})


def test_a_lesion_with_a_3d_box_alone_has_its_outline_on_each_slice():
    """Training knows slice boxes alone: without them the lesion would be background."""
    (lesion,) = record(lesions=[make_lesion("v/0", box3d=[1, 2, 3, 5, 6, 4.5])])["lesions"]
    assert lesion["boxes"] == [[3, 1.0, 2.0, 5.0, 6.0], [4, 1.0, 2.0, 5.0, 6.0]]


@pytest.mark.parametrize(
    ("lesion", "fault"),
    [
        (make_lesion("v/0", [[2, 1, 2, 31, 4]]), "outside the image of 30 x 20"),
        (make_lesion("v/0", [[2, -1, 2, 3, 4]]), "outside the image of 30 x 20"),
        (make_lesion("v/0", [[2, 3, 2, 3, 4]]), "has no area"),
        (make_lesion("v/0", [[2, 1, float("nan"), 3, 4]]), "not four numbers"),
        (make_lesion("v/0", [[10, 1, 2, 3, 4]]), "a box on slice 10 of 10"),
        (make_lesion("v/0", [[2, 1, 2, 3, 4]], key_slice=-1), "a box on slice -1 of 10"),
        (make_lesion("v/0", box3d=[1, 2, -0.6, 3, 4, 2]), "a 3D box on the slices -0.6 to 2 of 10"),
        (make_lesion("v/0", box3d=[1, 2, 4, 3, 4, 3]), "a 3D box on the slices 4 to 3 of 10"),
        (make_lesion("v/0"), "a lesion without a box"),
        (make_lesion("v/0", [[2, 1, 2, 3, 4]], status="seen"), "status 'seen'"),
    ],
)
def test_records_that_contradict_themselves(lesion, fault):
    with pytest.raises(DataError) as error:
        record(lesions=[lesion])
    assert "scan.mhd: v: " in str(error.value) and fault in str(error.value)


@pytest.mark.parametrize("spacing", [(0, 1, 1), (1, 1, float("nan")), (1, -1, 1)])
def test_records_with_a_senseless_spacing(spacing):
    with pytest.raises(DataError, match="it must be positive"):
        record(spacing=spacing)
    good = record()
    check_record(good)
    with pytest.raises(DataError, match="other.csv: v: it has no voxels"):
        check_record({**good, "num_slices": 0}, "other.csv")

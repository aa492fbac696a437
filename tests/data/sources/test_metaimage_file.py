"""MetaImage: read as SimpleITK means it, or refused in a line."""

import numpy as np
import pytest
from helpers.volume_files import ct, fault, metaimage, same, sitk_affine, warned

from lens_d2.data.volume import read_volume


def test_text_of_metaimage(tmp_path):
    text = "\n".join(map(str, ct().ravel())).encode()
    same(metaimage(tmp_path / "ct.mha", text, BinaryData=False), ct())


def test_axes_of_metaimage_that_are_no_unit_vectors(tmp_path):
    """They multiply the spacing, in SimpleITK as well."""
    path = metaimage(tmp_path / "ct.mha", ct().tobytes(), TransformMatrix="1 0 0 0 1 0 0 0 2")
    assert "axes of the lengths 1, 1, 2 (TransformMatrix)" in warned(path)
    np.testing.assert_allclose(read_volume(path).geometry.affine, sitk_affine(path))


def test_one_volume_of_four_dimensions(tmp_path):
    fields = {
        "NDims": 4, "DimSize": "11 9 6 1", "ElementSpacing": "0.7 0.8 2.5 1", "Offset": "-100 50 -300 0",
        "TransformMatrix": "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1",
    }  # fmt: skip
    assert same(metaimage(tmp_path / "ct.mha", ct().tobytes(), **fields), ct()).warnings == ()
    two = metaimage(tmp_path / "two.mha", 2 * ct().tobytes(), **{**fields, "DimSize": "11 9 6 2"})
    assert "4 dimensions where a volume has 3" in fault(two)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"DimSize": "11 9 x"}, "DimSize in its header is '11 9 x', not 3 whole numbers"),
        ({"DimSize": "11 9 0"}, "a size of 11 x 9 x 0 voxels"),
        ({"DimSize": None}, "no DimSize in its header"),
        ({"ElementSpacing": None}, "no ElementSpacing in its header"),
        ({"ElementSpacing": "0.7 0.8"}, "not 3 numbers"),
        ({"ElementSpacing": "-0.7 0.8 5"}, "a spacing of -0.7 x 0.8 x 5 mm, which is negative"),
        ({"ElementSpacing": "0.7 0.8 1_0"}, "not 3 numbers"),
        ({"CompressedData": "perhaps"}, "not True or False"),
        ({"HeaderSize": -7}, "a HeaderSize of -7"),
        ({"ElementType": "MET_SHORTS"}, "voxels of type MET_SHORTS"),
        ({"Comment": "\0\1"}, "bytes that are no text"),
        ({"Comment": "x" * (1 << 20)}, "does not end within 1 MB"),
        ({"Modality\nDimSize": "CT"}, "not 'key = value'"),
    ],
)
def test_senseless_metaimage_headers(fields, says, tmp_path):
    assert says in fault(metaimage(tmp_path / "ct.mha", ct().tobytes(), **fields))

"""NRRD: read as the format means it, or refused in a line."""

import bz2
import gzip

import numpy as np
import pytest
from helpers.volume_files import AFFINE, RAS, ct, fault, nrrd, same, sitk_affine

from lens_d2.data.volume import read_volume


@pytest.mark.parametrize("encoding", ["raw", "gzip", "gz", "bzip2", "bz2", "ascii", "text", "txt"])
def test_encodings_of_nrrd(encoding, tmp_path):
    text = " ".join(map(str, ct().ravel())).encode()
    pack = {"g": gzip.compress, "b": bz2.compress, "r": bytes}.get(encoding[0])
    same(nrrd(tmp_path / "ct.nrrd", pack(ct().tobytes()) if pack else text, encoding=encoding), ct())


def test_spaces_of_nrrd(tmp_path):
    for space, signs in {"RAS": (-1, -1, 1), "left-anterior-superior": (1, -1, 1), "LPS": (1, 1, 1)}.items():
        volume = read_volume(nrrd(tmp_path / "ct.nrrd", ct().tobytes(), space=space))
        np.testing.assert_allclose(volume.geometry.affine, np.diag([*signs, 1]) @ AFFINE)
        assert volume.warnings == ()
    np.testing.assert_allclose(sitk_affine(nrrd(tmp_path / "ras.nrrd", ct().tobytes(), space="RAS")), RAS @ AFFINE)


@pytest.mark.parametrize(
    "fields",
    [
        {
            "space_directions": "(0.7,0,0) (0,0.8,0) (0,0,2.5) none", "kinds": "domain domain domain list",
            "units": '"mm" "mm" "mm" "s"',
        },
        {
            "space": "left-posterior-superior-time", "space_origin": "(-100,50,-300,0)",
            "space_directions": "(0.7,0,0,0) (0,0.8,0,0) (0,0,2.5,0) (0,0,0,1)",
        },
    ],
)  # fmt: skip
def test_one_volume_of_four_dimensions(fields, tmp_path):
    fields = {"dimension": 4, "sizes": "11 9 6 1", **fields}
    assert same(nrrd(tmp_path / "ct.nrrd", ct().tobytes(), **fields), ct()).warnings == ()
    two = nrrd(tmp_path / "two.nrrd", 2 * ct().tobytes(), **{**fields, "sizes": "11 9 6 2", "kinds": None})
    assert "4 dimensions where a volume has 3" in fault(two)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"sizes": "11 9"}, "not 3 whole numbers"),
        ({"sizes": "11 9 -6"}, "a size of 11 x 9 x -6 voxels"),
        ({"endian": None}, "no endian in its header"),
        ({"endian": "middle"}, "its endian is 'middle'"),
        ({"encoding": "hex"}, "its encoding is 'hex'"),
        ({"type": "block"}, "voxels of type 'block'"),
        ({"space_directions": None}, "no space directions and no spacings"),
        ({"space_directions": "(1,0,0) (0,1,0)"}, "not 3 vectors"),
        ({"space_directions": None, "space": None, "spacings": "1 -1 2"}, "a spacing of 1 x -1 x 2 mm"),
        ({"space_origin": "(1,2)"}, "not 3 numbers"),
        ({"byte_skip": "-2"}, "a byte skip of -2"),
        ({"sixes": "11 9 6"}, "no field"),
        ({"dimension": "4"}, "4 dimensions where a volume has 3"),
    ],
)
def test_senseless_nrrd_headers(fields, says, tmp_path):
    assert says in fault(nrrd(tmp_path / "ct.nrrd", ct().tobytes(), **fields))

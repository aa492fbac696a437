"""Soft organs: parts, their joining, and tubes with content."""

import numpy as np
import pytest

from lens_d2.phantom.organs import Part, lumen_parts, merged


def test_beads_of_one_organ_and_tissue_are_joined_where_the_first_stood():
    beads = [np.full((n, 4), float(n)) for n in (1, 2, 3)]
    tissues = ("gas", "wall", "gas")
    first, wall, last = (Part("colon", tissue, own) for tissue, own in zip(tissues, beads, strict=True))
    joined = merged([first, Part("liver", "liver", lambda x, y, z: x), wall, last])
    assert [part.tissue for part in joined] == ["gas", "liver", "wall"]
    assert joined[0].shape.tolist() == [*beads[0].tolist(), *beads[2].tolist()]
    assert [part.is_beads for part in joined] == [True, False, True]


def test_content_lies_within_the_wall():
    beads = np.column_stack([np.zeros((60, 2)), np.arange(60.0), np.full(60, 10.0)])
    wall, *contents = lumen_parts(
        np.random.default_rng(0), "colon", beads, 2.5, [("faeces", 0.5), ("gas", 0.5)], 5
    )
    assert wall.tissue == "bowel wall" and wall.shape is beads
    assert {part.tissue for part in contents} == {"faeces", "gas", "bowel fluid"}
    for part in contents:
        x, y, z, radius = part.shape.T
        assert (np.hypot(x, y) + radius <= 7.5 + 1e-9).all() or part.tissue == "gas"
        assert (y < 0).all() if part.tissue == "gas" else (radius == 7.5).all()


@pytest.mark.parametrize("organ", ["liver", "spleen", "heart", "right kidney", "left kidney"])
def test_solid_organs_lie_on_their_side_of_the_body(anatomy, organ):
    points = np.stack(np.meshgrid(*(np.arange(-160.0, 161, 8),) * 3), -1).reshape(-1, 3).astype(np.float32)
    inside = points[anatomy.solids[organ](*points.T) > 0]
    litres = len(inside) * 8**3 / 1e6
    low, high = {"liver": (0.8, 2.6), "spleen": (0.05, 0.6), "heart": (0.3, 1.1)}.get(organ, (0.08, 0.3))
    assert low < litres < high
    assert (inside[:, 0].mean() < 0) == (organ in ("liver", "right kidney"))
    assert (anatomy.torso.skin(*inside.T) > 0).all()

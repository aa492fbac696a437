"""The blob detector finds blobs where they are, at their size, and tunes itself on what it is given."""

import json

import numpy as np
import pytest
from detectron2.data import MetadataCatalog

from experiments import blobs
from experiments.__main__ import main
from lens_d2.structures.records import make_lesion, make_record


def body_with_balls(balls, spacing=(2.0, 2.0, 3.0), shape=(24, 80, 96)):
    """HU of a cylinder of water in air with balls (x, y, z voxels, radius mm, HU) in it."""
    z, y, x = np.indices(shape, dtype=np.float32)
    hu = np.where(np.hypot((x - 48) / 44, (y - 40) / 34) < 1, 0, -1000).astype(np.int16)
    for cx, cy, cz, radius, value in balls:
        apart = np.sqrt(((x - cx) * spacing[0]) ** 2 + ((y - cy) * spacing[1]) ** 2 + ((z - cz) * spacing[2]) ** 2)
        hu[apart < radius] = value
    return hu


def test_a_ball_is_the_strongest_blob_at_its_place_and_size():
    found = blobs.blobs(body_with_balls([(60, 30, 11, 9.0, 90)]), (2.0, 2.0, 3.0))
    bright = found[found[:, 0] == list(blobs.CHANNELS).index("soft, bright")]
    best = bright[bright[:, 5].argmax()]
    np.testing.assert_allclose(best[2:5], [60, 30, 11], atol=1)
    assert np.sqrt(3) * blobs.SIGMAS[int(best[1])] == pytest.approx(9, rel=0.3)


def test_nothing_is_found_in_air():
    assert len(blobs.blobs(np.full((8, 32, 32), -1000, np.int16), (2.0, 2.0, 3.0))) == 0


def test_weaker_blobs_inside_stronger_ones_are_dropped():
    record = {"spacing": [2.0, 2.0, 3.0], "width": 96, "height": 80, "num_slices": 24}
    channel = list(blobs.CHANNELS).index("soft, bright")
    candidates = np.array(
        [[channel, 3, 60, 30, 11, 0.5], [channel, 2, 61, 30, 11, 0.4], [channel, 2, 20, 40, 5, 0.3]]
    )
    kept = blobs.boxes_of(candidates, record, blobs.Settings())
    assert kept[:, 6].tolist() == [0.5, 0.3]
    assert (kept[0, :3] < [60, 30, 11]).all() and (kept[0, 3:6] > [60, 30, 11]).all()


def test_tuning_picks_the_channel_that_finds_the_lesions(monkeypatch, tmp_path, capsys):
    """Dark balls are the lesions, bright ones are not."""
    dark, bright = [(60, 30, 11, 9.0, -90), (30, 44, 6, 9.0, -90)], [(44, 52, 16, 9.0, 160), (70, 48, 8, 9.0, 160)]
    volumes = {
        f"000001_01_01_{10 * i + 1:03d}-{10 * i + 24:03d}": body_with_balls(dark + bright) + i for i in (0, 5)
    }
    records = []
    for name, hu in volumes.items():
        lesions = [
            make_lesion(f"{name}/{n}", box3d=[x - 6.5, y - 6.5, z - 3, x + 6.5, y + 6.5, z + 3])
            for n, (x, y, z, _, _) in enumerate(dark)
        ]
        first = int(name.split("_")[-1].split("-")[0])
        records.append(
            make_record(
                tmp_path,
                volume=name,
                expert="deeplesion",
                patient="1",
                size=hu.shape[::-1],
                spacing=[2.0, 2.0, 3.0],
                lesions=lesions,
                first_slice=first,
            )  # fmt: skip
        )
    monkeypatch.setattr(blobs, "load_records", lambda names: records)
    monkeypatch.setattr(blobs, "_volume_blobs", lambda r: blobs.blobs(volumes[r["volume"]], r["spacing"]))
    # in a window that a dark ball in water falls into
    monkeypatch.setitem(blobs.CHANNELS, "soft, dark", (-120, 40, -1))
    assert MetadataCatalog.get("phantom_deeplesion_1k_val").dataset == "deeplesion_1k_val"
    output = tmp_path / "predictions.json"
    assert main(["blobs", "--output", str(output)]) == 0
    assert "phantom_deeplesion_1k_test 1.000" in capsys.readouterr().out
    written = json.loads(output.read_text())
    assert written.keys() == volumes.keys()
    second = next(name for name in written if "_051-" in name)
    boxes = np.array(sorted(written[second], key=lambda row: -row[6])[:2])
    assert (boxes[:, 2] >= 51).all()  # z is the number of the slice, as in LENS's set

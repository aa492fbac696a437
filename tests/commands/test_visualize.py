"""The command ``visualize``: every kind of box in its colour, where the mapper of training puts it."""

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from helpers.blocks import blocks_cfg, register_blocks
from helpers.sample_colors import has_color

from lens_d2.commands import main, visualize
from lens_d2.data.ledger.table import LedgerRow, to_table, write_ledger
from lens_d2.data.mapper import SliceMapper


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blocks")
    register_blocks(folder)
    return folder


def test_every_kind_of_box_has_its_colour(folder, tmp_path):
    record = DatasetCatalog.get("blocks_deeplesion")[0]
    kinds = {"mined": "annotation", "uncertain": "uncertain", "hard_negative": "hard_negative"}
    z = int(record["lesions"][0]["boxes"][0][0])
    rows = [
        LedgerRow(
            f"m{n}@{z}", record["volume"], z, 8 + 22 * n, 40, 26 + 22 * n, 55, f"m{n}", "S", 1, 0.5, 0.1, "", s
        )
        for n, s in enumerate(kinds.values())
    ]
    write_ledger(tmp_path / "ledger.csv", [to_table(rows)])
    config = tmp_path / "config.yaml"
    config.write_text(f"INPUT:\n  CACHE_DIR: {folder / 'cache'}\n  PIXEL_SPACING: 2.0\n")
    words = ["blocks_deeplesion", "--config-file", config, "--ledger", tmp_path / "ledger.csv", "--num", "4"]
    assert main(["visualize", *map(str, words), "--augment", "--output", str(tmp_path / "out")]) == 0
    (path,) = (tmp_path / "out").glob("*.png")
    image = cv2.imread(str(path))
    assert all(has_color(image, name) for name in ("annotation", *kinds))
    first = path.read_bytes()
    main(["visualize", *map(str, words), "--augment", "--output", str(tmp_path / "out")])
    assert path.read_bytes() == first
    assert main(["visualize", *map(str, words), "--seed", "1", "--output", str(tmp_path / "other")]) == 0
    assert (tmp_path / "other" / path.name).read_bytes() != first


def test_boxes_are_where_the_mapper_of_training_puts_them(folder):
    """Crops depend on the boxes; kinds must not change them."""
    cfg = blocks_cfg(
        folder,
        "INPUT.CROP.ENABLED",
        True,
        "INPUT.CROP.TYPE",
        "absolute",
        "INPUT.CROP.SIZE",
        [40, 40],
        "INPUT.PIXEL_SPACING",
        2.0,
    )
    record = DatasetCatalog.get("blocks_luna")[1]
    second = {**record["lesions"][1], "status": "mined"}
    record = {**record, "lesions": [record["lesions"][0], second]}
    for seed in range(4):
        z = int(second["boxes"][0][0])
        expected = SliceMapper(cfg, is_train=True)(record, z, seed)
        shown = visualize.picture(visualize.KindMapper(cfg, is_train=True), record, z, seed)
        boxes = np.concatenate(list(shown.boxes.values()))
        assert sorted(boxes.tolist()) == sorted(expected["instances"].gt_boxes.tensor.tolist())
        assert shown.hu.shape == (40, 40)


def test_faults_are_one_line(tmp_path, capsys):
    assert main(["visualize", "nowhere"]) == 2
    assert capsys.readouterr().err.startswith("nowhere: no registered dataset; one of your own")
    assert main(["visualize", "blocks_luna", "--ledger", str(tmp_path / "no.csv")]) == 2
    assert capsys.readouterr().err.startswith(f"{tmp_path / 'no.csv'}: cannot be read")

"""Figures of examples, from the command on: a few blocks, a narrow network, a ledger."""

import cv2
import numpy as np
import pytest
import torch
import yaml
from detectron2.data import DatasetCatalog
from helpers.blocks import blocks_cfg, register_blocks
from helpers.marks import embedding_cfg
from helpers.mined_ledger import rows

from experiments.__main__ import main
from experiments.figures import FIGURES, UNKNOWN, project, types_of
from lens_d2.data.ledger.table import to_table, write_ledger
from lens_d2.io.errors import DataError
from lens_d2.modeling.embedding import LesaNet

DATASET = "blocks_deeplesion"
MINED = np.array([60.0, 45, 72, 55])


@pytest.fixture
def blocks(tmp_path):
    """The folder, and a ledger with a mined lesion in three of the four sub-volumes."""
    register_blocks(tmp_path / "data")
    records = DatasetCatalog.get(DATASET)
    mined = [
        row for n, record in enumerate(records[:3])
        for row in rows(record["volume"], f"{record['volume']}/m", "Test", MINED, range(n + 2))
    ]  # fmt: skip
    write_ledger(tmp_path / "ledger.csv", [to_table(mined)])
    return tmp_path


def written(cfg, folder) -> str:
    (folder / "config.yaml").write_text(yaml.safe_dump(yaml.safe_load(cfg.dump())))
    return str(folder / "config.yaml")


def call(figure, config, output, *words):
    options = ["--config-file", config, "--dataset", DATASET, "--output", str(output)]
    return main(["figures", figure, *options, *words])


def test_a_row_of_experts_for_each_patient(blocks, capsys):
    from lens_d2.engine import LENSTrainer

    cfg = blocks_cfg(blocks)
    torch.manual_seed(0)
    torch.save({"model": LENSTrainer.build_model(cfg).state_dict()}, blocks / "weights.pth")
    config, picture = written(cfg, blocks), blocks / "experts.png"
    assert call("experts", config, picture, "--opts", "MODEL.WEIGHTS", "") == 2
    assert "MODEL.WEIGHTS: empty" in capsys.readouterr().err
    weights = ("--opts", "MODEL.WEIGHTS", str(blocks / "weights.pth"))
    assert call("experts", config, picture, "--count", "2", "--score", "0", *weights) == 0
    two = cv2.imread(str(picture)).shape
    assert call("experts", config, picture, "--volumes", "deeplesion_1", *weights) == 0
    one = cv2.imread(str(picture)).shape
    assert two[1] == one[1] == 1300 and two[0] > 1.8 * one[0] - 80
    assert call("experts", config, picture, "--volumes", "deeplesion_9", *weights) == 2
    assert "deeplesion_9: no sub-volume of blocks_deeplesion" in capsys.readouterr().err


def test_harvested_lesions_of_a_ledger(blocks, capsys):
    config, ledger = written(blocks_cfg(blocks), blocks), str(blocks / "ledger.csv")
    assert call("harvested", config, blocks / "harvested.png", "--ledger", ledger) == 0
    assert cv2.imread(str(blocks / "harvested.png")).shape[1] == 1300
    write_ledger(blocks / "none.csv", [to_table([])])
    assert call("harvested", config, blocks / "none.png", "--ledger", str(blocks / "none.csv")) == 2
    assert "no lesion was mined in blocks_deeplesion" in capsys.readouterr().err


def test_an_embedding_of_marked_and_mined_lesions(blocks):
    cfg = embedding_cfg(blocks)
    torch.manual_seed(0)
    torch.save({"model": LesaNet(cfg, 3).state_dict()}, blocks / "embedding.pth")
    cfg.MODEL.EMBEDDING.WEIGHTS, picture = str(blocks / "embedding.pth"), blocks / "embedding.png"
    assert call("embedding", written(cfg, blocks), picture, "--ledger", str(blocks / "ledger.csv")) == 0
    assert cv2.imread(str(picture)).std() > 5


def test_a_lesion_without_a_type_has_its_nearest_ones():
    own = np.array([[1.0, 0], [0, 1], [0.8, 0.6], [-1, 0]])
    types = types_of(["lung", None, None, None], own, ["liver", "bone"], np.array([[0, 1.0], [-1, 0]]))
    assert types.tolist() == ["lung", "liver", "lung", "bone"]
    assert types_of([None], own[:1], [], np.zeros((0, 2))).tolist() == [UNKNOWN]


def test_too_few_lesions_have_no_picture():
    assert project(np.random.default_rng(0).random((6, 5)), 0, "d").shape == (6, 2)
    with pytest.raises(DataError, match="d: 3 lesions; at least 4"):
        project(np.zeros((3, 5)), 0, "d")


def test_its_help_names_the_figures(capsys):
    with pytest.raises(SystemExit):
        main(["figures", "--help"])
    told = capsys.readouterr().out
    assert all(name in told for name in FIGURES)

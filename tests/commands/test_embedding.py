"""The command ``embedding`` as users run it, on a tiny DeepLesion with labels."""

import json
import shlex

import pytest
import torch
from helpers.dataset_files import mark, write_marks, write_slices
from helpers.processes import run_line

from lens_d2.commands import embedding
from lens_d2.commands.options import get_parser
from lens_d2.data.datasets.catalog import default_root, register_all
from lens_d2.io.errors import DataError

CONFIG = """\
MODEL:
  DEVICE: cpu
  EMBEDDING:
    LABELS: labels.json
    ONTOLOGY: ontology.csv
    BACKBONE_WEIGHTS: ''
    WIDTH: 2
    FC_DIM: 8
    PATCH_SIZE: (3, 32, 32)
    SOLVER: {IMS_PER_BATCH: 2, EPOCHS: 1}
DATALOADER: {NUM_WORKERS: 0}
VERSION: 2
"""


@pytest.fixture
def root(tmp_path):
    """Two patients, two studies each, a mark in each of them; three have labels."""
    series = [f"00000{patient}_0{study}_01" for patient in (1, 2) for study in (1, 2)]
    for name in series:
        write_slices(tmp_path, name, range(10, 17))
    write_marks(tmp_path, [mark(name) for name in series])
    labels = {"term_list": ["lung", "nodule"]}
    for split in ("train", "val", "test"):
        labels |= {f"{split}_{part}": [] for part in ("lesion_idxs", "relevant_labels", "uncertain_labels")}
    labels |= {"train_lesion_idxs": [0, 2, 3], "train_relevant_labels": [[0], [1], [0]]}
    labels["train_uncertain_labels"] = [[], [], []]
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    (tmp_path / "ontology.csv").write_text(
        "class,term,term_exclusive,term_parents\nbodypart,lung,,\ntype,nodule,,\n"
    )
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


def test_it_trains_calibrates_and_reports(root, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    register_all(root)
    args = ["embedding", "--config-file", str(root / "config.yaml"), "OUTPUT_DIR", str(root / "output")]
    try:
        embedding.main(get_parser().parse_args(args))
    finally:
        monkeypatch.undo()
        register_all(default_root())
    weights = root / "output" / "embedding" / "model_final.pth"
    assert torch.load(weights, weights_only=True)["model"]["label_scores.bias"].shape == (2,)
    found = json.loads((root / "output" / "embedding" / "calibration.json").read_text())
    # The marks of a patient lie in one place; two pairs are too few to calibrate on.
    assert found["same_pairs"] == 2 and not found["calibrated"] and found["distance"] == 0.15
    assert "matching distance 0.1500" in (root / "output" / "log.txt").read_text()


@pytest.mark.parametrize(
    ("opts", "fault"),
    [
        (("MODEL.EMBEDDING.SOLVER.OPTIMIZER", "Adm"), "MODEL.EMBEDDING.SOLVER.OPTIMIZER: no "),
        (("MODEL.DEVICE", "tpu9"), "MODEL.DEVICE: no device"),
    ],
)
def test_what_could_not_run_is_refused_before_anything_is_read(root, opts, fault):
    args = ["embedding", "--config-file", str(root / "config.yaml"), *opts]
    with pytest.raises(DataError, match=fault):
        embedding.read_config(get_parser().parse_args(args))


def test_bad_input_is_one_line(root, repo_root):
    (root / "labels.json").write_text("{")
    words = ["python", "tools/train_embedding.py", "--config-file", str(root / "config.yaml")]
    line = shlex.join([*words, "OUTPUT_DIR", str(root / "output")])
    done = run_line(line, repo_root, DETECTRON2_DATASETS=str(root))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith(f"{root / 'labels.json'}: not readable as JSON")

"""Weights of the zoo and their cards are made, from the training to the package's folder, by one command."""

import hashlib
import json

import pytest
import torch

from experiments import runs, zoo
from experiments.__main__ import main
from lens_d2.evaluation.operating_points import OperatingPoints
from lens_d2.io.checkpoint import load_weights
from lens_d2.io.zoo import CARDS, weights_file, weights_names


def write_evaluation(folder):
    """What an evaluation of two outputs leaves: one lesion hit, one false positive."""
    folder.mkdir(parents=True)
    (folder / "ground_truth.json").write_text(json.dumps({"000001_01_01_001-009": [[1, 1, 3, 9, 9, 5]]}))
    hit, miss = [1, 1, 3, 9, 9, 5, 0.9], [20, 20, 3, 29, 29, 5, 0.4]
    for name in ("", "_luna"):
        (folder / f"predictions{name}.json").write_text(json.dumps({"000001_01_01_001-009": [hit, miss]}))
    own = {"fps": [0.125, 8], "sensitivity": [0.25, 0.75], "average_sensitivity": 0.5}
    own |= {"average_sensitivity_ci": [0.4, 0.6], "num_volumes": 1, "num_lesions": 1}
    better = {**own, "average_sensitivity": 0.5625}
    (folder / "metrics.json").write_text(json.dumps({**own, "experts": {"luna": better, "lits": own}}))


def write_manifest(cohort):
    """The part of a cohort's manifest that cards cite."""
    cohort.mkdir(parents=True)
    (cohort / "phantom.json").write_text(json.dumps({"generator": 2, "plan": {"missing_rate": 0.75}}))


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """Calls of the project's commands; training leaves what train_net.py would."""
    calls = []

    def call(*words):
        calls.append([str(word) for word in words])
        if words[0] == "datasets/prepare_phantom.py":
            write_manifest(words[words.index("--output") + 1])
        if words[0] != "train_net.py":
            return
        folder = words[words.index("OUTPUT_DIR") + 1]
        for name in (zoo.VALIDATION, zoo.TEST):
            write_evaluation(folder / "inference" / name)
        torch.save({"model": {"backbone.a": torch.ones(2), "head.b": torch.ones(2)}}, folder / "model_final.pth")

    monkeypatch.setattr(runs, "call", call)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return calls


def test_a_detector_with_its_operating_points(commands, tmp_path):
    assert main(["zoo", "phantom/lens_multi", "--output", str(tmp_path / "out"), "--size", "tiny"]) == 0
    assert [words[0] for words in commands] == [
        "datasets/prepare_phantom.py", "datasets/prepare_datasets.py", "train_net.py",
    ]  # fmt: skip
    packed = load_weights(str(tmp_path / "out/weights/phantom/lens_multi.pth"))
    assert set(packed["model"]) == {"backbone.a", "head.b"} and set(packed["operating_points"]) == {
        "fused",
        "luna",
    }
    points = OperatingPoints.from_dict(packed["operating_points"]["fused"])
    assert points.thresholds == {0.5: 0.9, 1.0: 0.4, 4.0: 0.4} and "tiny, seed 100" in points.source


def test_a_backbone_alone(commands, tmp_path):
    prepared = tmp_path / "out/large_7/prepared.json"
    write_manifest(prepared.with_name("phantom"))
    prepared.write_text("{}")
    words = ["zoo", "phantom/backbone", "--output", str(tmp_path / "out"), "--cohort-seed", "7"]
    assert main([*words, "--opts", "SEED", "3"]) == 0
    (training,) = commands
    assert training[0] == "train_net.py" and training[-2:] == ["SEED", "3"]
    facts = json.loads((tmp_path / "out/cards/phantom/backbone.json").read_text())
    made_by = "python -m experiments zoo phantom/backbone --cohort-seed 7 --opts SEED 3"
    assert (facts["command"], facts["training_seed"]) == (made_by, 3)
    packed = load_weights(str(tmp_path / "out/weights/phantom/backbone.pth"))
    assert set(packed) == {"model", "note"} and set(packed["model"]) == {"backbone.a"}


def test_packing_replaces_weights_facts_card_and_list(commands, tmp_path, monkeypatch):
    for name in ("WEIGHTS", "CARDS"):
        monkeypatch.setattr(zoo, name, tmp_path / name.lower())
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    words = ["zoo", "phantom/lens_multi", "--output", str(tmp_path / "out"), "--size", "tiny", "--pack"]
    assert main(words) == 0
    facts = json.loads((tmp_path / "cards/phantom/lens_multi.json").read_text())
    digest = hashlib.sha256((tmp_path / "weights/phantom/lens_multi.pth").read_bytes()).hexdigest()
    assert facts["files"]["phantom/lens_multi"]["sha256"] == digest
    card = (tmp_path / "cards/phantom/lens_multi.md").read_text()
    assert digest in card and "| luna | 0.250, 0.750 | 0.562 (0.400 to 0.600) |" in card
    assert "0.500 (0.400 to 0.600) | luna 0.562 |" in (tmp_path / "MODEL_ZOO.md").read_text()


def test_nothing_to_do_is_a_line(capsys):
    assert main(["zoo"]) == 2 and capsys.readouterr().err.startswith("NAME: not given: phantom/backbone, ")


@pytest.mark.parametrize("name", weights_names())
def test_what_the_package_has_is_what_its_card_says(name):
    model = next(known for known in zoo.RECIPES if name == known or name.startswith(f"{known}."))
    file = json.loads((CARDS / f"{model}.json").read_text())["files"][name]
    assert file["sha256"] == hashlib.sha256(weights_file(name).read_bytes()).hexdigest()


def test_cards_and_list_are_those_that_the_facts_give(monkeypatch, tmp_path, repo_root):
    wanted = {path.relative_to(CARDS): path.read_text() for path in CARDS.rglob("*.md")}
    for path in CARDS.rglob("*.json"):
        target = tmp_path / "cards" / path.relative_to(CARDS)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    monkeypatch.setattr(zoo, "CARDS", tmp_path / "cards")
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    assert main(["zoo", "--card"]) == 0
    cards = tmp_path / "cards"
    assert {path.relative_to(cards): path.read_text() for path in cards.rglob("*.md")} == wanted
    assert (tmp_path / "MODEL_ZOO.md").read_text() == (repo_root / "MODEL_ZOO.md").read_text()

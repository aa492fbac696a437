"""tools/demo.py: its steps are commands that exist, and what it shows is what they wrote."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from lens_d2.io.errors import DataError


@pytest.fixture(scope="module")
def demo(load_script):
    return load_script("tools/demo.py")


@pytest.fixture
def written(demo, tmp_path):
    """An output folder as the steps of a run leave it."""
    inference = tmp_path / "training/inference"
    for place, name in enumerate((demo.TEST_SET, "phantom_luna_val")):
        numbers = {"fps": [0.125, 8], "sensitivity": [0.25, 0.5 + place / 4], "average_sensitivity": 0.375}
        (inference / name / "overlays").mkdir(parents=True)
        (inference / name / "overlays/one.png").write_bytes(b"picture " + name.encode())
        (inference / name / "froc.png").write_bytes(b"plot " + name.encode())
        (inference / name / "metrics.json").write_text(json.dumps({**numbers, "experts": {"luna": numbers}}))
    (tmp_path / "training/model_final.pth").write_bytes(b"weights")
    (tmp_path / "training/metrics.json").write_text('{"loss": 1}\n{"loss": 0.5}\n')
    return tmp_path


def test_steps_are_commands_of_the_project(demo, repo_root, tmp_path):
    commands = list(demo.steps(tmp_path, "small", 3, ["SOLVER.MAX_ITER", "5"]).values())
    scripts = ["datasets/prepare_phantom.py", "datasets/prepare_datasets.py", "train_net.py"]
    assert [command[0] for command in commands] == scripts
    assert all((repo_root / script).is_file() for script in scripts)
    assert commands[-1][-2:] == ["SOLVER.MAX_ITER", "5"]


def test_steps_have_options_that_the_commands_take(demo, repo_root, tmp_path):
    for script, *options in list(demo.steps(tmp_path, "small", 0, []).values())[:2]:
        source = (repo_root / script).read_text()
        assert [o for o in options if o.startswith("--") and f'"{o}"' not in source] == []


def test_config_evaluates_the_set_that_is_shown_and_no_model_key_is_overridden(demo, repo_root, tmp_path):
    config = yaml.safe_load((repo_root / demo.CONFIG).read_text())
    assert demo.TEST_SET in config["DATASETS"]["TEST"]
    training = demo.steps(tmp_path, "small", 0, [])["Training and evaluating"]
    assert training[1:] == ["--config-file", demo.CONFIG, "OUTPUT_DIR", str(tmp_path / "training")]


def test_environment_points_to_the_cohort_and_keeps_what_the_user_set(demo, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    environment = demo.environment(tmp_path)
    assert environment["DETECTRON2_DATASETS"] == str(tmp_path / "data")
    assert environment["OMP_NUM_THREADS"] == "3"
    assert 1 <= int(environment["MKL_NUM_THREADS"]) <= min(os.cpu_count(), 8)


def test_collects_the_evaluation_apart_from_the_training_events(demo, written):
    metrics = demo.collect(written)
    assert metrics == json.loads((written / "metrics.json").read_text())
    assert set(metrics) == {demo.TEST_SET, "phantom_luna_val"}
    assert (written / "training/metrics.json").read_text().count("loss") == 2
    assert (written / "model_final.pth").read_bytes() == b"weights"
    assert (written / "froc.png").read_bytes() == b"plot " + demo.TEST_SET.encode()
    assert (written / "overlays/one.png").read_bytes() == b"picture " + demo.TEST_SET.encode()


def test_summary_has_every_set_every_expert_and_every_place(demo, written):
    text = demo.summary(demo.collect(written), written)
    rows = {line.split("  ")[0]: line.split()[-3:] for line in text.splitlines() if line.startswith("phantom")}
    assert rows == {
        f"{demo.TEST_SET}, fused": ["0.250", "0.500", "0.375"],
        "phantom_luna_val, fused": ["0.250", "0.750", "0.375"],
        f"{demo.TEST_SET}, luna alone": ["0.250", "0.500", "0.375"],
    }
    for name in ("froc.png", "overlays", "metrics.json", "model_final.pth", "training"):
        assert str(written / name) in text


def test_second_run_removes_results_and_nothing_else(demo, written):
    demo.collect(written)
    (written / "data").mkdir()
    (written / "notes.txt").write_text("mine")
    demo.remove_old(written)
    assert sorted(path.name for path in written.iterdir()) == ["data", "notes.txt"]
    demo.remove_old(written)


def test_failing_step_ends_the_demo_and_names_itself(demo, tmp_path):
    with pytest.raises(DataError, match=r"tools/none.py: ended with exit code \d+"):
        demo.run("Nothing", ["tools/none.py"], demo.environment(tmp_path))


def test_bad_option_of_a_step_is_reported_before_anything_is_trained(repo_root, tmp_path):
    run = subprocess.run(
        [sys.executable, "tools/demo.py", "--output", tmp_path, "--size", "colossal"],
        cwd=repo_root,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2
    assert "datasets/prepare_phantom.py: ended with exit code 2" in run.stderr.splitlines()[-1]
    assert "colossal" in run.stderr
    assert not (tmp_path / "training").exists()

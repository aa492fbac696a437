"""tools/demo.py: its steps are commands that exist, and what it shows is what they wrote."""

import json
import os
import subprocess
import sys

import pytest

from lens_d2.commands.options import get_parser
from lens_d2.config import load_config
from lens_d2.io.errors import DataError

PLACES = ("scan/report.html", "froc.png", "overlays", "metrics.json", "model_final.pth")


@pytest.fixture(scope="module")
def demo_tool(load_script):
    return load_script("tools/demo.py")


@pytest.fixture
def written(demo_tool, tmp_path):
    """An output folder as the steps of a run leave it."""
    for name, average in (("training", 0.25), ("zoo", 0.5)):
        folder = tmp_path / name / "inference" / demo_tool.TEST_SET
        (folder / "overlays").mkdir(parents=True)
        (folder / "overlays/one.png").write_bytes(name.encode())
        metrics = {"average_sensitivity": average, "num_volumes": 31, "experts": {}}
        (folder / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "training/model_final.pth").write_bytes(b"weights")
    (tmp_path / "training/metrics.json").write_text('{"loss": 1}\n{"loss": 0.5}\n')
    for name in ("comparison/froc.png", "scan/report.html"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"both")
    return tmp_path


def test_steps_are_commands_of_the_project(demo_tool, tmp_path):
    steps = demo_tool.steps(tmp_path, "small", 3, ["SOLVER.MAX_ITER", "5"])
    options = {title: get_parser().parse_args(words) for title, words in steps.items()}
    assert [each.command for each in options.values()] == [
        "phantom", "prepare", "train", "train", "compare", "predict",
    ]  # fmt: skip
    training = options["Training and evaluating"]
    assert training.opts[-2:] == ["SOLVER.MAX_ITER", "5"] and not training.eval_only
    cfg = load_config(training.config_file, training.opts)
    assert cfg.DATASETS.TEST == (demo_tool.TEST_SET,)


def test_nothing_that_teaches_is_overridden(demo_tool, tmp_path):
    own = load_config(demo_tool.CONFIG)
    words = demo_tool.steps(tmp_path, "small", 0, [])["Training and evaluating"]
    cfg = load_config(demo_tool.CONFIG, get_parser().parse_args(words).opts)
    cfg.OUTPUT_DIR, cfg.DATASETS.TEST = own.OUTPUT_DIR, own.DATASETS.TEST
    assert cfg == own


def test_environment_points_to_the_cohort_and_keeps_what_the_user_set(demo_tool, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    environment = demo_tool.environment(tmp_path)
    assert environment["DETECTRON2_DATASETS"] == str(tmp_path / "data")
    assert environment["OMP_NUM_THREADS"] == "3"
    assert 1 <= int(environment["MKL_NUM_THREADS"]) <= min(os.cpu_count(), 8)


def test_collects_the_evaluations_apart_from_the_training_events(demo_tool, written):
    metrics = demo_tool.collect(written)
    assert metrics == json.loads((written / "metrics.json").read_text())
    assert (written / "training/metrics.json").read_text().count("loss") == 2
    assert (written / "model_final.pth").read_bytes() == b"weights"
    assert (written / "froc.png").read_bytes() == b"both"
    assert (written / "overlays/one.png").read_bytes() == b"zoo"


def test_summary_has_both_averages_and_five_places(demo_tool, written):
    lines = demo_tool.summary(demo_tool.collect(written), written).splitlines()
    assert lines[0].startswith("Average sensitivity on 31 sub-volumes")
    assert [line.split()[0] for line in lines[1:3]] == ["0.250", "0.500"]
    assert [line.split()[0] for line in lines[4:]] == [str(written / name) for name in PLACES]


def test_what_the_demo_leaves(demo):
    """The whole of it, on the smallest cohort, by the fixture that other tests share."""
    assert all((demo / name).exists() for name in PLACES if name != "overlays")
    metrics = json.loads((demo / "metrics.json").read_text())
    assert set(metrics) == {"training", "zoo"} and metrics["zoo"]["num_volumes"] > 0


def test_second_run_removes_results_and_nothing_else(demo_tool, written):
    demo_tool.collect(written)
    (written / "data/phantom").mkdir(parents=True)
    (written / "notes.txt").write_text("mine")
    demo_tool.remove_old(written)
    assert sorted(path.name for path in written.iterdir()) == ["data", "notes.txt"]
    demo_tool.remove_old(written)


def test_a_folder_that_no_demo_has_written_stays_as_it_is(demo_tool, tmp_path):
    (tmp_path / "training").mkdir()
    (tmp_path / "training/thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="training: is there, and no demo has written it: give another --output"):
        demo_tool.remove_old(tmp_path)
    assert (tmp_path / "training/thesis.txt").is_file()


def test_failing_step_ends_the_demo_and_names_itself(demo_tool, tmp_path):
    with pytest.raises(DataError, match=r"lens-d2 none: ended with exit code 2"):
        demo_tool.run("Nothing", ["none"], demo_tool.environment(tmp_path))


def test_bad_option_of_a_step_is_reported_before_anything_is_trained(repo_root, tmp_path):
    run = subprocess.run(
        [sys.executable, "tools/demo.py", "--output", tmp_path, "--size", "colossal"],
        cwd=repo_root,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2
    assert "lens-d2 phantom: ended with exit code 2" in run.stderr.splitlines()[-1]
    assert "colossal" in run.stderr
    assert not (tmp_path / "training").exists()

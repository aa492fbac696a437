"""FROC, its bootstrap and its tool need neither torch nor Detectron2 nor SimpleITK."""

import json
import os
import subprocess
import sys

import pytest

RUN = """
import importlib.abc, runpy, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "detectron2", "SimpleITK"}:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
sys.argv[0] = "tools/evaluate.py"
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_froc_of_the_tool(golden, repo_root, tmp_path):
    folder = golden / "p3d"
    words = ["--protocol", "p3d", "--ground-truth", folder / "ground_truth.json", "--bootstrap", "20", "--coco"]
    words += ["--predictions", folder / "predictions.json", "--output-dir", tmp_path]
    command = [sys.executable, "-c", RUN, *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(repo_root)}
    run = subprocess.run(command, cwd=repo_root, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    expected = json.loads((folder / "expected.json").read_text())["cases"][0]
    assert metrics["sensitivity"] == pytest.approx(expected["sensitivity"], abs=1e-6)
    assert "sensitivity_ci" in metrics and (tmp_path / "froc.png").is_file()

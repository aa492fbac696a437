"""The command ``compare`` on the golden case and half of its detections."""

import json

import pytest

from lens_d2.commands import main


def test_the_better_of_two(repo_root, tmp_path, capsys):
    golden = repo_root / "tests/golden/lens3d"
    truth, good = golden / "ground_truth.json", golden / "predictions.json"
    content = json.loads(good.read_text())
    poor = tmp_path / "poor.json"
    poor.write_text(json.dumps({name: rows[len(rows) // 2 :] for name, rows in content.items()}))
    words = [
        "--protocol",
        "lens3d",
        "--ground-truth",
        truth,
        "--predictions",
        poor,
        good,
        "--output",
        tmp_path,
        "--names",
        "half",
        "whole",
    ]
    assert main(["compare", *map(str, words)]) == 0
    comparison = json.loads((tmp_path / "comparison.json").read_text())
    assert list(comparison["metrics"]) == ["A: half", "B: whole"]
    averages = [metrics["average_sensitivity"] for metrics in comparison["metrics"].values()]
    assert comparison["difference"] == pytest.approx(averages[1] - averages[0]) and comparison["difference"] > 0
    assert (tmp_path / "froc.png").stat().st_size > 10_000 and "B - A: +" in capsys.readouterr().out

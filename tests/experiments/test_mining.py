"""Mining over several seeds: whose figure it takes from an evaluation, and what it sums up."""

import json

import pytest

from experiments import mining, runs
from experiments.__main__ import main


def evaluation(value: float) -> dict:
    return {"lens3d": {"average_sensitivity": value}, "luna": {"average_sensitivity": 0.9}, "bbox": {"AP": 3.0}}


def test_the_models_own_figure_on_the_named_dataset():
    both = {"a": evaluation(0.2), "b": evaluation(0.3)}
    assert mining.average_sensitivity(both, "b") == 0.3
    assert mining.average_sensitivity(evaluation(0.4), "b") == 0.4


def test_every_stage_of_every_seed_is_in_the_results(tmp_path, monkeypatch, capsys):
    commands, measured = [], []

    def call(*command):
        commands.append([str(word) for word in command])
        folder = command[command.index("OUTPUT_DIR") + 1]
        for number, stage in enumerate(mining.STAGES):
            result = {"ledger": "mined.parquet", "metrics": evaluation(0.1 * number + 0.01 * command[-1])}
            (folder / stage).mkdir(parents=True)
            (folder / stage / "stage.json").write_text(json.dumps({"result": result}))

    monkeypatch.setattr(runs, "call", call)
    monkeypatch.setattr(mining.mined, "report", lambda *args: measured.append(args))
    words = ["--seeds", "1", "3", "--output", str(tmp_path), "--", "SOLVER.MAX_ITER", "9"]
    assert main(["mining", *words]) == 0
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["seeds"]["3"]["+ mining, retrained"] == pytest.approx(0.13)
    assert written["mean"]["annotations alone"] == pytest.approx(0.02)
    printed = capsys.readouterr().out
    assert "seed 3" in printed
    assert (tmp_path / "results.md").read_text() in printed
    assert commands[0][0] == "train_net.py" and commands[0][4:6] == ["SOLVER.MAX_ITER", "9"]
    assert measured[0] == ("mined.parquet", ["phantom_deeplesion_train"], tmp_path / "seed_1/mining.md")

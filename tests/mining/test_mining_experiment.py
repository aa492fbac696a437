"""The experiment over several seeds: whose figure it takes from an evaluation, and what it sums up."""

import json

import pytest


@pytest.fixture(scope="module")
def tool(load_script):
    return load_script("tools/mining_experiment.py")


def evaluation(value: float) -> dict:
    return {"lens3d": {"average_sensitivity": value}, "luna": {"average_sensitivity": 0.9}, "bbox": {"AP": 3.0}}


def test_the_models_own_figure_on_the_named_dataset(tool):
    both = {"a": evaluation(0.2), "b": evaluation(0.3)}
    assert tool.average_sensitivity(both, "b") == 0.3
    assert tool.average_sensitivity(evaluation(0.4), "b") == 0.4


def test_every_stage_of_every_seed_is_in_the_results(tool, tmp_path, monkeypatch, capsys):
    commands = []

    def run(*command):
        commands.append([str(word) for word in command])
        if command[0] != "train_net.py":
            return
        folder = command[command.index("OUTPUT_DIR") + 1]
        for number, stage in enumerate(tool.STAGES):
            result = {"ledger": "mined.parquet", "metrics": evaluation(0.1 * number + 0.01 * command[-1])}
            (folder / stage).mkdir(parents=True)
            (folder / stage / "stage.json").write_text(json.dumps({"result": result}))

    monkeypatch.setattr(tool, "run", run)
    tool.main(["--seeds", "1", "3", "--output", str(tmp_path), "--", "SOLVER.MAX_ITER", "9"])
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["seeds"]["3"]["+ mining, retrained"] == pytest.approx(0.13)
    assert written["mean"]["annotations alone"] == pytest.approx(0.02)
    assert "seed 3" in capsys.readouterr().out
    assert ["SOLVER.MAX_ITER", "9"] == commands[0][4:6] and "mined.parquet" in commands[1]

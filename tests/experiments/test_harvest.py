"""Harvesting over several seeds: what it runs, and what it makes of the results."""

import json

import pytest

from experiments import harvest, runs
from experiments.__main__ import main
from lens_d2.data.ledger.table import LedgerRow, read_ledger, to_table, write_ledger


def row(number, status):
    return LedgerRow(
        f"r{number}", "v", 2, 1.0, 1.0, 5.0, 5.0, f"l{number}", "LesionHarvester", 1, 0.5, float("nan"), "", status
    )


def test_every_seed_is_harvested_and_detected(tmp_path, monkeypatch, capsys):
    calls = []

    def train(args, folder, *opts):
        calls.append((folder.relative_to(args.output).as_posix(), dict(zip(opts[::2], opts[1::2], strict=True))))
        stage = folder / ("harvest" if "DATASETS.LEDGER" not in opts else "retrain")
        stage.mkdir(parents=True)
        rows = [
            {"labels": "R_H", "R@100P": 0.4},
            {"labels": "P_H,1", "R@90P": 0.6},
            {"labels": "P_H,1^+", "R@90P": 0.5},
        ]
        (stage / "table.json").write_text(json.dumps(rows))
        ap = {"detector_lesions": 0.3, "detector_ordinary": 0.35, "detector_hnsl": 0.4}.get(folder.name)
        result = {"ledger": str(stage / "ledger.csv"), "metrics": {"p3d": {"ap": ap, "average_sensitivity": 0.5}}}
        write_ledger(stage / "ledger.csv", [to_table([row(0, "annotation"), row(1, "hard_negative")])])
        (stage / "stage.json").write_text(json.dumps({"result": result}))

    monkeypatch.setattr(runs, "train", train)
    assert main(["harvest", "--seeds", "1", "2", "--output", str(tmp_path)]) == 0
    assert [name for name, _ in calls[:4]] == [
        "seed_1", "seed_1/detector_lesions", "seed_1/detector_ordinary", "seed_1/detector_hnsl",
    ]  # fmt: skip
    assert [opts["SEED"] for _, opts in calls] == [1] * 4 + [2] * 4
    suppressed = [opts.get(harvest.SUPPRESS[0]) for _, opts in calls[1:4]]
    assert suppressed == ["False", "False", "True"]
    without, *both = (opts["DATASETS.LEDGER"] for _, opts in calls[1:4])
    assert read_ledger(without)["status"].tolist() == ["annotation"]
    assert both == [str(tmp_path / "seed_1/harvest/ledger.csv")] * 2
    mean = json.loads((tmp_path / "results.json").read_text())["mean"]
    assert mean == {
        "original marks": 0.4, "P_H,1, R@90P": 0.6, "P_H,1^+, R@90P": 0.5, "gain at 90P": pytest.approx(0.1),
        "AP, lesions": 0.3, "AP, ordinary": 0.35, "AP, hnsl": 0.4, "AP, hnsl - lesions": pytest.approx(0.1),
    }  # fmt: skip
    assert "seed 2" in capsys.readouterr().out
    assert len((tmp_path / "results.md").read_text().splitlines()) == 10


def test_the_average_precision_of_an_evaluation_among_other_measures():
    one = {"p3d": {"ap": 0.4, "sensitivity@1": 0.3}, "bbox": {"AP": 12.0}}
    assert harvest.average_precision(one) == 0.4
    assert harvest.average_precision({"a": one, "b": {"p3d": {"ap": 0.2}}}) == pytest.approx(0.3)
    assert harvest.average_precision({"bbox": {"AP": 12.0}}) is None

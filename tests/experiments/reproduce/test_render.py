"""Pages from records alone."""

import json
import sys
from types import MappingProxyType

import pytest
import yaml

from experiments.__main__ import main
from experiments.reproduce.records import record_path
from experiments.reproduce.tables import read_table

HIT, MISS = {"hits": [[0.9], [0.8]], "false_positives": [[], [0.1]]}, {"hits": [[0.9], [None]]}
MISS["false_positives"] = [[0.5], []]


@pytest.fixture
def page(tmp_path):
    """page(seeds, ...) writes the records of two rows, renders, and gives the lines of the table by name."""
    path = tmp_path / "small.yaml"
    content = {
        "title": "A table",
        "source": "Paper, Table 0",
        "cohort": {"size": "tiny", "seed": 0},
        "dataset": "d",
        "config": "configs/phantom/lens_multi.yaml",
        "columns": {"Average": "average_sensitivity", "Parameters": "parameters", "Boxes": "boxes"},
        "runs": {"lens": {"opts": {"SEED": 2}}},
        "rows": [
            {"name": "first", "paper": {"Average": 36.8, "Parameters": "1×"}},
            {
                "name": "second",
                "opts": {"SEED": 2},
                "stage": "train",
                "output": "luna",
                "paper": {"Average": 39.4},
            },
            {"name": "third", "opts": {"SEED": 3}, "against": "first"},
        ],
        "notes": "Seen by eye.",
    }
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    table = read_table(str(path))

    def render(made, options=(), generators=MappingProxyType({}), status=0, **more):
        path.write_text(yaml.safe_dump(content | more, sort_keys=False))
        for (name, seed), (events, average) in made.items():
            row = next(row for row in table.rows if row.name == name)
            metrics = {
                "protocol": "lens3d",
                "fps": [1.0],
                "sensitivity": [average],
                "average_sensitivity": average,
            }
            evaluation = {
                "metrics": {**metrics, "experts": {"luna": metrics}},
                "volumes": ["v", "w"],
                "events": {"": events, "luna": events},
            }
            record = {"run": row.run.describe(), "seed": seed, "commit": "abc1234", "seconds": 1800}
            record["cohort"] = {
                "size": table.cohort.size,
                "seed": table.cohort.seed,
                "generator": generators.get(name),
            }
            record |= {"machine": {"cpu": "CPU", "threads": 1, "torch": "2"}, "device": "cpu"}
            record |= {"evaluations": {row.stage: {"d": evaluation}}, "numbers": {"parameters": 2.5e6}}
            out = record_path(tmp_path / "out", row.run, table.cohort, seed)
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(record))
        words = ["--table", str(path), "--seeds", "1", "2", "--output", str(tmp_path / "out"), "--render"]
        assert main(["reproduce", *words, *options]) == status
        if status:
            return None
        text = (tmp_path / "out/small.md").read_text()
        cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line]
        return text, cells[2:]

    return render


def test_means_deviations_and_paired_differences_beside_the_paper(page, tmp_path):
    made = {("first", seed): (MISS, 0.4 + 0.1 * seed) for seed in (1, 2)}
    text, cells = page(made | {("second", seed): (HIT, 1.0) for seed in (1, 2)})
    assert cells[0] == ["first", "55.0 ± 7.1", "2.500 M", "–", "", "2 of 2"]
    assert cells[1] == ["*paper*", "36.8", "1×", "", "", ""]
    assert cells[2][:4] == ["second", "100.0 ± 0.0", "2.500 M", "–"]
    assert cells[2][4].startswith("+") and " to " in cells[2][4] and cells[2][5] == "2 of 2"
    assert cells[3][:2] == ["*paper*", "39.4"] and cells[3][4] == "+2.6"
    assert cells[4] == ["third", "–", "–", "–", "– vs first", "0 of 2"]
    assert "# A table" in text and "commit abc1234; CPU, 1 thread, torch 2; 2.0 hours" in text
    assert "![FROC" in text and (tmp_path / "out/small.png").stat().st_size > 10_000


def test_differences_are_over_the_seeds_that_both_rows_have(page):
    _, cells = page({("first", 1): (MISS, 0.5), ("first", 2): (HIT, 1.0), ("second", 2): (HIT, 1.0)})
    assert cells[2][4] == "+0.0 (+0.0 to +0.0)" and cells[2][5] == "1 of 2"


def test_differences_are_shown_as_their_metric_is(page):
    made = {("first", 1): (MISS, 0.5), ("second", 1): (HIT, 1.0)}
    text, cells = page(made, compare="parameters")
    assert cells[2][4] == "+0.000" and "Difference: of `parameters`" in text


def test_records_of_two_generators_are_not_compared(page, capsys):
    made = {("first", 1): (MISS, 0.5), ("second", 1): (HIT, 1.0)}
    page(made, generators={"first": {"generator": 1}, "second": {"generator": 2}}, status=2)
    assert "another generator or plan wrote its cohort" in capsys.readouterr().err


def test_the_share_of_a_gap_that_a_row_recovers(page):
    some = {"hits": [[0.9], [0.4]], "false_positives": [[0.5], []]}
    rows = {("first", 1): (MISS, 0.5), ("second", 1): (HIT, 1.0), ("third", 1): (some, 1.0)}
    text, cells = page(rows, gap=["first", "second"])
    shares = {line[0]: line[5] for line in cells}
    assert shares["first"] == shares["second"] == ""
    assert shares["third"] == "71% (71% to 100%)"  # the second lesion from half a false positive on, 5 of 7 rates
    assert "Of the gap: of the way from 'first' to 'second'" in text
    _, cells = page(dict.fromkeys(rows, (MISS, 0.5)), gap=["first", "second"])
    assert {line[0]: line[5] for line in cells}["third"] == "–"  # no way to go


def test_points_of_rows_in_a_figure(page, monkeypatch):
    drawn = []
    module = sys.modules["experiments.reproduce.render"]
    monkeypatch.setattr(module, "plot_panels", lambda path, *words: drawn.append(words))
    rows = [
        {"name": name, "opts": {"SEED": n}, "stage": "", "point": ["LUNA", line, x]}
        for n, (name, line, x) in enumerate(
            [("first", "single", 10), ("second", "joint", 10), ("third", "joint", 50)]
        )
    ]
    rows[0].pop("opts")
    rows[1] |= {"stage": "train", "opts": {"SEED": 2}}
    rows[2]["opts"] = {"SEED": 3}
    made = {("first", seed): (MISS, 0.25 * seed) for seed in (1, 2)} | {("second", 1): (HIT, 1.0)}
    text, _ = page(made, rows=rows, figure=False, points="Volumes (%)")
    assert drawn == [
        ({"LUNA": {"single": {10: [0.25, 0.5]}, "joint": {10: [1.0]}}}, "Volumes (%)", "Average", "A table")
    ]
    assert "![Average, means over the seeds](small.png)" in text
    drawn.clear()
    page({}, rows=rows, figure=False)
    assert drawn == []


def test_without_any_record_everything_is_a_dash(page):
    text, cells = page({})
    assert cells[0] == ["first", "–", "–", "–", "", "0 of 2"] and "![FROC" not in text
    assert cells[2][4] == "–"


def test_notes_stand_under_no_other_figures(page):
    own = ["--size", "tiny", "--cohort-seed", "0", "--seeds", "1", "2", "3"]
    made = {("first", 1): (HIT, 1.0)}
    assert "Seen by eye." not in page({}, own)[0]
    assert page(made, own)[0].rstrip().endswith("Seen by eye.")
    assert "Seen by eye." not in page(made, ["--seeds", "1", "7"])[0]


@pytest.mark.parametrize(("cohort", "opts"), [({"seed": 5}, {}), ({"size": "small"}, {}), ({}, {"SEED": 9})])
def test_notes_are_about_the_files_own_cohort_and_runs(page, tmp_path, cohort, opts):
    page({})
    path = str(tmp_path / "small.yaml")
    assert read_table(path).notes and not read_table(path, cohort, opts).notes


def test_a_page_tells_that_it_is_a_trial(page):
    text, _ = page({}, ["--", "SOLVER.MAX_ITER", "5"])
    assert "Synthetic cohort tiny, seed 0; a trial, with `SOLVER.MAX_ITER 5`." in text

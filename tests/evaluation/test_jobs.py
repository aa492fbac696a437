"""Options of the tools and how they end."""

import argparse

import pytest

from lens_d2.evaluation.jobs import add_arguments, open_job, run
from lens_d2.io.errors import DataError
from lens_d2.io.formats import HARVESTER, LENS

NAME = "000001_01_01_010-029"


@pytest.fixture
def files(write):
    """The options of truth and predictions that are sound and have nothing in them."""
    return "--ground-truth", write("t.json", {NAME: []}), "--predictions", write("p.json", {NAME: []})


@pytest.mark.parametrize(
    ("protocol", "options"),
    [
        ("p3d", ("--metric", "IOU")),
        ("lens3d", ("--excluded", "x.csv")),
        ("lens3d", ("--threshold", "0")),
        ("luna16", ()),  # without --seriesuids
    ],
)
def test_options_of_another_protocol_are_refused(evaluate, files, protocol, options):
    assert evaluate("--protocol", protocol, *files, *options)[0] == 2


def test_an_output_folder_that_cannot_be_made(load_tool, files, write, capsys):
    words = ["--protocol", "lens3d", *files, "--output-dir", write("blocked", "a file") / "results"]
    assert load_tool("evaluate").main([str(word) for word in words]) == 2
    assert "blocked" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "frame"),
    [("lens3d", LENS), ("lens3d --box-order xyxyzz", HARVESTER), ("p3d", HARVESTER)],
)
def test_a_job_knows_how_its_files_count(write, words, frame):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    truth = [["--ground-truth", str(write("t.json", {NAME: {} if words == "p3d" else []}))]]
    job = open_job(parser.parse_args(["--protocol", *words.split(), *truth[0], "--output", "out"]))
    assert job.frame == frame and job.truth.volumes == [NAME]


def test_bad_input_ends_a_tool_with_one_line(capsys):
    def fail():
        raise DataError("a.json", "is empty")

    assert run(fail) == 2 and capsys.readouterr().err == "a.json: is empty\n"
    assert run(lambda: None) == 0
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 / 0)

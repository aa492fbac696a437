"""Options that choose a protocol, and how a wrong choice ends."""

import pytest

from lens_d2.commands import main
from lens_d2.commands.options import get_parser
from lens_d2.evaluation.jobs import open_job
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


def test_an_output_folder_that_cannot_be_made(files, write, capsys):
    words = ["--protocol", "lens3d", *files, "--output-dir", write("blocked", "a file") / "results"]
    assert main(["evaluate", *map(str, words)]) == 2
    assert "blocked" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "frame"),
    [("lens3d", LENS), ("lens3d --box-order xyxyzz", HARVESTER), ("p3d", HARVESTER)],
)
def test_a_job_knows_how_its_files_count(write, words, frame):
    truth = str(write("t.json", {NAME: {} if words == "p3d" else []}))
    options = ["--ground-truth", truth, "--predictions", "p.json", "--output", "out"]
    job = open_job(get_parser().parse_args(["evaluate", "--protocol", *words.split(), *options]))
    assert job.frame == frame and job.truth.volumes == [NAME]

"""The command ``zoo``: what it lists, and the card of a model."""

import pytest

from lens_d2.commands import main
from lens_d2.io.zoo import weights_names


def test_the_list(capsys):
    assert main(["zoo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[2:]] == [[name, f"lens_d2://{name}"] for name in weights_names()]


@pytest.mark.parametrize("name", weights_names())
def test_every_model_has_a_card(name, capsys):
    assert main(["zoo", name]) == 0
    assert name in capsys.readouterr().out.splitlines()[0]


def test_an_unknown_model_is_a_line(capsys):
    assert main(["zoo", "phantom/lens"]) == 2
    assert capsys.readouterr().err.startswith("phantom/lens: no such model in the zoo")

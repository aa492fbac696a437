"""Addresses of the package's own weights."""

from urllib.error import URLError

import pytest
import torch
from detectron2.utils.file_io import PathManager

from lens_d2.io import zoo
from lens_d2.io.checkpoint import LENSCheckpointer, load_weights
from lens_d2.io.errors import DataError


@pytest.fixture
def weights(tmp_path, monkeypatch):
    (tmp_path / "phantom").mkdir()
    torch.save({"model": {"a": torch.ones(2)}}, tmp_path / "phantom/small.pth")
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path)
    return tmp_path


def test_an_address_is_a_file_for_whoever_opens_it(weights):
    assert zoo.weights_names() == ["phantom/small"]
    assert PathManager.get_local_path("lens_d2://phantom/small") == str(weights / "phantom/small.pth")
    assert PathManager.isfile("lens_d2://phantom/small.pth")
    assert load_weights("lens_d2://phantom/small")["model"]["a"].tolist() == [1, 1]
    with PathManager.open("lens_d2://phantom/small", "rb") as file:
        assert file.read(2) == b"PK"
    assert zoo.local_path("here/model.pth") == "here/model.pth"


@pytest.mark.parametrize("load", [load_weights, zoo.local_path, LENSCheckpointer(torch.nn.Linear(1, 1)).load])
def test_an_address_that_cannot_be_reached_is_named(monkeypatch, load):
    def get(path, **_):
        raise URLError("no such host")

    monkeypatch.setattr(PathManager, "get_local_path", get)
    with pytest.raises(DataError, match="https://here.invalid/a.pth: cannot be fetched .*no such host"):
        load("https://here.invalid/a.pth")


@pytest.mark.parametrize("name", ["phantom/smal", "../weights/phantom/small", "phantom"])
def test_other_names_are_refused_in_a_line(weights, name):
    with pytest.raises(DataError, match="no such weights in the model zoo"):
        load_weights(f"lens_d2://{name}")

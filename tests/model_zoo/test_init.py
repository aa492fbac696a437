"""Models by name, as in Detectron2's model zoo."""

import pytest
import torch

from lens_d2 import model_zoo
from lens_d2.io import zoo
from lens_d2.io.errors import DataError
from lens_d2.model_zoo.pack import pack_weights


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A zoo whose phantom/lens_full has a detector and a classifier."""
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path)
    torch.manual_seed(0)
    model = model_zoo.get("phantom/lens_full", device="cpu")
    torch.save({"model": model.state_dict()}, tmp_path / "model.tmp")
    for role in ("", ".fpr"):
        pack_weights(tmp_path / "model.tmp", tmp_path / f"phantom/lens_full{role}.pth")
    return model


def test_a_trained_model_has_the_weights_of_its_address(trained):
    model = model_zoo.get("phantom/lens_full", trained=True)
    assert not model.training and model_zoo.names() == ["phantom/lens_full"]
    for own, expected in zip(model.state_dict().values(), trained.state_dict().values(), strict=True):
        torch.testing.assert_close(own, expected, rtol=2e-3, atol=1e-4)


def test_a_trained_config_names_the_weights_of_all_its_networks(trained):
    assert model_zoo.get_checkpoint_url("phantom/lens_full.yaml") == "lens_d2://phantom/lens_full"
    cfg = model_zoo.get_config("phantom/lens_full", trained=True)
    assert (cfg.MODEL.WEIGHTS, cfg.MODEL.FPR.WEIGHTS) == (
        "lens_d2://phantom/lens_full",
        "lens_d2://phantom/lens_full.fpr",
    )
    assert model_zoo.get_config("phantom/lens_full").MODEL.WEIGHTS == ""
    assert model_zoo.get_config_file("phantom/lens_full").endswith("configs/phantom/lens_full.yaml")


@pytest.mark.parametrize("name", ["phantom/lens_ful", "nothing/at/all"])
def test_unknown_names(trained, name):
    with pytest.raises(DataError, match="no such config file"):
        model_zoo.get_config_file(name)
    with pytest.raises(DataError, match="no such weights in the model zoo"):
        model_zoo.get_checkpoint_url(name)
    with pytest.raises(DataError, match="no such weights in the model zoo"):
        model_zoo.get("phantom/lens_multi", trained=True)

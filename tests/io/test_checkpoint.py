"""Checkpoints are complete or absent, run no code, and fit the network."""

from pathlib import Path

import pytest
import torch

from lens_d2.io.checkpoint import LENSCheckpointer, load_weights
from lens_d2.io.errors import DataError


def test_a_checkpoint_is_complete_or_absent(tmp_path, monkeypatch):
    model = torch.nn.Linear(2, 2)
    checkpointer = LENSCheckpointer(model, str(tmp_path))
    checkpointer.save("model")

    def die(path, data):
        with open(path, "wb") as stream:
            stream.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", die)
    with pytest.raises(KeyboardInterrupt):
        checkpointer.save("model")
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model.pth")
    checkpointer.load(str(tmp_path / "model.pth"))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"model_0000007.pth", "names model_0000007.pth, which is not there: write one of model.pth into it"),
        (b"", "names no checkpoint: write one of model.pth into it, or begin anew"),
        (b"\xff\x00", "which is not there"),
    ],
)
def test_a_newest_checkpoint_that_is_not_there_is_told(tmp_path, content, fault):
    checkpointer = LENSCheckpointer(torch.nn.Linear(2, 2), str(tmp_path))
    assert checkpointer.get_checkpoint_file() == ""
    checkpointer.save("model")
    (tmp_path / "last_checkpoint").write_bytes(content)
    with pytest.raises(DataError, match=fault) as caught:
        checkpointer.resume_or_load("", resume=True)
    assert str(caught.value).startswith(str(tmp_path / "last_checkpoint")) and "\n" not in str(caught.value)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    class Malicious:
        def __reduce__(self):
            return print, ("this must not run",)

    torch.save({"model": Malicious()}, tmp_path / "model.pth")
    with pytest.raises(DataError, match="model.pth"):
        LENSCheckpointer(torch.nn.Linear(2, 2)).load(str(tmp_path / "model.pth"))


@pytest.fixture
def network():
    return torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({"model": {"weight": torch.tensor([1.0, float("nan")])}}, "weight holds NaN or Inf"),
        ({"state_dict": {"weight": torch.zeros(2)}}, "has its tensors below 'state_dict'"),
        ({"model": [torch.zeros(2)]}, "has no tensors by name below 'model'"),
        ({"epoch": 3, "arch": "resnet50", "state_dict": {"weight": torch.zeros(2)}}, "'arch' what is no tensor"),
        ({"state_dict": None}, "'state_dict' what is no tensor"),
        ({"weight": [[1.0], [1.0, 2.0]]}, "'weight' what is no tensor"),
        ({1: torch.zeros(2)}, "1 what is no tensor"),
        ({"model": {}}, "holds nothing"),
    ],
)
def test_weights_that_are_none_are_told(network, tmp_path, content, fault):
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(DataError, match=fault):
        LENSCheckpointer(network).load(str(tmp_path / "model.pth"))


def test_weights_that_are_not_what_was_saved_are_refused(network, tmp_path):
    """A bit of a weight has changed since; torch.load would not notice."""
    path = tmp_path / "model.pth"
    torch.save({"model": network.state_dict()}, path)
    content, weights = bytearray(path.read_bytes()), network[0].weight.detach().numpy().tobytes()
    content[content.index(weights) + 2] ^= 0x40
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged: its content is not what its checksums say"):
        LENSCheckpointer(network).load(str(path))


def test_weights_in_half_precision(network, tmp_path):
    weights = {key: x.bfloat16() if x.is_floating_point() else x for key, x in network.state_dict().items()}
    torch.save({"model": weights}, tmp_path / "model.pth")
    LENSCheckpointer(network).load(str(tmp_path / "model.pth"))
    assert torch.equal(network[0].weight, weights["0.weight"].float())


def test_a_finished_network_is_loaded_whole_or_not_at_all(network, tmp_path):
    """A training starts from a part of the weights, too."""
    part = str(tmp_path / "part.pth")
    torch.save({"model": {k: v for k, v in network.state_dict().items() if k.startswith("0.")}}, part)
    checkpointer = LENSCheckpointer(network, whole=True)
    with pytest.raises(DataError, match=r"part.pth: .*: no 1\.weight there \(4 such keys\)$"):
        checkpointer.load(part)
    LENSCheckpointer(network).load(part)


@pytest.fixture
def one_rank():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_finished_network_may_lack_what_is_no_weight(network, one_rank, tmp_path, prefix):
    """Counters of normalisation, and buffers that no checkpoint has; saved or loaded as a rank, or not."""
    network.register_buffer("pixel_mean", torch.zeros(1), persistent=False)
    state = {prefix + k: v + 1 for k, v in network.state_dict().items() if "num_batches" not in k}
    torch.save({"model": state}, tmp_path / "whole.pth")
    for model in (network, torch.nn.parallel.DistributedDataParallel(network)):
        LENSCheckpointer(model, whole=True).load(str(tmp_path / "whole.pth"))
    for key, value in network.state_dict().items():
        assert "num_batches" in key or torch.equal(value, state[prefix + key])


def test_weights_are_a_state_dict_in_a_file(tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "torn.pth").write_bytes(b"torn")
    for name, fault in (
        ("list", "holds no state_dict"),
        ("torn", "not a file of weights"),
        ("absent", "no such file"),
    ):
        with pytest.raises(DataError, match=f"{name}.pth: {fault}"):
            load_weights(str(tmp_path / f"{name}.pth"))

"""Networks and scans to measure inference on: of the papers' size, with weights that need no training."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import addmm_flop_jit, bmm_flop_jit, matmul_flop_jit
from torch import nn

from lens_d2.config import load_config
from lens_d2.inference.volume import VolumeInference
from lens_d2.modeling.afp import AFP

SIZE, LEVELS = 512, 12


def config(name: str = "lens_multi.yaml", *opts) -> CfgNode:
    """A config of ``configs/`` on the CPU, with random weights."""
    return load_config(name, ["MODEL.DEVICE", "cpu", "MODEL.DENSENET.WEIGHTS", "", *opts])


def network(cfg: CfgNode) -> nn.Module:
    """The model of a config for inference, with random weights; no batch norm is the identity, no box empty."""
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.running_var.uniform_(0.5, 2)
        if isinstance(module, AFP):  # else most boxes are empty, and an expert may have no detection at all
            module.distances[-1].weight.data.mul_(0.1)
            module.distances[-1].bias.data.fill_(6)
    return model.requires_grad_(False)


def write_scan(folder: Path, levels: int = LEVELS, size: int = SIZE, seed: int = 0) -> dict:
    """A record of a scan of ``levels`` slices of 2 mm whose cache frame is (size, size): blobs in noise."""
    rng = np.random.default_rng(seed)
    array = rng.normal(40, 20, (levels, size, size)).astype(np.int16)
    for _ in range(levels):
        x, y = rng.integers(0, size - 40, 2)
        z, side = int(rng.integers(0, levels)), int(rng.integers(6, 40))
        array[z : z + 3, y : y + side, x : x + side] += 60
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.8, 0.8, 2.0))
    path = folder / f"scan_{seed}.mha"
    sitk.WriteImage(image, str(path))
    return {
        "file_name": str(path),
        "volume": path.stem,
        "expert": "deeplesion",
        "num_slices": levels,
        "lesions": [],
    }


@contextmanager
def inference_on_scan(
    *opts, levels: int = LEVELS, size: int = SIZE
) -> Iterator[tuple[CfgNode, VolumeInference, object]]:
    """A config, its inference, and a cached scan."""
    with tempfile.TemporaryDirectory() as folder:
        cfg = config("lens_multi.yaml", "INPUT.CACHE_DIR", folder, *opts)
        inference = VolumeInference(cfg, network(cfg))
        yield cfg, inference, inference.cache.open(write_scan(Path(folder), levels, size))


def sample(cfg: CfgNode, volume, index: int) -> torch.Tensor:
    """(slices, H, W) intensities around an interpolated slice, as slice-by-slice inference reads them."""
    from lens_d2.data.mapper import SliceMapper

    mapper = SliceMapper(cfg, is_train=False)
    ratio = cfg.INPUT.SLICE_INTERVAL / volume.geometry.slice_interval
    return torch.from_numpy(mapper.read(volume, index * ratio))


class _Called(nn.Module):
    """A function as a module, for counting."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *tensors):
        return self.function(*tensors)


@torch.no_grad()
def multiply_adds(function, *tensors: torch.Tensor) -> float:
    """Multiply-adds of a function of tensors, in billions, by fvcore's counter: no elementwise work."""
    counter = FlopCountAnalysis(_Called(function), tensors)
    for name, count in (("aten::mm", matmul_flop_jit), ("aten::bmm", bmm_flop_jit)):  # "out" is a third input
        counter.set_op_handle(name, lambda inputs, outputs, count=count: count(inputs[:2], outputs))
    counter.set_op_handle("aten::addmm_", addmm_flop_jit)
    counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    return counter.total() / 1e9

"""The full-size network on a GPU: inference of a slice, a step of training, equality with the CPU, waiting.

    python -m benchmarks gpu
    python -m benchmarks gpu --device cpu --size 64 --slices 4

Functions under :func:`gpu_measurement` take a :class:`Setting`. On a CPU they can be tried out.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from lens_d2.data.mapper import SliceMapper
from lens_d2.engine import build_optimizer
from lens_d2.inference.volume import VolumeInference
from lens_d2.modeling import selection
from lens_d2.structures.records import make_lesion

from .inference import different, watch
from .networks import config, inference_on_scan, network, sample, write_scan
from .registry import in_turns, machine, peak_mb

# ms a slice: LENS on a Quadro RTX 6000, by its proposal network (LENS, Section VI-B and Table II); CECN, of which
# Lesion-Harvester gives slices a second.
PAPERS_MS = {"AFP": 54.0, "RPN": 62.0, "CenterNet": 59.0, "FCOS, one stage": 29.0, "CECN": 1e3 / 26.6}
BATCH, STEPS, WARM = 4, 10, 3  # of training
SINGLE_SLICES = 4  # of a volume, that run one by one
SIDES = {"cuda": 8192, "cpu": 512}  # of the matrices whose product is the machine's own rate
# Operators after which a program waits for a GPU, as the shape or the value of their result is needed.
WAITING = ("aten::nonzero", "aten::_local_scalar_dense", "torchvision::nms")
# Names by which a profile of a GPU tells of waiting and of copies to the host.
WAITS, COPIES = ("cudaStreamSynchronize", "cudaDeviceSynchronize"), "Memcpy DtoH"


@dataclass(frozen=True)
class Setting:
    """Subject and place of a measurement.

    Attributes:
        device: of the network.
        size: pixels of a slice's sides.
        slices: of the volume.
        repeats: turns that count.
        opts: overrides of the config, key, value, ...
    """

    device: torch.device
    size: int = 512
    slices: int = 32
    repeats: int = 3
    opts: tuple = ()

    @contextmanager
    def inference(self, *opts) -> Iterator[tuple[CfgNode, VolumeInference, object]]:
        """A config, its inference on the device, and a cached scan; the same weights on every device."""
        with inference_on_scan(*self.opts, *opts, levels=self.slices, size=self.size) as (cfg, inference, volume):
            inference.model.to(self.device)
            yield cfg, inference, volume

    def finish(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def timed(self, functions: dict[str, Callable[[], object]]) -> dict[str, float]:
        """Seconds of each function, to the end of its work on the device."""
        whole = {name: lambda f=function: (f(), self.finish()) for name, function in functions.items()}
        return in_turns(whole, self.repeats)

    def peak_mb(self, function: Callable[[], object]) -> float:
        """The most memory that a function takes of the device; of a CPU, that this process has had."""
        if self.device.type != "cuda":
            function()
            return peak_mb()
        torch.cuda.reset_peak_memory_stats(self.device)
        function()
        return torch.cuda.max_memory_allocated(self.device) / 2**20

    def machine(self) -> dict:
        """Device, processor and versions."""
        gpu = {"gpu": torch.cuda.get_device_name(self.device)} if self.device.type == "cuda" else {}
        tf32 = {"tf32_convolutions": torch.backends.cudnn.allow_tf32} if gpu else {}
        return {**gpu, **tf32, **machine()}


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
GPU_MEASUREMENTS: dict[str, Callable[[Setting], dict]] = {}


def gpu_measurement(name: str):
    """Register a function that gives "ratio", "baseline_seconds", "ours_seconds" and "details" of a setting."""

    def register(function: Callable[[Setting], dict]):
        GPU_MEASUREMENTS[name] = function
        return function

    return register


@gpu_measurement("gpu-inference")
@torch.no_grad()
def gpu_inference(setting: Setting) -> dict:
    """A slice's time, memory and share of the device's rate: alone and over a volume, in float32 and bfloat16."""
    with setting.inference() as (cfg, inference, volume):
        alone = slices_alone(setting, cfg, inference, volume)

        def over_volume(low: bool) -> None:
            inference.bf16 = low
            inference.detect(volume)

        runs = {
            "alone, float32": lambda: alone(inference.model, False),
            "alone, bfloat16": lambda: alone(inference.model, True),
            "volume, float32": lambda: over_volume(False),
            "volume, bfloat16": lambda: over_volume(True),
        }
        counts = {name: SINGLE_SLICES if name.startswith("alone") else setting.slices for name in runs}
        seconds = {name: each / counts[name] for name, each in setting.timed(runs).items()}
        memory = {name: setting.peak_mb(run) for name, run in runs.items()}
        work = {
            name: counted(runs[f"{name}, float32"]) / counts[f"{name}, float32"] for name in ("alone", "volume")
        }
        inference.model.to(memory_format=torch.contiguous_format)
        contiguous = setting.timed({"alone": lambda: alone(inference.model, False)})["alone"] / SINGLE_SLICES
    rates = {name: matmul_rate(setting, dtype) for name, dtype in DTYPES.items()}
    shares = {
        name: work[name.split(", ")[0]] / each / rates[name.split(", ")[1]] for name, each in seconds.items()
    }
    return {
        "ratio": seconds["alone, float32"] / seconds["volume, float32"],
        "baseline_seconds": seconds["alone, float32"],
        "ours_seconds": seconds["volume, float32"],
        "details": {
            "ms_a_slice": {name: 1e3 * each for name, each in seconds.items()},
            "ms_a_slice_alone_float32_without_channels_last": 1e3 * contiguous,
            "papers_ms_a_slice": PAPERS_MS,
            "peak_mb": memory,
            "multiply_adds_g_a_slice": work,
            "matmul_g_multiply_adds_a_second": rates,
            "share_of_matmul": shares,
            "size": setting.size,
            "slices": setting.slices,
        }
        | setting.machine(),
    }


@gpu_measurement("gpu-compiled")
@torch.no_grad()
def gpu_compiled(setting: Setting) -> dict:
    """torch.compile of the backbone, slices alone, against the same without; needs a C++ compiler."""
    with setting.inference() as (cfg, inference, volume):
        alone = slices_alone(setting, cfg, inference, volume)
        backbone = inference.model.backbone
        compiled = torch.compile(backbone.forward, dynamic=False)

        def run_compiled() -> None:
            with patch.object(backbone, "forward", compiled):
                alone(inference.model, False)

        start = time.perf_counter()
        run_compiled()
        setting.finish()
        first = time.perf_counter() - start
        times = setting.timed({"plain": lambda: alone(inference.model, False), "compiled": run_compiled})
    seconds = {name: each / SINGLE_SLICES for name, each in times.items()}
    return {
        "ratio": seconds["plain"] / seconds["compiled"],
        "baseline_seconds": seconds["plain"],
        "ours_seconds": seconds["compiled"],
        "details": {"seconds": "a slice", "first_call_seconds": first, "size": setting.size} | setting.machine(),
    }


@gpu_measurement("gpu-training-step")
def gpu_training_step(setting: Setting) -> dict:
    """A step of four samples of nine slices with AMP; the ratio is loader workers needed for one device."""
    with tempfile.TemporaryDirectory() as folder:
        opts = ("INPUT.CACHE_DIR", folder, "INPUT.AUGMENTATIONS", (), *setting.opts)
        cfg = config("lens_multi.yaml", *opts)
        record = with_lesions(write_scan(Path(folder), setting.slices, setting.size))
        mapper = SliceMapper(cfg, is_train=True)
        batch = [mapper(record, slice_number, seed=slice_number) for slice_number in range(BATCH)]
        loading = in_turns({"sample": lambda: mapper(record, setting.slices // 2)}, 5)["sample"]
    model = network(cfg).to(setting.device).requires_grad_(True).train()
    step = TrainingStep(cfg, model, setting)
    with EventStorage():
        for _ in range(WARM):
            step(batch)
        step.seconds.clear()
        memory = setting.peak_mb(lambda: step(batch))
        whole = in_turns({"step": lambda: step(batch)}, STEPS, warm=False)["step"]
    parts = {name: statistics.median(each) for name, each in step.seconds.items()}
    return {
        "ratio": loading * BATCH / whole,
        "baseline_seconds": loading * BATCH,
        "ours_seconds": whole,
        "details": {
            "ratio": "loader workers needed: seconds that one core loads a batch over those of its step",
            "seconds": parts,
            "samples_a_second": BATCH / whole,
            "loading_seconds_a_sample": loading,
            "loss": step.loss,
            "precision": str(step.precision).removeprefix("torch."),
            "peak_mb": memory,
            "batch": BATCH,
            "size": setting.size,
        }
        | setting.machine(),
    }


@gpu_measurement("gpu-equality")
@torch.no_grad()
def gpu_equality(setting: Setting) -> dict:
    """2D detections on the device and on the CPU; the ratio is the part without an equal, in full float32."""
    unequal = {}
    with inference_on_scan(*setting.opts, levels=setting.slices, size=setting.size) as (cfg, inference, volume):
        other = VolumeInference(cfg, copy.deepcopy(inference.model).to(setting.device), cache=inference.cache)
        found = {"cpu": watch(inference)[0], "device": watch(other)[0]}
        inference.detect(volume)
        for name, tf32 in (("float32", False), ("TF32", True)):
            found["device"].clear()
            with tensor_floats(tf32):
                other.detect(volume)
            unequal[name] = sum(
                different(ours[expert].to("cpu"), plain[expert])
                for ours, plain in zip(found["device"], found["cpu"], strict=True)
                for expert in plain
            )
    detections = sum(len(own) for slice_ in found["cpu"] for own in slice_.values())
    return {
        "ratio": unequal["float32"] / detections,
        "baseline_seconds": None,
        "ours_seconds": None,
        "details": {"detections": detections, "unequal": unequal, "size": setting.size, "slices": setting.slices}
        | setting.machine(),
    }


@gpu_measurement("gpu-waiting")
@torch.no_grad()
def gpu_waiting(setting: Setting) -> dict:
    """Times that inference over a volume waits for the device, by its profile; the ratio is for a batch of slices.

    On a CPU, the operators are counted after which a GPU would have been waited for.
    """
    with (
        setting.inference() as (_, inference, volume),
        patch.object(selection, "is_asynchronous", lambda device: True),
    ):
        inference.detect(volume)
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if setting.device.type == "cuda" else [])]
        with profile(activities=kinds) as profiled:
            inference.detect(volume)
            setting.finish()
        batches = -(-setting.slices // inference.slices_per_batch)
    counts: dict[str, int] = defaultdict(int)
    for event in profiled.key_averages():
        counts[COPIES if event.key.startswith(COPIES) else event.key] += event.count
    operators = {name: counts[name] for name in WAITING}
    waits = {name: counts[name] for name in (*WAITS, COPIES)}
    times = waits[WAITS[0]] if setting.device.type == "cuda" else sum(operators.values())
    return {
        "ratio": times / batches,
        "baseline_seconds": None,
        "ours_seconds": None,
        "details": {
            "ratio": "times of waiting for the device in a batch of slices",
            "slices_a_batch": inference.slices_per_batch,
            "batches": batches,
            "operators": operators,
            "profile": waits,
            "size": setting.size,
        }
        | setting.machine(),
    }


class TrainingStep:
    """A step of training in low precision, as Detectron2's AMP trainer does it, with the time of its parts."""

    def __init__(self, cfg: CfgNode, model: nn.Module, setting: Setting):
        self.model, self.setting = model, setting
        self.optimizer = build_optimizer(cfg, model)
        # On a CPU autocast has bfloat16, whose losses need no scaling.
        self.precision = torch.float16 if setting.device.type == "cuda" else torch.bfloat16
        self.scaler = torch.amp.GradScaler(setting.device.type, enabled=self.precision == torch.float16)
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.loss = 0.0

    def __call__(self, batch: list[dict]) -> None:
        with self._part("forward"), torch.autocast(self.setting.device.type, self.precision):
            loss = sum(self.model(batch).values())
        with self._part("backward"):
            self.optimizer.zero_grad()
            self.scaler.scale(loss).backward()
        with self._part("optimizer"):
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.loss = float(loss.detach())
        if not loss.isfinite():
            raise FloatingPointError("the loss is not finite")

    @contextmanager
    def _part(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.setting.finish()
        self.seconds[name].append(time.perf_counter() - start)


def slices_alone(setting: Setting, cfg: CfgNode, inference: VolumeInference, volume) -> Callable:
    """A function that runs slices of a volume one by one, in float32 or bfloat16."""
    levels = [setting.slices * number // SINGLE_SLICES for number in range(SINGLE_SLICES)]
    samples = [{"image": sample(cfg, volume, level)} for level in levels]

    def run(model: nn.Module, low: bool) -> None:
        with torch.autocast(setting.device.type, torch.bfloat16, enabled=low):
            for each in samples:
                model([each])

    return run


def counted(function: Callable[[], object]) -> float:
    """Multiply-adds of what a function does in convolutions and matrix products, in billions."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops() / 2e9


def matmul_rate(setting: Setting, dtype: torch.dtype) -> float:
    """Multiply-adds a second, in billions, of a product of large matrices; float32 in TF32 as convolutions are."""
    side = SIDES[setting.device.type]
    a, b = (torch.randn(side, side, device=setting.device, dtype=dtype) for _ in range(2))
    with tensor_floats(torch.backends.cudnn.allow_tf32):
        return side**3 / 1e9 / setting.timed({"matmul": lambda: a @ b})["matmul"]


@contextmanager
def tensor_floats(allowed: bool) -> Iterator[None]:
    """Context in which convolutions and matrix products in float32 may be in TF32, or not."""
    homes = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [home.allow_tf32 for home in homes]
    try:
        for home in homes:
            home.allow_tf32 = allowed
        yield
    finally:
        for home, old in zip(homes, before, strict=True):
            home.allow_tf32 = old


def with_lesions(record: dict) -> dict:
    """The record of a scan with two lesions on each slice."""
    lesions = [
        make_lesion(
            f"{record['volume']}/{k}", [(z, 8 + 20 * k, 8, 24 + 20 * k, 24) for z in range(record["num_slices"])]
        )
        for k in range(2)
    ]
    return {**record, "lesions": lesions}

"""LENS beside other projects' detectors: the same data, the same machine, the same time to train.

    DETECTRON2_DATASETS=datasets python -m experiments peers --seconds 3600 --output output/peers

The networks are narrow enough for a CPU and need similar numbers of multiply-adds at inference; with ``--full``
they have their full sizes, for a GPU (``--device cuda``), and a folder of their own, ``full``. The budget is
processor time of one thread, which on an idle core is wall-clock time; on a GPU it is wall-clock time. If it is
run again, it resumes where it stopped, and with a larger budget trains on. It prints a table and writes it as
``results.md`` and ``results.json``: steps made, multiply-adds and seconds of a volume at inference, average
sensitivity (LENS's 3D protocol) on fully annotated test volumes. MONAI comes with
``pip install "lens_d2[benchmark]"``.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from detectron2.data import DatasetCatalog
from detectron2.utils.events import EventStorage
from torch.utils.flop_counter import FlopCounterMode

from lens_d2.config import load_config
from lens_d2.data.datasets.catalog import register_derived
from lens_d2.engine.evaluation import build_evaluator
from lens_d2.io.files import whole_file, write_whole
from lens_d2.modeling.supervision import seeded

from ..runs import add_output_argument, write_table
from .retinanet import RetinaNet
from .slicewise import FasterRCNN, Lens

PEERS = {"LENS": Lens, "Faster R-CNN": FasterRCNN, "RetinaNet 3D": RetinaNet}
NARROW, FULL = "phantom/lens_multi.yaml", "lens_multi.yaml"
CHECKPOINT_SECONDS = 30
WARMUP = 0.02  # of the budget
COLUMNS = ("detector", "steps", "G multiply-adds a volume", "seconds a volume", "average sensitivity")


def config(output: Path, device: str = "cpu", is_narrow: bool = True):
    """LENS's config, whose datasets and intensities are every peer's; all datasets are the synthetic cohort's."""
    opts = ["MODEL.DEVICE", device, "DATALOADER.NUM_WORKERS", 0, "TEST.OVERLAYS", 0, "OUTPUT_DIR", str(output)]
    opts += ["DATASETS.TRAIN", load_config(NARROW).DATASETS.TRAIN]
    return load_config(NARROW if is_narrow else FULL, opts)


def clock(device: str) -> float:
    """Seconds: processor time on a CPU; on a GPU those on the wall, once it has done what it was given."""
    if torch.device(device).type == "cpu":
        return time.process_time()
    torch.accelerator.synchronize()
    return time.perf_counter()


def train(peer, budget: float, folder: Path) -> int:
    """Train for a budget in seconds in all, the learning rate falling to 0 as a cosine; steps made."""
    checkpoint, spent, steps = folder / "checkpoint.pth", 0.0, 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        peer.model.load_state_dict(state["model"])
        peer.optimizer.load_state_dict(state["optimizer"])
        spent, steps = state["seconds"], state["steps"]
    device = peer.cfg.MODEL.DEVICE
    rates = [group.setdefault("initial_lr", group["lr"]) for group in peer.optimizer.param_groups]

    def save():
        state = {"model": peer.model.state_dict(), "optimizer": peer.optimizer.state_dict()}
        with whole_file(checkpoint) as temporary:
            torch.save(state | {"seconds": spent, "steps": steps}, temporary)

    peer.model.train()
    batches, saved = peer.batches(steps), spent
    with EventStorage():
        while spent < budget:
            start, share = clock(device), spent / budget
            for group, rate in zip(peer.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * min(1.0, (share + 1e-4) / WARMUP) * (1 + math.cos(math.pi * share)) / 2
            peer.optimizer.zero_grad()
            sum(peer.losses(next(batches)).values()).backward()
            peer.optimizer.step()
            spent, steps = spent + clock(device) - start, steps + 1
            if spent - saved > CHECKPOINT_SECONDS or spent >= budget:
                save()
                saved = spent
    return steps


def first_of(dataset: str, volumes: int) -> str:
    """A dataset of the first volumes of another, registered under the name that is given back; 0: of all."""
    if not volumes:
        return dataset
    name = f"{dataset}_first_{volumes}"
    register_derived(name, dataset, lambda: DatasetCatalog.get(dataset)[:volumes])
    return name


def evaluate(peer, dataset: str, folder: Path) -> tuple[float, float, float]:
    """Billions of multiply-adds of the first volume, seconds of a volume, and the average sensitivity."""
    device = peer.cfg.MODEL.DEVICE
    evaluator = build_evaluator(peer.cfg, dataset, str(folder))
    evaluator.reset()
    inference, seconds = peer.inference().eval(), 0.0
    peer.model.eval()
    records = DatasetCatalog.get(dataset)
    with FlopCounterMode(display=False) as counter:
        inference(records[:1])
    for record in records:
        inference.cache.open(record)  # preprocessing is the same for all
        start = clock(device)
        outputs = inference([record])
        seconds += clock(device) - start
        evaluator.process([record], outputs)
    metrics = evaluator.evaluate()
    write_whole(folder / "results.json", json.dumps(metrics).encode())
    work = counter.get_total_flops() / 2e9
    return work, seconds / len(records), next(iter(metrics.values()))["average_sensitivity"]


def evaluate_once(peer, dataset: str, folder: Path, steps: int) -> list[float]:
    """Figures of :func:`evaluate`, or those of an earlier run on this device after as many steps."""
    path, key = folder / "measured.json", [dataset, steps, peer.cfg.MODEL.DEVICE]
    if path.exists() and (measured := json.loads(path.read_text()))["of"] == key:
        return measured["figures"]
    figures = list(evaluate(peer, dataset, folder))
    write_whole(path, json.dumps({"of": key, "figures": figures}).encode())
    return figures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--seconds", type=float, default=3600, help="of training, for each detector")
    parser.add_argument("--only", nargs="+", choices=list(PEERS), default=list(PEERS), metavar="NAME")
    parser.add_argument("--test", default="phantom_deeplesion_1k_test", help="dataset of the figures")
    parser.add_argument("--volumes", type=int, default=0, help="test on so many volumes (0: all)")
    parser.add_argument("--full", action="store_true", help="networks of full size, for a GPU")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    add_output_argument(parser, "output/peers")


def run(args: argparse.Namespace) -> None:
    """Run the experiment."""
    torch.set_num_threads(1)
    rows, output = [], args.output / "full" if args.full else args.output
    for name in args.only:
        folder = output / name.replace(" ", "_")
        with seeded(0, torch.device(args.device)):
            peer = PEERS[name](config(folder, args.device, not args.full), not args.full)
            steps = train(peer, args.seconds, folder)
            measured = evaluate_once(peer, first_of(args.test, args.volumes), folder, steps)
            rows.append(dict(zip(COLUMNS, (name, steps, *measured), strict=True)))
        print(write_table(output, rows, "keys", rows), flush=True)

"""LENS beside other projects' detectors: the same data, the same machine, the same time to train.

    DETECTRON2_DATASETS=datasets python -m experiments peers --seconds 3600 --output output/peers

The budget is processor time of one thread, which on an idle core is wall-clock time. If it is run again, it
resumes where it stopped, and with a larger budget trains on. It prints a table and writes it as ``results.md`` and
``results.json``: steps made, seconds of a volume at inference, average sensitivity (LENS's 3D protocol) on fully
annotated test volumes. MONAI comes with
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

from lens_d2.config import load_config
from lens_d2.data.datasets.catalog import register_derived
from lens_d2.engine.evaluation import build_evaluator
from lens_d2.io.files import whole_file, write_whole
from lens_d2.modeling.supervision import seeded

from ..runs import add_output_argument, write_table
from .retinanet import RetinaNet
from .slicewise import FasterRCNN, Lens

PEERS = {"LENS": Lens, "Faster R-CNN": FasterRCNN, "RetinaNet 3D": RetinaNet}
CONFIG = "phantom/lens_multi.yaml"
CHECKPOINT_SECONDS = 30
COLUMNS = ("detector", "steps", "seconds a volume", "average sensitivity")


def config(output: Path):
    """LENS's config, whose datasets and intensities are every peer's."""
    opts = ["MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", 0, "TEST.OVERLAYS", 0, "OUTPUT_DIR", str(output)]
    return load_config(CONFIG, opts)


def train(peer, budget: float, folder: Path) -> int:
    """Train for ``budget`` processor seconds in all, the learning rate falling to 0 as a cosine; steps made."""
    checkpoint, spent, steps = folder / "checkpoint.pth", 0.0, 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        peer.model.load_state_dict(state["model"])
        peer.optimizer.load_state_dict(state["optimizer"])
        spent, steps = state["seconds"], state["steps"]
    rates = [group.setdefault("initial_lr", group["lr"]) for group in peer.optimizer.param_groups]

    def save():
        state = {"model": peer.model.state_dict(), "optimizer": peer.optimizer.state_dict()}
        with whole_file(checkpoint) as temporary:
            torch.save(state | {"seconds": spent, "steps": steps}, temporary)

    peer.model.train()
    batches, saved = peer.batches(steps), spent
    with EventStorage():
        while spent < budget:
            start = time.process_time()
            for group, rate in zip(peer.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * (1 + math.cos(math.pi * spent / budget)) / 2
            peer.optimizer.zero_grad()
            sum(peer.losses(next(batches)).values()).backward()
            peer.optimizer.step()
            spent, steps = spent + time.process_time() - start, steps + 1
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


def evaluate(peer, dataset: str, folder: Path) -> tuple[float, float]:
    """Processor seconds of a volume, and the average sensitivity."""
    evaluator = build_evaluator(peer.cfg, dataset, str(folder))
    evaluator.reset()
    inference, seconds = peer.inference().eval(), 0.0
    peer.model.eval()
    records = DatasetCatalog.get(dataset)
    for record in records:
        inference.cache.open(record)  # preprocessing is the same for all
        start = time.process_time()
        outputs = inference([record])
        seconds += time.process_time() - start
        evaluator.process([record], outputs)
    metrics = evaluator.evaluate()
    write_whole(folder / "results.json", json.dumps(metrics).encode())
    return seconds / len(records), next(iter(metrics.values()))["average_sensitivity"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--seconds", type=float, default=3600, help="processor seconds of each one's training")
    parser.add_argument("--only", nargs="+", choices=list(PEERS), default=list(PEERS), metavar="NAME")
    parser.add_argument("--test", default="phantom_deeplesion_1k_test", help="dataset of the figures")
    parser.add_argument("--volumes", type=int, default=0, help="test on so many volumes (0: all)")
    add_output_argument(parser, "output/peers")


def run(args: argparse.Namespace) -> None:
    """Run the experiment."""
    torch.set_num_threads(1)
    rows = []
    for name in args.only:
        folder = args.output / name.replace(" ", "_")
        with seeded(0, torch.device("cpu")):
            peer = PEERS[name](config(folder))
            steps = train(peer, args.seconds, folder)
            measured = evaluate(peer, first_of(args.test, args.volumes), folder)
            rows.append(dict(zip(COLUMNS, (name, steps, *measured), strict=True)))
        print(write_table(args.output, rows, "keys", rows), flush=True)

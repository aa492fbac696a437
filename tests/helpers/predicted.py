"""The command ``predict`` with a small network of random weights, and what it has written."""

import json

import numpy as np
from detectron2.config import CfgNode

from helpers.blocks import ROOT
from helpers.scan_files import make_affine
from lens_d2.commands import main, predict
from lens_d2.commands.options import get_parser

CONFIG = str(ROOT / "configs/phantom/lens_multi.yaml")
SMALL = (
    ["MODEL.DEVICE", "cpu", "INPUT.PIXEL_SPACING", "4.0", "INPUT.SLICE_INTERVAL", "3.0"]
    + ["MODEL.DENSENET.GROWTH_RATE", "4", "MODEL.DENSENET.BLOCK_CONFIG", "(2, 2, 2)"]
    + ["MODEL.DENSENET.OUT_CHANNELS", "16", "MODEL.AFP.CONV_DIM", "8", "MODEL.ROI_BOX_HEAD.FC_DIM", "16"]
)
FILES = ["detections.csv", "detections.json", "detections.mrk.json", "detections.nii.gz", "report.html"]
AFFINE = make_affine((4, 4, 3), origin=(-90, -70, 100))


def config_with(*opts: str) -> CfgNode:
    """The config of a run of the small network, with overrides."""
    words = ["predict", "--config-file", CONFIG, "--input", "x", "--output", "y", "--allow-random-weights"]
    return predict.read_config(get_parser().parse_args([*words, "--opts", *SMALL, *opts]))


def run_predict(source, output, *options, opts=(), weights="--allow-random-weights") -> int:
    """Run the command, and return its exit status."""
    command = ["predict", "--config-file", CONFIG, "--input", str(source), "--output", str(output)]
    return main([*command, "--max-detections", "5", weights, *options, "--opts", *SMALL, *opts])


def detections(folder) -> list[dict]:
    return json.loads((folder / "detections.json").read_text())["detections"]


def worlds(folder) -> np.ndarray:
    """(n, 7) world box and score of every detection."""
    boxes = [(each["world_box_lps_mm"], each["score"]) for each in detections(folder)]
    return np.array([[*box["min"].values(), *box["max"].values(), score] for box, score in boxes])


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))

"""Training and calibration of the lesion embedding: ``lens-d2 embedding``."""

from __future__ import annotations

import argparse
import json
import logging
import os

from detectron2.config import CfgNode
from detectron2.utils import comm

from ..config import load_config
from ..data.loader import load_records
from ..data.same_lesions import marks_of_dataset
from ..engine import allowed, launch
from ..engine.embedding import train_embedding
from ..engine.setup import begun
from ..io.device import check_device
from ..io.files import write_whole
from ..modeling.embedding import LesionEmbedder
from ..modeling.embedding.calibration import calibrate


def read_config(args: argparse.Namespace) -> CfgNode:
    """Read the config, and refuse what could not run.

    Raises:
        DataError: the config cannot be read, or could not run.
    """
    cfg = load_config(args.config_file, args.opts)
    allowed.check_names(cfg)
    check_device(cfg, args.num_gpus)
    return cfg


def main(args: argparse.Namespace) -> None:
    """Train unless the weights are given, and calibrate; the body of a rank."""
    cfg = read_config(args)
    with begun(cfg, args):
        train_and_calibrate(cfg, args)


def train_and_calibrate(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Train unless ``--eval-only``, and calibrate the embedding; writes to ``OUTPUT_DIR/embedding``."""
    if not args.eval_only:
        weights = train_embedding(cfg, resume=args.resume)
        cfg.defrost()
        cfg.MODEL.EMBEDDING.WEIGHTS = weights
    if not comm.is_main_process():
        return
    marks = []
    for name in cfg.MODEL.EMBEDDING.DATASETS:
        marks += marks_of_dataset(name, load_records((name,)))
    precision, default = cfg.MODEL.EMBEDDING.CALIBRATION_PRECISION, cfg.MINING.INTRA_PATIENT.DISTANCE
    found = calibrate(LesionEmbedder(cfg).embed, marks, precision, default)
    path = os.path.join(cfg.OUTPUT_DIR, "embedding", "calibration.json")
    write_whole(path, json.dumps(found.to_dict(), indent=1).encode())
    logging.getLogger("lens_d2").info("%s (%s)", found, path)


def run(args: argparse.Namespace) -> None:
    """Start the ranks that the options ask for."""
    launch.run(main, args, check=read_config)

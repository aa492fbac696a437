"""Training and evaluation of a detector: ``lens-d2 train``."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.evaluation import verify_results
from detectron2.utils import comm

from ..config import load_config
from ..engine import LENSCheckpointer, LENSTrainer, allowed, checks, launch, run_stages
from ..engine.evaluation import check_test_sets
from ..engine.setup import begun
from ..engine.stages import keep_verdicts
from ..inference.detector import absent_classifier
from ..io.config_files import find_config
from ..io.device import check_device
from ..io.errors import DataError
from ..mining.lens.mine import MINING


def read_config(args: argparse.Namespace) -> CfgNode:
    """Read the config of a run, and refuse what could not run.

    Raises:
        DataError: the config cannot be read, or could not run.
    """
    if not args.config_file:
        raise DataError("--config-file", "not given: name a config, for instance configs/lens_multi.yaml")
    args.config_file = str(find_config(args.config_file))
    cfg = load_config(args.config_file, args.opts)
    allowed.check_names(cfg)
    checks.check_input(cfg)
    check_device(cfg, args.num_gpus)
    if args.eval_only:
        checks.check_evaluation(cfg, args.resume)
    else:
        checks.check_training(cfg, launch.world_size(args))
    return cfg


def evaluate(cfg: CfgNode, resume: bool) -> dict:
    """Evaluate trained weights on ``DATASETS.TEST``."""
    model = LENSTrainer.build_model(cfg)
    checkpointer = LENSCheckpointer(model, save_dir=cfg.OUTPUT_DIR, whole=True)
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    if warning := absent_classifier(cfg):
        logging.getLogger(__name__).warning("%s", warning)
    results = LENSTrainer.test(cfg, model)
    if comm.is_main_process():
        verify_results(cfg, results)
    return results


def train(cfg: CfgNode, resume: bool):
    """Train: the stages of a whole run, or one detector."""
    check_test_sets(cfg)
    if comm.is_main_process():
        checks.check_contents(cfg, resume)
    if cfg.STAGES:
        return run_stages(cfg, resume=resume)
    if cfg.MINING.STRATEGIES and comm.is_main_process() and not resume:
        keep_verdicts(cfg, [Path(cfg.OUTPUT_DIR) / MINING])
    trainer = LENSTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    return trainer.train()


def main(args: argparse.Namespace):
    """Train or evaluate; the body of a rank."""
    cfg = read_config(args)
    with begun(cfg, args):
        return evaluate(cfg, args.resume) if args.eval_only else train(cfg, args.resume)


def run(args: argparse.Namespace) -> None:
    """Start the ranks that the options ask for."""
    launch.run(main, args, check=read_config)

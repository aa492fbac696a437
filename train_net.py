#!/usr/bin/env python
"""Trains and evaluates a universal lesion detector.

python train_net.py --config-file configs/lens_multi.yaml --num-gpus 8
python train_net.py --config-file configs/lens_multi.yaml --eval-only MODEL.WEIGHTS model_final.pth
python train_net.py --config-file configs/lens_full.yaml --resume
torchrun --nproc-per-node 8 train_net.py --config-file configs/lens_full.yaml
"""

from contextlib import nullcontext

from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from lens_d2.config import load_config
from lens_d2.engine import LENSCheckpointer, LENSTrainer, checks, launch, run_stages
from lens_d2.io.config_files import find_config
from lens_d2.io.errors import DataError
from lens_d2.io.files import only_run_in, write_errors


def read_config(args) -> CfgNode:
    """Reads the config of a run, and refuses what could not run."""
    if not args.config_file:
        raise DataError("--config-file", "not given: name a config, for instance configs/lens_multi.yaml")
    args.config_file = str(find_config(args.config_file))
    cfg = load_config(args.config_file, args.opts)
    checks.check_names(cfg)
    checks.check_device(cfg, args.num_gpus)
    if args.eval_only:
        checks.check_evaluation(cfg, args.resume)
    else:
        checks.check_training(cfg, launch.world_size(args))
    return cfg


def setup(cfg: CfgNode, args) -> None:
    """Sets up logs and random numbers; settles the device."""
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="lens_d2")
    checks.fall_back_to_cpu(cfg)
    cfg.freeze()
    default_setup(cfg, args)


def evaluate(cfg: CfgNode, resume: bool) -> dict:
    """Evaluates trained weights on ``DATASETS.TEST``."""
    model = LENSTrainer.build_model(cfg)
    checkpointer = LENSCheckpointer(model, save_dir=cfg.OUTPUT_DIR, whole=True)
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    results = LENSTrainer.test(cfg, model)
    if comm.is_main_process():
        verify_results(cfg, results)
    return results


def train(cfg: CfgNode, resume: bool):
    """Trains: the stages of a whole run, or one detector."""
    if cfg.STAGES:
        return run_stages(cfg, resume=resume)
    trainer = LENSTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    return trainer.train()


def main(args):
    """Trains or evaluates; the body of a rank."""
    cfg = read_config(args)
    alone = only_run_in(cfg.OUTPUT_DIR) if comm.is_main_process() else nullcontext()
    with alone, write_errors(cfg.OUTPUT_DIR):
        setup(cfg, args)
        return evaluate(cfg, args.resume) if args.eval_only else train(cfg, args.resume)


if __name__ == "__main__":
    launch.run(main, launch.argument_parser(__doc__).parse_args(), check=read_config)

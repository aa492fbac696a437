#!/usr/bin/env python
"""Train and evaluate a universal lesion detector.

python train_net.py --config-file configs/lens_multi.yaml --num-gpus 8
python train_net.py --config-file configs/lens_multi.yaml --eval-only MODEL.WEIGHTS model_final.pth
python train_net.py --config-file configs/lens_full.yaml --resume
torchrun --nproc-per-node 8 train_net.py --config-file configs/lens_full.yaml
"""

import logging

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from lens_d2.config import load_config
from lens_d2.engine import LENSCheckpointer, LENSTrainer, launch, resolve_schedule, run_stages


def setup(args) -> CfgNode:
    """The config of a run: file, command line, the device there is, the length of training."""
    cfg = load_config(args.config_file, args.opts)
    no_gpu = cfg.MODEL.DEVICE != "cpu" and not torch.cuda.is_available()
    if no_gpu:
        cfg.MODEL.DEVICE = "cpu"
    if not args.eval_only and not cfg.STAGES:
        resolve_schedule(cfg)
    cfg.freeze()
    default_setup(cfg, args)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="lens_d2")
    if no_gpu:
        logging.getLogger("lens_d2").warning("no GPU found: running on the CPU")
    return cfg


def main(args):
    cfg = setup(args)
    if args.eval_only:
        model = LENSTrainer.build_model(cfg)
        checkpointer = LENSCheckpointer(model, save_dir=cfg.OUTPUT_DIR, whole=True)
        checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
        results = LENSTrainer.test(cfg, model)
        if comm.is_main_process():
            verify_results(cfg, results)
        return results
    if cfg.STAGES:
        return run_stages(cfg, resume=args.resume)
    trainer = LENSTrainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


if __name__ == "__main__":
    launch.run(main, default_argument_parser(__doc__).parse_args())

#!/usr/bin/env python
"""Train the lesion embedding, and calibrate the distance below which two boxes are one lesion.

    python tools/train_embedding.py --config-file configs/phantom/lens_full.yaml
    python tools/train_embedding.py --config-file ... --eval-only MODEL.EMBEDDING.WEIGHTS model_final.pth

Writes model_final.pth, to be given as MODEL.EMBEDDING.WEIGHTS, and calibration.json to OUTPUT_DIR/embedding.
"""

import json
import logging
import os

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from lens_d2.config import load_config
from lens_d2.data.loader import load_records
from lens_d2.data.same_lesions import marks_of_dataset
from lens_d2.engine import launch
from lens_d2.engine.embedding import train_embedding
from lens_d2.io.files import write_whole
from lens_d2.modeling.embedding import LesionEmbedder
from lens_d2.modeling.embedding.calibration import calibrate


def setup(args) -> CfgNode:
    cfg = load_config(args.config_file, args.opts)
    if not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    cfg.freeze()
    default_setup(cfg, args)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="lens_d2")
    return cfg


def main(args) -> None:
    cfg = setup(args)
    if not args.eval_only:
        weights = train_embedding(cfg, resume=args.resume)
        cfg.defrost()
        cfg.MODEL.EMBEDDING.WEIGHTS = weights
    if not comm.is_main_process():
        return
    marks = []
    for name in cfg.MODEL.EMBEDDING.DATASETS:
        marks += marks_of_dataset(name, load_records((name,)))
    found = calibrate(LesionEmbedder(cfg).embed, marks, cfg.MODEL.EMBEDDING.CALIBRATION_PRECISION)
    path = os.path.join(cfg.OUTPUT_DIR, "embedding", "calibration.json")
    write_whole(path, json.dumps(found.to_dict(), indent=1).encode())
    logging.getLogger("lens_d2").info("%s (%s)", found, path)


if __name__ == "__main__":
    launch.run(main, default_argument_parser(__doc__).parse_args())

"""Beginning of a run: what is written, what is logged, and random numbers."""

import argparse
import logging

import numpy as np
import pytest
import torch
from detectron2.utils.logger import setup_logger
from helpers.blocks import blocks_cfg

from lens_d2.engine.setup import LOGGERS, set_up


@pytest.fixture(autouse=True)
def loggers():
    """Handlers that write below tmp_path go with it."""
    named = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.handlers[:], logger.propagate) for logger in named]
    yield
    for logger, (handlers, propagate) in zip(named, before, strict=True):
        logger.handlers[:], logger.propagate = handlers, propagate
    setup_logger.cache_clear()


def test_the_config_is_in_a_file_and_not_in_the_log(tmp_path):
    cfg = blocks_cfg(tmp_path, "SEED", 7, "OUTPUT_DIR", str(tmp_path / "out"))
    set_up(cfg, argparse.Namespace(config_file="blocks.yaml", eval_only=False))
    assert cfg.is_frozen()
    assert (tmp_path / "out/config.yaml").read_text() == cfg.dump()
    assert "PyTorch" in (tmp_path / "out/environment.txt").read_text()
    (line,) = (tmp_path / "out/log.txt").read_text().splitlines()
    assert line.endswith(f"blocks.yaml, results in {tmp_path / 'out'}")


def test_a_seed_gives_the_same_numbers(tmp_path):
    drawn = []
    for seed in (7, 7, 8):
        cfg = blocks_cfg(tmp_path, "SEED", seed, "OUTPUT_DIR", str(tmp_path / "out"))
        set_up(cfg, argparse.Namespace(config_file="blocks.yaml", eval_only=True))
        drawn.append((torch.rand(1).item(), np.random.rand()))
    assert drawn[0] == drawn[1] != drawn[2]

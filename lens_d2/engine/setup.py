"""Beginning of a run on each rank: logs, the files that say what ran, the device, random numbers."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
import yaml
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger

from ..io.checkpoint import LAST_CHECKPOINT
from ..io.config_files import all_keys, value_of
from ..io.device import fall_back_to_cpu
from ..io.errors import DataError, WriteError
from ..io.files import only_run_in, write_errors, write_whole
from .evaluation import INFERENCE
from .stages import MARKER

LOGGERS = ("fvcore", "detectron2", "lens_d2")
CONFIG = "config.yaml"


@contextmanager
def begun(cfg: CfgNode, args: argparse.Namespace) -> Iterator[None]:
    """Context of a run that has ``OUTPUT_DIR`` to itself and is set up, see :func:`set_up`.

    If the run is refused before it has left a checkpoint or the result of a stage, ``config.yaml`` is put back to
    that of an earlier run.

    Raises:
        DataError: another run is using the folder.
        WriteError: it cannot be written.
    """
    path = _folder(cfg, args) / CONFIG
    alone = only_run_in(cfg.OUTPUT_DIR) if comm.is_main_process() else nullcontext()
    with alone, write_errors(cfg.OUTPUT_DIR):
        before, made = path.read_bytes() if path.is_file() else None, _made_in(Path(cfg.OUTPUT_DIR))
        try:
            set_up(cfg, args)
            if before is not None and args.resume and not args.eval_only and comm.is_main_process():
                _tell_changes(before, cfg)
            yield
        except DataError as error:
            refused = not isinstance(error, WriteError) and _made_in(Path(cfg.OUTPUT_DIR)) <= made
            if before is not None and refused and comm.is_main_process():
                write_whole(path, before)
            raise


def _folder(cfg: CfgNode, args: argparse.Namespace) -> Path:
    """Folder of the files that say what ran: an evaluation leaves those of the training as they are."""
    return Path(cfg.OUTPUT_DIR, INFERENCE) if args.eval_only else Path(cfg.OUTPUT_DIR)


def _tell_changes(before: bytes, cfg: CfgNode) -> None:
    """Warn of settings that differ from those of the run that goes on; what it has finished stays as it is."""
    former, present = (CfgNode(yaml.safe_load(text)) for text in (before, cfg.dump()))
    changed = []
    for key in all_keys(present):
        try:
            old, new = value_of(former, key), value_of(present, key)
        except KeyError:  # of another version
            continue
        if not isinstance(new, CfgNode) and old != new:
            changed.append(f"{key} was {old}")
    if changed:
        text = "goes on with other settings, which apply to whatever is not finished yet: %s"
        logging.getLogger(__name__).warning(text, "; ".join(changed))


def _made_in(folder: Path) -> set[tuple[Path, int]]:
    """Checkpoints and results of stages below a folder, with the times when they were written."""
    paths = [path for name in (LAST_CHECKPOINT, f"{MARKER}.json") for path in folder.rglob(name)]
    return {(path, path.stat().st_mtime_ns) for path in paths}


def set_up(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Begin as Detectron2's ``default_setup``, with config and environment in files and not in the log.

    Writes ``config.yaml``, which gives the same run again, and ``environment.txt`` to ``OUTPUT_DIR``, or to its
    folder ``inference`` if it only evaluates.

    Args:
        cfg: its device is settled, and it is frozen.
        args: options of the command, of which ``eval_only`` is read.

    Raises:
        WriteError: ``OUTPUT_DIR`` cannot be written.
    """
    rank = comm.get_rank()
    for name in LOGGERS:
        setup_logger(cfg.OUTPUT_DIR, distributed_rank=rank, name=name)
    fall_back_to_cpu(cfg)
    cfg.freeze()
    if comm.is_main_process():
        folder = _folder(cfg, args)
        write_whole(folder / CONFIG, cfg.dump().encode())
        write_whole(folder / "environment.txt", f"{collect_env_info()}\n".encode())
    of = f"rank {rank} of {comm.get_world_size()}, " if comm.get_world_size() > 1 else ""
    logging.getLogger(__name__).info("%s%s, results in %s", of, args.config_file, cfg.OUTPUT_DIR)
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + rank)
    if not args.eval_only:
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK

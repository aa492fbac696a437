"""Many processes, on one machine or several: started here, or by torchrun."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial

import torch
import torch.distributed
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, launch
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException

from .. import cli
from ..errors import DataError


def argument_parser(description: str | None = None) -> argparse.ArgumentParser:
    """Detectron2's parser of a training's options. ``num_gpus`` is None unless it is given."""
    parser = default_argument_parser(description)
    parser.set_defaults(num_gpus=None)
    return parser


def world_size(args: argparse.Namespace) -> int:
    """How many ranks a run has or will have: torchrun's, or those that the options ask for."""
    if torch.distributed.is_torchelastic_launched():
        return int(os.environ["WORLD_SIZE"])
    return (1 if args.num_gpus is None else args.num_gpus) * args.num_machines


def run(
    main: Callable[[argparse.Namespace], object],
    args: argparse.Namespace,
    check: Callable[[argparse.Namespace], CfgNode | None] = lambda args: None,
) -> None:
    """Call ``main(args)`` on every rank.

    Below torchrun, this process is one of the ranks. Else processes are started as Detectron2 does, by the
    arguments of its parser: ``num_gpus`` (processes of each machine, on the CPU, too), ``num_machines``,
    ``machine_rank``, ``dist_url``. Either way, a rank that fails ends all others.

    Args:
        main: the body of a rank; picklable.
        args: of :func:`argument_parser`.
        check: called with ``args`` before processes are started, so that a fault that every rank would find is
            told once. Of the config that it returns, the device decides how ranks talk to each other.

    Raises:
        SystemExit: a rank met bad input or a full disk, of which it has printed a line.
    """
    with cli.bad_input_ends():
        _hide_gpus(check(args))
        ranks = _ranks(args)
    if torch.distributed.is_torchelastic_launched():
        _join()
        _call(main, args)
        torch.distributed.destroy_process_group()
        return
    try:
        launch(
            partial(_call, main),
            ranks,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
    except ProcessExitedException as error:
        if error.signal_name:
            raise
        sys.exit(error.exit_code)


def _hide_gpus(cfg: CfgNode | None) -> None:
    """Lets ranks whose model is on the CPU find no GPU: they talk through gloo, as NCCL has no CPU tensors."""
    if cfg is not None and torch.device(cfg.MODEL.DEVICE).type == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def _ranks(args: argparse.Namespace) -> int:
    """The ranks of this machine; DataError where there are fewer GPUs."""
    ranks = 1 if args.num_gpus is None else args.num_gpus
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == "" or not torch.cuda.is_available()
    if ranks < 1 or not hidden and ranks > torch.cuda.device_count():
        found = "" if hidden else f"; this machine has {torch.cuda.device_count()} GPUs, and each rank needs one"
        raise DataError("--num-gpus", f"{ranks}{found or '; at least 1 is needed'}")
    return ranks


def _call(main: Callable[[argparse.Namespace], object], args: argparse.Namespace) -> None:
    """``main(args)`` on one rank; bad input and a full disk are a line on stderr."""
    with cli.bad_input_ends():
        main(args)


def _join() -> None:
    """Become one of torchrun's ranks, which the environment describes."""
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES") != "" and torch.cuda.is_available()
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl" if gpus else "gloo")
    comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
    comm.synchronize()

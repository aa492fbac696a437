"""Many processes, on one machine or several: started here, or by torchrun."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial

import torch
import torch.distributed
from detectron2.engine import launch
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException

from ..errors import DataError


def run(main: Callable[[argparse.Namespace], object], args: argparse.Namespace) -> None:
    """Call ``main(args)`` on every rank.

    Below torchrun, this process is one of the ranks. Else processes are started as Detectron2 does, by the
    arguments of its parser: ``num_gpus`` (processes of each machine, on the CPU, too), ``num_machines``,
    ``machine_rank``, ``dist_url``. Either way, a rank that fails ends all others.

    Raises:
        SystemExit: a rank met a :class:`DataError`, which it has printed.
    """
    if torch.distributed.is_torchelastic_launched():
        _join()
        _call(main, args)
        torch.distributed.destroy_process_group()
        return
    try:
        launch(
            partial(_call, main),
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
    except ProcessExitedException as error:
        if error.signal_name:
            raise
        sys.exit(error.exit_code)


def _call(main: Callable[[argparse.Namespace], object], args: argparse.Namespace) -> None:
    """``main(args)`` on one rank; bad input is a line on stderr."""
    try:
        main(args)
    except DataError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def _join() -> None:
    """Become one of torchrun's ranks, which the environment describes."""
    gpus = torch.cuda.is_available()
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl" if gpus else "gloo")
    comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
    comm.synchronize()

"""Processes of a run, on one machine or several: started here, or by torchrun."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import torch
import torch.distributed
from detectron2.config import CfgNode
from detectron2.engine import launch
from detectron2.engine.launch import DEFAULT_TIMEOUT
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException

from ..io import cli, preemption
from ..io.errors import DataError

PATIENCE_S = 20


def world_size(args: argparse.Namespace) -> int:
    """Number of ranks of a run: torchrun's, or those that the options ask for."""
    if torch.distributed.is_torchelastic_launched():
        return int(os.environ["WORLD_SIZE"])
    return _num_ranks(args) * args.num_machines


def run(
    main: Callable[[argparse.Namespace], object],
    args: argparse.Namespace,
    check: Callable[[argparse.Namespace], CfgNode | None] = lambda args: None,
) -> None:
    """Call ``main(args)`` on every rank.

    Below torchrun, this process is one of the ranks. Otherwise processes are started as Detectron2 does, by the
    arguments of its parser: ``num_gpus`` (processes of each machine, on the CPU, too), ``num_machines``,
    ``machine_rank``, ``dist_url``. Either way, a rank that fails ends all others.

    Args:
        main: body of a rank; picklable. A whole number that it returns is the rank's exit status.
        args: options of a command that has those of ranks.
        check: called with ``args`` before processes are started, so that a fault that every rank would find is
            reported once. The device of the config that it returns decides how ranks communicate.

    Raises:
        SystemExit: a rank has returned another status than 0, met bad input or a full disk and has printed a line
            about it, or was asked to stop (:mod:`lens_d2.io.preemption`).
    """
    _end_on_fault(lambda: _hide_gpus(check(args)))
    _end_on_fault(lambda: _check_ranks(args))
    if torch.distributed.is_torchelastic_launched():
        _join()
        rank(main, args)
        return
    _end_on_fault(lambda: _check_port(args))
    _share_cores(_num_ranks(args))
    try:
        with preemption.passed_on():
            launch(
                rank,
                _num_ranks(args),
                num_machines=args.num_machines,
                machine_rank=args.machine_rank,
                dist_url=args.dist_url,
                args=(main, args),
            )
    except preemption.Preempted:
        preemption.ignore()  # the request comes more than once
        raise
    except ProcessExitedException as error:
        if error.signal_name:
            hint = ", as happens where memory runs out" if error.signal_name == "SIGKILL" else ""
            print(f"rank {error.error_index} was ended by {error.signal_name}{hint}", file=sys.stderr)
            sys.exit(128 + signal.Signals[error.signal_name])
        sys.exit(error.exit_code)


def _hide_gpus(cfg: CfgNode | None) -> None:
    """Hide the GPUs from ranks whose model is on the CPU: they use gloo, as NCCL has no CPU tensors."""
    if cfg is not None and torch.device(cfg.MODEL.DEVICE).type == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def _share_cores(ranks: int) -> None:
    """Give each of a machine's ranks a share of its cores, unless OMP_NUM_THREADS is set, as torchrun sets it.

    Otherwise the libraries of every rank would use all cores, and wait for each other.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if ranks > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // ranks)))


def _num_ranks(args: argparse.Namespace) -> int:
    """Number of ranks of this machine."""
    if torch.distributed.is_torchelastic_launched():
        return int(os.environ["LOCAL_WORLD_SIZE"])
    return 1 if args.num_gpus is None else args.num_gpus


def _check_ranks(args: argparse.Namespace) -> None:
    """Refuse more ranks than a machine has GPUs; any number may share a CPU."""
    ranks, gpus = _num_ranks(args), _num_gpus()
    option = "--nproc-per-node" if torch.distributed.is_torchelastic_launched() else "--num-gpus"
    if ranks < 1:
        raise DataError(option, f"{ranks}; at least 1 is needed")
    if 0 < gpus < ranks:
        raise DataError(option, f"{ranks}; this machine has {gpus} GPUs, and each rank needs one")


def _check_port(args: argparse.Namespace) -> None:
    """Refuse a port that another run on this machine has taken, before ranks are started."""
    address = urlsplit(args.dist_url)
    if world_size(args) == 1 or args.machine_rank or address.scheme != "tcp" or not address.port:
        return
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((address.hostname or "", address.port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                return  # another machine's address, for instance: the ranks will say
            other = address.port + 1
            fault = f"the port {address.port} is in use, as by another run on this machine"
            raise DataError("--dist-url", f"{fault}: give another one, such as tcp://127.0.0.1:{other}") from None


def _num_gpus() -> int:
    """Number of GPUs that ranks may use."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
    return torch.cuda.device_count() if not hidden and torch.cuda.is_available() else 0


def rank(main: Callable[..., object], *args: object) -> None:
    """Run one rank: call ``main(*args)`` and leave the process group afterwards.

    A group that is left to the end of the interpreter may abort the process: gloo's threads hold tensors.

    Raises:
        SystemExit: as :func:`run`.
    """
    returned: list[object] = []
    try:
        with preemption.obeyed():
            _end_on_fault(lambda: returned.append(main(*args)))
    except preemption.Preempted:
        preemption.ignore()  # what is left is short
        if comm.is_main_process():
            print(
                f"stopped on request (status {preemption.REQUEUE}): the same command with --resume goes on",
                file=sys.stderr,
            )
        _leave()
        raise
    _leave()
    if isinstance(returned[0], int) and returned[0]:
        sys.exit(returned[0])


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _end_on_fault(body: Callable[[], object]) -> None:
    """End the process if the body meets bad input or a full disk, after printing a line."""

    def plain() -> None:
        try:
            body()
        except (DataError, OSError) as error:
            if cli.fault_of(error) is not None:
                _let_the_first_tell()
            raise

    status = cli.run(plain)
    if status:
        sys.exit(status)


def _let_the_first_tell() -> None:
    """Wait, on each of torchrun's ranks but the first of a machine, so that a fault common to all is told once.

    torchrun ends the others when the first ends. A fault that the first does not find is told after the wait.
    """
    if torch.distributed.is_torchelastic_launched() and int(os.environ["LOCAL_RANK"]) > 0:
        time.sleep(PATIENCE_S)


def _join() -> None:
    """Become one of torchrun's ranks, which the environment describes."""
    gpus = _num_gpus()
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl" if gpus else "gloo", timeout=DEFAULT_TIMEOUT)
    comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
    comm.synchronize()

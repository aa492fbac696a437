"""Processes that start in a moment, as they are forked from one that has imported what takes seconds to import."""

from __future__ import annotations

import multiprocessing
import os
import re
import runpy
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO

import torch.multiprocessing

SERVER = multiprocessing.get_context("forkserver")
_LIBRARIES = ["detectron2.engine", "matplotlib.pyplot", "highdicom", "pandas", "pyarrow.parquet", "scipy.stats"]
SERVER.set_forkserver_preload([*_LIBRARIES, "SimpleITK", "nibabel"])
LIMIT_S = 300
_START = torch.multiprocessing.start_processes


def start_ranks(work: Callable, args: tuple = (), nprocs: int = 1, **options):
    """Stands in for ``torch.multiprocessing.start_processes``, by which ranks are started: forks them."""
    options["start_method"] = SERVER.get_start_method()
    return _START(_rank, (_Streams(), work, os.environ.copy(), os.getcwd(), *args), nprocs, **options)


class _Streams:
    """Standard output and error of the process that starts another, which takes them over."""

    def __reduce__(self) -> tuple:
        return _take_over, (DupFd(1), DupFd(2))


def _take_over(*streams) -> None:
    for descriptor, stream in enumerate(streams, start=1):
        os.dup2(stream.detach(), descriptor)


def _rank(number: int, streams: None, work: Callable, variables: Mapping[str, str], folder: str, *args) -> None:
    _enter(variables, folder)
    work(number, *args)


def _enter(variables: Mapping[str, str], folder: str | Path) -> None:
    """Take over an environment and a working directory."""
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    torch.set_num_threads(int(variables.get("OMP_NUM_THREADS", torch.get_num_threads())))


def run_line(line: str, folder: Path, **variables: str) -> subprocess.CompletedProcess:
    """Run a command line `[VARIABLE=value ...] python script ...` in a folder, forked off the common imports.

    Args:
        line: as in a document.
        folder: the working directory.
        variables: of the environment.
    """
    words = shlex.split(line)
    while assigned := re.fullmatch(r"([A-Z_0-9]+)=(\S*)", words[0]):
        variables[assigned[1]] = assigned[2]
        words.pop(0)
    if words[0] == "lens-d2":
        words[:1] = ["python", "-m", "lens_d2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    if words[0] == "torchrun" or "--num-gpus" in words:  # ranks are processes of a launcher
        if words[0] == "torchrun":
            words[:1] = ["python", "-m", "torch.distributed.run"]
        command = [sys.executable, *words[1:]]
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT_S
        )
    assert words.pop(0) == "python"
    with tempfile.TemporaryDirectory() as scratch:
        streams = [Path(scratch) / name for name in ("stdout", "stderr")]
        process = SERVER.Process(target=_become, args=(words, folder, environment, streams))
        run_to_end(process)
        return subprocess.CompletedProcess(words, process.exitcode, *(path.read_text() for path in streams))


def run_to_end(process: multiprocessing.Process) -> None:
    """Start a process and wait until it has ended; kill it at the limit."""
    process.start()
    process.join(LIMIT_S)
    if process.is_alive():
        process.kill()
        process.join()


class Forked:
    """Stands in for ``subprocess.Popen`` of a command of Python, whose output goes to one file."""

    def __init__(self, command: list[str], cwd: Path, env: Mapping[str, str], stdout: IO, stderr: int):
        assert command[0] == sys.executable and stderr == subprocess.STDOUT
        streams = [Path(stdout.name)] * 2
        self._process = SERVER.Process(target=_become_child, args=(os.getpid(), command[1:], cwd, env, streams))
        self._process.start()
        self.terminate, self.wait = self._process.terminate, self._process.join

    def poll(self) -> int | None:
        return self._process.exitcode

    returncode = property(poll)


def _become_child(parent: int, words: list[str], *others) -> None:
    """Do what :func:`_become` does; a word that names the parent names the server, which is the parent here."""
    _become([str(os.getppid()) if word == str(parent) else word for word in words], *others)


def _become(words: list[str], folder: Path, variables: Mapping[str, str], streams: list[Path]) -> None:
    """Let this process, in a session of its own, do what `python words` does."""
    os.setsid()
    _enter(variables, folder)
    for descriptor, path in enumerate(streams, start=1):
        with open(path, "ab") as stream:
            os.dup2(stream.fileno(), descriptor)
    if words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        sys.path.insert(0, str(folder))
        exec(words[1], {"__name__": "__main__"})
        return
    if words[0] == "-m":
        sys.argv = words[1:]
        sys.path.insert(0, str(folder))
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        return
    sys.argv = words
    sys.path.insert(0, str(Path(words[0]).resolve().parent))
    runpy.run_path(words[0], run_name="__main__")

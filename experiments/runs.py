"""Parts that experiments share: calls of the project's commands, a cohort, its hidden truth, tables."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tabulate import tabulate

from lens_d2.evaluation.report import write_json
from lens_d2.io.errors import DataError
from lens_d2.io.files import write_whole
from lens_d2.phantom.cohort import GENERATOR, MANIFEST

ROOT = Path(__file__).resolve().parents[1]


def add_output_argument(parser: argparse.ArgumentParser, default: str, help: str = "folder to write") -> None:
    """Add ``--output``, an absolute path."""
    text = f"{help} (default: %(default)s)"
    parser.add_argument("--output", type=lambda path: Path(path).resolve(), default=default, help=text)


def call(*words: object) -> None:
    """Run a Python script of the project, given by its path and options, in the project's root.

    Raises:
        DataError: the script failed.
    """
    code = subprocess.run([sys.executable, *map(str, words)], cwd=ROOT).returncode
    if code:
        raise DataError(words[0], f"ended with exit code {code}; its last lines above say why")


def commit() -> str:
    """The commit of this repository, short: the environment's COMMIT, else what git says; empty without both."""
    if said := os.environ.get("COMMIT"):
        return said
    try:
        words = ["git", "rev-parse", "--short", "HEAD"]
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def write_cohort(root: Path, size: str, seed: int, config: str, workers: int | None = None) -> None:
    """Write and prepare a synthetic cohort, unless that is done; commands started from here find it afterwards.

    Args:
        root: of the datasets; the cohort is ``phantom`` below it.
        size: name of the cohort's size.
        seed: of the cohort.
        config: whose datasets are prepared.
        workers: processes; None: as many as the commands take by themselves.

    Raises:
        DataError: the cohort that is there was written by an earlier generator.
    """
    os.environ["DETECTRON2_DATASETS"] = str(root)
    if (root / "phantom" / MANIFEST).is_file() and (found := read_manifest(root).get("generator")) != GENERATOR:
        fault = f"a cohort of generator {found}, and here is {GENERATOR}: delete it, or give another --work"
        raise DataError(root / "phantom", fault)
    if (root / "prepared.json").is_file():
        return
    options = [] if workers is None else ["--workers", workers]
    if not (root / "phantom" / MANIFEST).is_file():
        call("datasets/prepare_phantom.py", "--size", size, "--seed", seed, "--output", root / "phantom", *options)
    call("datasets/prepare_datasets.py", "--config-file", config, *options)
    write_json(root / "prepared.json", {"size": size, "seed": seed})


@contextmanager
def timed(path: Path) -> Iterator[None]:
    """Add the seconds of a block to those in a file: a run that was stopped has those of all its parts."""
    began, before = time.monotonic(), json.loads(path.read_text()) if path.is_file() else 0.0
    try:
        yield
    finally:
        write_json(path, round(before + time.monotonic() - began, 1))


def read_manifest(root: Path) -> dict:
    """The generator's version and plan of a cohort below ``root``, without the counts."""
    manifest = json.loads((root / "phantom" / MANIFEST).read_text())
    return {key: value for key, value in manifest.items() if key != "counts"}


def read_hidden_truth(root: Path) -> dict[str, dict]:
    """The sub-volumes of a synthetic cohort by name, with all their lesions. Training and mining never open it.

    Raises:
        DataError: the cohort's folder has no such file, or it is damaged.
    """
    path = root / "hidden_truth.json"
    try:
        return json.loads(path.read_text())["volumes"]
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from None
    except (ValueError, KeyError) as error:
        raise DataError(path, f"no hidden truth ({error})") from None


def write_table(output: Path, rows: list, header: list[str] | str, content: object) -> str:
    """Write rows as ``results.md`` and content as ``results.json``; return the table in Markdown."""
    table = tabulate(rows, header, tablefmt="pipe", floatfmt=".4f")
    write_json(output / "results.json", content)
    write_whole(output / "results.md", f"{table}\n".encode())
    return table

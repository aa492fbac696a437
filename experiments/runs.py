"""Parts that experiments share: runs of the project's commands, results of these, tables over seeds."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tabulate import tabulate

from lens_d2.evaluation.report import write_json
from lens_d2.io.errors import DataError
from lens_d2.io.files import write_whole

ROOT = Path(__file__).resolve().parents[1]
# {seed: {name of a number: value, None if it is undefined}}
Results = dict[int, dict[str, float | None]]


def add_seed_arguments(parser: argparse.ArgumentParser, config_file: str, output: str) -> None:
    """Adds the options of an experiment that trains with several seeds."""
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--config-file", default=config_file, metavar="FILE", help="default: %(default)s")
    add_output_argument(parser, output)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="overrides of the config, after --")


def add_output_argument(parser: argparse.ArgumentParser, default: str, help: str = "folder to write") -> None:
    """Adds ``--output``, an absolute path."""
    text = f"{help} (default: %(default)s)"
    parser.add_argument("--output", type=lambda path: Path(path).resolve(), default=default, help=text)


def call(*words: object) -> None:
    """Runs a Python script of the project, given by its path and options, in the project's root.

    Raises:
        DataError: the script failed.
    """
    code = subprocess.run([sys.executable, *map(str, words)], cwd=ROOT).returncode
    if code:
        raise DataError(words[0], f"ended with exit code {code}; its last lines above say why")


def train(args: argparse.Namespace, folder: Path, *opts: object) -> None:
    """Runs train_net.py, which resumes where it stopped.

    Args:
        args: options of :func:`add_seed_arguments`.
        folder: its OUTPUT_DIR.
        opts: key, value, ... that overrule those of ``args``.
    """
    call("train_net.py", "--config-file", args.config_file, "--resume", *args.opts, "OUTPUT_DIR", folder, *opts)


def stage_result(folder: Path, stage: str) -> dict:
    """The result of a finished stage of a run."""
    return json.loads((folder / stage / "stage.json").read_text())["result"]


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


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are defined; None without any."""
    found = [value for value in values if value is not None]
    return statistics.mean(found) if found else None


def write_results(output: Path, results: Results, **content: object) -> str:
    """Writes ``results.json`` and ``results.md``: every number of every seed, and their means.

    Args:
        output: folder.
        results: so far.
        content: more entries of ``results.json``.

    Returns:
        the table in Markdown.
    """
    names = dict.fromkeys(name for own in results.values() for name in own)
    means = {name: mean_of(own.get(name) for own in results.values()) for name in names}
    rows = [[name, means[name], *(own.get(name) for own in results.values())] for name in names]
    header = ["", "mean", *(f"seed {seed}" for seed in results)]
    return write_table(output, rows, header, {**content, "seeds": results, "mean": means})


def write_table(output: Path, rows: list, header: list[str] | str, content: object) -> str:
    """Writes rows as ``results.md`` and content as ``results.json``; returns the table in Markdown."""
    table = tabulate(rows, header, tablefmt="pipe", floatfmt=".4f")
    write_json(output / "results.json", content)
    write_whole(output / "results.md", f"{table}\n".encode())
    return table

"""List of the model zoo, and its model cards: ``lens-d2 zoo``."""

from __future__ import annotations

import argparse

from tabulate import tabulate

from ..io.errors import DataError, did_you_mean
from ..io.zoo import CARDS, PREFIX, weights_file, weights_names


def run(args: argparse.Namespace) -> None:
    """Print the list, or the model card of ``args.name``.

    Raises:
        DataError: the zoo has no weights of that name.
    """
    if args.name:
        print(model_card(args.name))
        return
    rows = [
        [name, f"{PREFIX}{name}", f"{weights_file(name).stat().st_size / 1e6:.2f}"] for name in weights_names()
    ]
    print(tabulate(rows, ["name", "address", "MB"], disable_numparse=True))


def model_card(name: str) -> str:
    """Read the card of a model; its classifier's weights, ``<model>.fpr``, are on it as well.

    Raises:
        DataError: the zoo has no weights of that name.
    """
    path = CARDS / f"{name.partition('.')[0]}.md"
    if name not in weights_names() or not path.is_file():
        raise DataError(name, f"no such model in the zoo{did_you_mean(name, weights_names())}")
    return path.read_text()

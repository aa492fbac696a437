"""Results as JSON that is written whole and never holds NaN, and as tables for people."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from tabulate import tabulate

from ..io.files import whole_file, write_whole

_FLAT_LIST = re.compile(r"\[(?:[-\d.eE+,\s]|null)*\]")  # a list of numbers reads better on one line


def write_json(path, content, indent: int | None = 1) -> Path:
    """Write JSON to a temporary name and rename it.

    Raises:
        ValueError: a number is NaN or infinite.
        WriteError: the folder cannot be written to.
    """
    text = json.dumps(content, indent=indent, allow_nan=False)
    if indent:
        text = _FLAT_LIST.sub(lambda found: " ".join(found[0].split()).replace("[ ", "[").replace(" ]", "]"), text)
    return write_whole(path, f"{text}\n".encode())


def write_entries(path, entries: Iterable[tuple[str, list | dict]]) -> None:
    """Write a JSON object, entry by entry, so that only one of them is in memory as text.

    Args:
        path: of the file.
        entries: names and values.

    Raises:
        ValueError: a number is NaN or infinite.
        WriteError: the folder cannot be written to.
    """
    with whole_file(path) as temporary, open(temporary, "w") as file:
        between = "{"
        for name, value in entries:
            file.write(f"{between}{json.dumps(name)}: {json.dumps(value, allow_nan=False)}")
            between = ", "
        file.write("}\n" if between == ", " else "{}\n")


def froc_table(rows: Mapping[str, Mapping]) -> str:
    """Sensitivities as text.

    Args:
        rows: {name: metrics with fps, sensitivity, average_sensitivity[, ..._ci]}.
    """
    first = next(iter(rows.values()))
    header = ["false positives per volume", *(f"{f:g}" for f in first["fps"]), "average"]
    lines = []
    for name, metrics in rows.items():
        values = [*metrics["sensitivity"], metrics["average_sensitivity"]]
        lines.append([name, *(f"{value:.4f}" for value in values)])
        if "sensitivity_ci" in metrics:
            intervals = [*metrics["sensitivity_ci"], metrics["average_sensitivity_ci"]]
            lines.append(["  95% interval", *(f"{low:.3f}-{high:.3f}" for low, high in intervals)])
    return tabulate(lines, header, tablefmt="simple", disable_numparse=True)


def summary_table(metrics: Mapping) -> str:
    """Single numbers of metrics.json as text, one a line."""
    lines = []
    for key, value in metrics.items():
        if isinstance(value, Mapping) and key == "recall_at_precision":
            lines += [(f"recall, {name}" if name == "mean" else name, f"{v:.4f}") for name, v in value.items()]
        elif isinstance(value, int | float | str):
            lines.append((key, f"{value:.4f}" if isinstance(value, float) else str(value)))
    return tabulate(lines, tablefmt="plain", disable_numparse=True)

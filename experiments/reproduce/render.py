"""A table and its FROC curves from the records of its runs, beside the paper's numbers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate

from lens_d2.evaluation.bootstrap import draw_weights, interval, paired_comparison, resampled_sensitivities
from lens_d2.evaluation.curves import FrocEvents, read_highest
from lens_d2.evaluation.plots import plot_froc, plot_panels
from lens_d2.evaluation.protocols import PROTOCOLS
from lens_d2.evaluation.protocols.protocol import Protocol
from lens_d2.io.errors import DataError
from lens_d2.io.files import write_whole

from .records import events_in, events_of, numbers_of, read_record, record_path
from .tables import NOTED_SEEDS, Row, Table, words_of

AVERAGE = "average_sensitivity"
DRAWS, SEED = 1000, 0  # of the bootstrap
DASH = "–"
# Metrics that are no share: name -> factor, format and unit. All others are in per cent.
FORMATS = {
    "parameters": (1e-6, ".3f", " M"),
    "ms_per_slice": (1, ".1f", ""),
    **dict.fromkeys(("lesions", "boxes", "uncertain", "slices"), (1, ",.0f", "")),
}
PER_CENT, CORRELATION = (100, ".1f", ""), (1, ".3f", "")
PLAIN = "pearson of "  # beginning of the metrics that are correlations


@dataclass(frozen=True)
class Results:
    """Measured results of a row.

    Attributes:
        row: of the table.
        records: by seed; of those seeds alone whose run has been made.
    """

    row: Row
    records: Mapping[int, Mapping]

    def values(self, metric: str) -> dict[int, float]:
        """A metric by seed."""
        row = self.row
        numbers = {
            seed: numbers_of(record, row.stage, row.dataset, row.output, row.harvest)
            for seed, record in self.records.items()
        }
        return {seed: own[metric] for seed, own in numbers.items() if metric in own}

    def events(self) -> dict[int, dict]:
        """Compact events by seed; none of rows that are measured otherwise."""
        row = self.row
        if row.harvest:
            return {}
        found = {
            seed: events_in(record, row.stage, row.dataset, row.output) for seed, record in self.records.items()
        }
        return {seed: own for seed, own in found.items() if own is not None}


def read_results(table: Table, seeds: Sequence[int], output: Path) -> list[Results]:
    """The results of all rows.

    Raises:
        DataError: a record is damaged, or two are of cohorts that different generators have written.
    """
    results, generator = [], None
    for row in table.rows:
        found = {seed: read_record(output, row.run, table.cohort, seed) for seed in seeds}
        records = {seed: own for seed, own in found.items() if own is not None}
        for seed, record in records.items():
            generator = generator or record["cohort"].get("generator")
            if record["cohort"].get("generator") != generator:
                fault = "another generator or plan wrote its cohort than that of other records: delete the older"
                raise DataError(record_path(output, row.run, table.cohort, seed), fault)
        results.append(Results(row, records))
    return results


def render(table: Table, seeds: Sequence[int], output: Path) -> Path:
    """Write ``<table>.md`` and, if there are curves or points, ``<table>.png``.

    Args:
        table: to be written.
        seeds: of its runs.
        output: folder with the records in ``runs``.

    Returns:
        the page.
    """
    results = read_results(table, seeds, output)
    parts = [f"# {table.title}", f"{table.source}.", _body(table, results, seeds), _legend(table, seeds)]
    if table.figure and (curves := froc_curves(results)):
        plot_froc(output / f"{table.name}.png", curves, title=table.title)
        parts.append(f"![FROC curves, means over the seeds]({table.name}.png)")
    if table.points and (panels := points_of(results, table.compare)):
        plot_panels(output / f"{table.name}.png", panels, table.points, _heading_compared(table), table.title)
        parts.append(f"![{_heading_compared(table)}, means over the seeds]({table.name}.png)")
    parts.append(_provenance(table, results))
    if set(seeds) == set(NOTED_SEEDS) and any(own.records for own in results):
        parts.append(table.notes.strip())
    text = "\n\n".join(part for part in parts if part)
    return write_whole(output / f"{table.name}.md", f"{text}\n".encode())


def _heading_compared(table: Table) -> str:
    """The heading of the column that is compared."""
    return next((heading for heading, metric in table.columns.items() if metric == table.compare), table.compare)


def points_of(results: Sequence[Results], metric: str) -> dict[str, dict[str, dict[float, list[float]]]]:
    """A metric at the points of the rows that have one, as :func:`~lens_d2.evaluation.plots.plot_panels` draws."""
    panels: dict[str, dict[str, dict[float, list[float]]]] = {}
    for own in results:
        values = list(own.values(metric).values())
        if own.row.point and values:
            panel, line, x = own.row.point
            panels.setdefault(panel, {}).setdefault(line, {})[x] = values
    return panels


def _body(table: Table, results: Sequence[Results], seeds: Sequence[int]) -> str:
    """The table itself: for each row a line of what was measured and, if there are any, one of the paper's."""
    by_name = {own.row.name: own for own in results}
    gap = Gap(*(by_name[name] for name in table.gap)) if table.gap else None
    lines, before = [], ""
    for own in results:
        row = own.row
        cells = [_cell(list(own.values(metric).values()), metric) for metric in table.columns.values()]
        against = by_name.get(row.against)
        change = "" if against is None else difference(against, own, table.compare)
        named, before = f" vs {row.against}" if against and row.against != before else "", row.name
        shares = [gap.share(own)] if gap else []
        lines.append([row.name, *cells, f"{change}{named}", *shares, f"{len(own.records)} of {len(seeds)}"])
        if row.paper:
            paper = [str(row.paper.get(column, "")) for column in table.columns]
            change = _paper_difference(table, against and against.row, row)
            lines.append(["*paper*", *paper, change, *([""] if gap else []), ""])
    header = ["", *table.columns, "difference", *(["of the gap"] if gap else []), "seeds"]
    return tabulate(lines, header, tablefmt="pipe", disable_numparse=True)


def _cell(values: Sequence[float], metric: str) -> str:
    """Mean and, of several seeds, standard deviation; counts that are the same for all seeds have none."""
    if not values:
        return DASH
    factor, form, unit = _format_of(metric)
    text = f"{factor * statistics.mean(values):{form}}"
    if len(values) > 1 and (metric not in FORMATS or min(values) < max(values)):
        text += f" ± {factor * statistics.stdev(values):{form}}"
    return text + unit


def _format_of(metric: str) -> tuple[float, str, str]:
    """Factor, format and unit in which a metric is shown."""
    return FORMATS.get(metric, CORRELATION if metric.startswith(PLAIN) else PER_CENT)


def difference(first: Results, second: Results, metric: str) -> str:
    """By how much a metric of the second row is above the first's, as it is shown, over the seeds that both have.

    Of the average sensitivity with the 95% interval of the paired bootstrap over sub-volumes; of other metrics,
    which are not counted by sub-volume, with the standard deviation over seeds.
    """
    compared = compare(first, second) if metric == AVERAGE else None
    if compared:
        low, high = compared["difference_ci"]
        return f"{100 * compared['difference']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
    one, two = first.values(metric), second.values(metric)
    factor, form, _ = _format_of(metric)
    values = [factor * (two[seed] - one[seed]) for seed in one.keys() & two.keys()]
    if not values:
        return DASH
    deviation = f" ± {statistics.stdev(values):{form}}" if len(values) > 1 else ""
    return f"{statistics.mean(values):+{form}}{deviation}"


def compare(first: Results, second: Results) -> dict | None:
    """The paired bootstrap of two rows over the seeds of both; None if they share no seed or sub-volumes."""
    one, two = first.events(), second.events()
    seeds = sorted(one.keys() & two.keys())
    alike = [seed for seed in seeds if all(one[seed][key] == two[seed][key] for key in ("volumes", "protocol"))]
    if not alike:
        return None
    protocol = PROTOCOLS.get(one[alike[0]]["protocol"])()
    both = ([events_of(own[seed]) for seed in alike] for own in (one, two))
    return paired_comparison(*both, protocol, DRAWS, SEED)


class Gap:
    """The way between two rows, of which others come a share: average sensitivities, over the seeds of all."""

    def __init__(self, none: Results, everything: Results):
        self.ends = (none, everything)
        self._sampled: dict[tuple, tuple[float, np.ndarray]] = {}

    def share(self, own: Results) -> str:
        """Per cent of the gap that a row closes, with the 95% interval of a bootstrap over sub-volumes."""
        if own in self.ends:
            return ""
        seeds = tuple(sorted(set.intersection(*(set(each.events()) for each in (*self.ends, own)))))
        if not seeds:
            return DASH
        none, everything, value = (self._sample(each, seeds) for each in (*self.ends, own))
        if everything[0] <= none[0]:  # no gap to be closed, as where nothing is found
            return DASH
        with np.errstate(divide="ignore", invalid="ignore"):
            share, drawn = ((v - n) / (e - n) for n, e, v in zip(none, everything, value, strict=True))
            low, high = interval(drawn, share)
        return f"{share:.0%} ({low:.0%} to {high:.0%})"

    def _sample(self, own: Results, seeds: tuple[int, ...]) -> tuple[float, np.ndarray]:
        """A row's average sensitivity, mean over the seeds, and the same in each draw of sub-volumes."""
        key = (own.row.name, seeds)
        if key not in self._sampled:
            found = own.events()
            protocol = PROTOCOLS.get(found[seeds[0]]["protocol"])()
            events = [events_of(found[seed]) for seed in seeds]
            weights = draw_weights(events[0].num_volumes, DRAWS, SEED)
            drawn = [resampled_sensitivities(each, protocol.fps, weights, protocol.count_side) for each in events]
            mean = np.mean([protocol.sensitivities(each).mean() for each in events])
            self._sampled[key] = mean, np.mean([each.mean(axis=1) for each in drawn], axis=0)
        return self._sampled[key]


def _paper_difference(table: Table, before: Row | None, row: Row) -> str:
    """Difference between the paper's values of two rows in the compared column; empty unless it gives both."""
    columns = [column for column, metric in table.columns.items() if metric == table.compare]
    if before is None or not columns:
        return ""
    pair = [own.paper.get(columns[0]) for own in (before, row)]
    return "" if None in pair or any(isinstance(value, str) for value in pair) else f"{pair[1] - pair[0]:+.1f}"


def froc_curves(results: Sequence[Results]) -> dict[str, dict]:
    """Curves for :func:`plot_froc`: means over the seeds, with the 95% interval of the first row alone."""
    curves: dict[str, dict] = {}
    for own in results:
        compacted = list(own.events().values())
        if not compacted:
            continue
        protocol = PROTOCOLS.get(compacted[0]["protocol"])()
        events = [events_of(content) for content in compacted]
        grid = np.geomspace(protocol.fps[0] / 4, protocol.fps[-1], 200)
        curve = np.mean([read_highest(*protocol.curve(each), grid) for each in events], axis=0)
        sensitivity = np.mean([protocol.sensitivities(each) for each in events], axis=0)
        curves[own.row.name] = {
            "curve": (grid, curve),
            "fps": protocol.fps,
            "sensitivity": sensitivity,
            "average": float(sensitivity.mean()),
            "ci": None if curves else _bands(events, protocol),
        }
    return curves


def _bands(events: Sequence[FrocEvents], protocol: Protocol) -> list[tuple[float, float]]:
    """95% interval at each number of false positives of the mean over the seeds."""
    weights = draw_weights(events[0].num_volumes, DRAWS, SEED)
    drawn = [resampled_sensitivities(each, protocol.fps, weights, protocol.count_side) for each in events]
    return [interval(column, 0.0) for column in np.mean(drawn, axis=0).T]


def _legend(table: Table, seeds: Sequence[int]) -> str:
    """Sentences below a table, on how to read its numbers."""
    named = "the average sensitivity" if table.compare == AVERAGE else f"`{table.compare}`"
    spread = "95% interval of a paired bootstrap over the test sub-volumes, for the seeds that both rows have"
    spread = spread if table.compare == AVERAGE else "standard deviation over seeds"
    text = f"Shares in per cent, mean ± standard deviation over the seeds {', '.join(map(str, seeds))}."
    if any(row.against for row in table.rows):
        text += f" Difference: of {named} to the row before, or to the one that it names, with the {spread}."
    if table.gap:
        text += " Of the gap: of the way from '{}' to '{}', with the interval of the same bootstrap.".format(
            *table.gap
        )
    return f"{text} *Paper*: its numbers, on the real datasets. {DASH}: not made yet, or not defined."


def _provenance(table: Table, results: Sequence[Results]) -> str:
    """Cohort and overrides of the table; commits and machines of the runs."""
    cohort = f"Synthetic cohort {table.cohort.size}, seed {table.cohort.seed}"
    if table.over:
        cohort += f"; a trial, with `{' '.join(words_of(table.over))}`"
    records = [record for own in results for record in own.records.values()]
    if not records:
        return f"{cohort}."
    commits = sorted({record["commit"] for record in records if record["commit"]})
    machines = sorted({_machine(record) for record in records})
    made = {(own.row.run, seed): record["seconds"] for own in results for seed, record in own.records.items()}
    hours = sum(made.values()) / 3600
    return (
        f"{cohort}; commit {', '.join(commits) or 'unknown'}; {'; '.join(machines)}; {hours:.1f} hours of runs; "
        "records in `runs/`."
    )


def _machine(record: Mapping) -> str:
    machine = record["machine"]
    where = record.get("gpu") or f"{machine['cpu']}, {machine['threads']} thread{'s' * (machine['threads'] != 1)}"
    return f"{where}, torch {machine['torch']}"

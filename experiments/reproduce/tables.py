"""Tables of the papers as data: YAML files of rows, each the result of a run, and runs that rows share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import yaml

from lens_d2.io.artifacts import digest
from lens_d2.io.errors import DataError, did_you_mean
from lens_d2.io.files import read_bytes
from lens_d2.phantom.plan import SIZES

FOLDER = Path(__file__).resolve().parents[1] / "tables"
READERS_KEY = "DATASETS.READERS"
NOTED_SEEDS = (1, 2, 3)  # of the trainings that the notes of the tables are about


@dataclass(frozen=True)
class Cohort:
    """A synthetic cohort by the name of its size and its seed."""

    size: str
    seed: int


@dataclass(frozen=True)
class Given:
    """A file of another run that a run starts from.

    Attributes:
        run: that leaves the file.
        file: below the folder of that run.
        strategies: of a ledger, the strategies whose rows are taken; all if empty.
        labels: of a ledger of Lesion-Harvester, the sets of labels whose rows are taken (names of
            ``HARVEST.LABELS``); all if empty.
        verdicts: order of the queue, and number of the verdicts that the hidden truth gives on a ledger.
        value: of the config key, with ``{}`` in the place of the file's path.
    """

    run: Run
    file: str
    strategies: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    verdicts: tuple[str, int] | None = None
    value: str = "{}"


@dataclass(frozen=True)
class Run:
    """Something that is made once for each seed, whichever rows ask for it.

    Attributes:
        kind: of its making, a name in :data:`.work.KINDS`.
        config: of the training.
        opts: config key -> value, over the config.
        given: config key -> file of another run.
        members: runs whose detections are fused or compared.
    """

    kind: str
    config: str
    opts: Mapping[str, object] = field(default_factory=dict)
    given: Mapping[str, Given] = field(default_factory=dict)
    members: tuple[Run, ...] = ()

    @cached_property
    def id(self) -> str:
        """Identifier: the config's stem and a digest of :meth:`describe`, equal for runs that are made alike."""
        return f"{Path(self.config).stem}-{digest([self.describe()])[:10]}"

    def describe(self) -> dict:
        """Everything that a run depends on but the seed and the cohort, for JSON."""
        given = {
            key: {"run": of.run.id, "file": of.file, "strategies": list(of.strategies), "labels": list(of.labels)}
            | ({} if of.value == "{}" else {"value": of.value})
            | ({} if of.verdicts is None else {"verdicts": list(of.verdicts)})
            for key, of in self.given.items()
        }
        content = {"kind": self.kind, "config": self.config, "opts": dict(self.opts), "given": given}
        return json.loads(json.dumps(content | {"members": [run.id for run in self.members]}))

    @property
    def needs(self) -> tuple[Run, ...]:
        """Runs that have to be made before."""
        return tuple(dict.fromkeys([*(of.run for of in self.given.values()), *self.members]))

    def __hash__(self) -> int:
        return hash(self.id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and self.id == other.id


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        name: of the method, as the paper has it.
        run: that the row's figures come from.
        dataset: whose evaluation it is.
        stage: of the run that the evaluation belongs to; empty: the run has no stages.
        output: whose detections are evaluated: "" for the model's own, or an expert's name.
        harvest: label set of Lesion-Harvester's Table I that the figures are of; empty: those of an evaluation.
        against: name of the row that the difference is to; empty: no difference.
        paper: the paper's numbers by column.
        point: panel, line and x of the row in a figure of points; empty: it is not in one.
    """

    name: str
    run: Run
    dataset: str
    stage: str = ""
    output: str = ""
    harvest: str = ""
    against: str = ""
    paper: Mapping[str, float | str] = field(default_factory=dict)
    point: tuple[str, str, float] | tuple[()] = ()


@dataclass(frozen=True)
class Table:
    """A table of a paper.

    Attributes:
        name: of its file.
        title, source: in words; paper and number of the table.
        cohort: that it is made on.
        columns: heading -> name of a metric.
        compare: metric of the differences.
        rows: in their order.
        gap: names of the rows with no and with all of what the others recover a share of; empty: no such column.
        figure: whether FROC curves are drawn.
        points: x of a figure of ``compare`` at the points of the rows, in words; empty: no such figure.
        notes: of whoever has looked at the figures, in Markdown, about the file's own cohort and runs; empty for
            others.
        over: config key -> value, the overrides of a command over those of the file.
    """

    name: str
    title: str
    source: str
    cohort: Cohort
    columns: Mapping[str, str]
    compare: str
    rows: tuple[Row, ...]
    gap: tuple[str, ...] = ()
    figure: bool = True
    points: str = ""
    notes: str = ""
    over: Mapping[str, object] = field(default_factory=dict)

    @property
    def runs(self) -> list[Run]:
        """The runs of all rows, each after those that it needs."""
        return in_order(row.run for row in self.rows)


def in_order(runs: Iterable[Run]) -> list[Run]:
    """The runs and all that they need, each once and after those."""
    ordered: dict[Run, None] = {}

    def add(run: Run) -> None:
        for needed in run.needs:
            add(needed)
        ordered.setdefault(run)

    for run in runs:
        add(run)
    return list(ordered)


def words_of(opts: Mapping[str, object]) -> list[str]:
    """Overrides of a config as words of a command line: key, value, ..."""
    return [str(word) for pair in opts.items() for word in pair]


def merged(*opts: Mapping[str, object]) -> dict[str, object]:
    """Overrides with those that come after them, in the order in which they count."""
    result: dict[str, object] = {}
    for own in opts:
        result = {key: value for key, value in result.items() if key not in own} | dict(own)
    return result


def table_names() -> list[str]:
    """Names of the tables that there are."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_table(
    name: str, cohort: Mapping[str, object] | None = None, opts: Mapping[str, object] | None = None
) -> Table:
    """Read a table.

    Args:
        name: of a file in ``experiments/tables``, or the path of one elsewhere.
        cohort: takes the place of the file's, key by key.
        opts: config key -> value, over those of every row.

    Raises:
        DataError: there is no such table, or its file has an unknown or missing key or an unknown name.
    """
    return _Reader(name, cohort or {}, opts or {}).table()


# Keys of a run, which a row has as well; of a row alone; of a table.
MAKING = ("run", "config", "opts", "readers", "given", "ensemble", "study", "ledger")
SHOWN = ("stage", "dataset", "output", "harvest", "against", "paper", "point")
REQUIRED = ("title", "source", "cohort", "dataset", "columns", "rows")
OPTIONAL = ("config", "opts", "compare", "runs", "gap", "figure", "points", "notes")
OF_MEMBERS = ("ensemble", "study")  # kinds of runs that other runs are members of, and the keys that name these
MAPPINGS = ("cohort", "columns", "runs", "opts", "given", "ledger", "paper")
LISTS = ("rows", "gap", "point", "ensemble", "study", "strategies", "labels", "verdicts")


class _Reader:
    """Makes the objects of one file; runs of other tables are named ``table/name``."""

    def __init__(self, name: str, cohort: Mapping[str, object], opts: Mapping[str, object]):
        self.path = Path(name) if str(name).endswith(".yaml") else FOLDER / f"{name}.yaml"
        if not self.path.is_file():
            raise DataError(name, f"no such table{did_you_mean(name, table_names())}")
        try:
            content = yaml.safe_load(read_bytes(self.path))
        except yaml.YAMLError as error:
            raise DataError(self.path, f"not readable as YAML: {error}") from None
        self.cohort, self.over = cohort, opts
        self.others: dict[str, _Reader] = {}
        self.content = self._known("the table", content, REQUIRED, OPTIONAL)
        self.rows = [self._known("a row", row, ("name",), (*MAKING, *SHOWN)) for row in self.content["rows"]]
        shared = self.content.get("runs") or {}
        named = [*shared, *(row["name"] for row in self.rows)]
        if twice := [entry for entry in named if named.count(entry) > 1]:
            raise DataError(self.path, f"two rows or runs are called {twice[0]}; give each a name of its own")
        self.entries = {key: self._known(f"run {key}", entry, (), MAKING) for key, entry in shared.items()}
        self.entries |= {row["name"]: row for row in self.rows}
        self.runs: dict[str, Run | None] = {}

    def _known(self, where: str, content, required: Sequence[str], optional: Sequence[str] = ()) -> dict:
        """The content of a mapping: all required keys, no unknown ones, lists and mappings where they belong."""
        keys = [*required, *optional]
        if not isinstance(content, Mapping):
            raise DataError(self.path, f"{where} is no mapping; its keys are {', '.join(keys)}")
        for key in content:
            if key not in keys:
                raise DataError(self.path, f"{where} has an unknown key {key}{did_you_mean(str(key), keys)}")
        for key in required:
            if content.get(key) in (None, {}, []):
                raise DataError(self.path, f"{where} has no {key}")
        for keys, kind, word in ((MAPPINGS, Mapping, "mapping"), (LISTS, list, "list")):
            for key in keys:
                if content.get(key) is not None and not isinstance(content[key], kind):
                    raise DataError(self.path, f"{where}: {key} is {content[key]!r}, and a {word} belongs there")
        return dict(content)

    def table(self) -> Table:
        """The table of the file."""
        content = self.content
        cohort = self._known("cohort", {**content["cohort"], **self.cohort}, ("size", "seed"))
        if cohort["size"] not in SIZES or type(cohort["seed"]) is not int:
            fault = f"cohort is {cohort}; a size ({', '.join(SIZES)}) and a whole number as seed are needed"
            raise DataError(self.path, fault)
        is_own = cohort == content["cohort"] and not self.over
        before = ["", *(row["name"] for row in self.rows)]
        return Table(
            name=self.path.stem,
            title=content["title"],
            source=content["source"],
            cohort=Cohort(**cohort),
            columns=content["columns"],
            compare=content.get("compare", "average_sensitivity"),
            rows=tuple(self._row(row, last) for row, last in zip(self.rows, before, strict=False)),
            gap=self._ends(content.get("gap") or ()),
            figure=content.get("figure", True),
            points=content.get("points", ""),
            notes=(content.get("notes") or "") if is_own else "",
            over=self.over,
        )

    def _ends(self, names: Sequence[str]) -> tuple[str, ...]:
        """The two rows of a gap."""
        known = [row["name"] for row in self.rows]
        if names and (len(names) != 2 or not set(names) <= set(known)):
            raise DataError(self.path, f"gap is {list(names)}; it has to name two rows of the table")
        return tuple(names)

    def _row(self, row: dict, before: str) -> Row:
        against, columns = row.get("against", before), self.content["columns"]
        names = [each["name"] for each in self.rows]
        if against and against not in names:
            raise DataError(self.path, f"{row['name']}: no row {against}{did_you_mean(str(against), names)}")
        for column in row.get("paper") or {}:
            if column not in columns:
                raise DataError(self.path, f"{row['name']}: no column {column}{did_you_mean(column, columns)}")
        point = tuple(row.get("point") or ())
        if point and (len(point) != 3 or not isinstance(point[2], int | float)):
            raise DataError(
                self.path, f"{row['name']}: point is {list(point)}; panel, line and a number are needed"
            )
        return Row(
            name=row["name"],
            run=self.run(row["name"]),
            dataset=row.get("dataset", self.content["dataset"]),
            against=against or "",
            paper=row.get("paper") or {},
            point=point,
            **{key: row[key] for key in ("stage", "output", "harvest") if key in row},
        )

    def _entry(self, name: str) -> dict:
        if name not in self.entries:
            raise DataError(self.path, f"no row or run {name}{did_you_mean(str(name), self.entries)}")
        return self.entries[name]

    def _other(self, name: str) -> _Reader:
        if name not in self.others:
            self.others[name] = _Reader(name, self.cohort, self.over)
        return self.others[name]

    def run(self, name: str) -> Run:
        """The run of a name: of a row or of ``runs``, or ``table/name`` of another table."""
        table, _, there = str(name).partition("/")
        if there and name not in self.entries:
            return self._other(table).run(there)
        if name not in self.runs:
            self.runs[name] = None  # until it is made
            self.runs[name] = self._make(name, self._entry(name))
        if (run := self.runs[name]) is None:
            raise DataError(self.path, f"{name} needs itself")
        return run

    def _make(self, name: str, entry: dict) -> Run:
        if "run" in entry:
            return self.run(entry["run"])
        config = entry.get("config", self.content.get("config"))
        if not config:
            raise DataError(self.path, f"{name} has no config, and the table has none for all rows")
        opts = merged(self.content.get("opts") or {}, entry.get("opts") or {}, self.over)
        if entry.get("readers"):
            opts[READERS_KEY] = entry["readers"]
        kind = next((key for key in OF_MEMBERS if entry.get(key)), "training")
        members = tuple(run for member in entry.get(kind, ()) for run in self._members(member))
        given = {key: self._given(name, of) for key, of in (entry.get("given") or {}).items()}
        if entry.get("ledger"):
            kind = "ledger"
            given["HARVEST.OTHER_LEDGERS"] = replace(
                self._given(name, entry["ledger"]), value=f"(({name!r}, '{{}}'),)"
            )
        return Run(kind, config, opts, given, members)

    def _members(self, name: str) -> list[Run]:
        """A run; those of all rows, if another table is named."""
        if name in self.entries or "/" in name:
            return [self.run(name)]
        return list(dict.fromkeys(row.run for row in self._other(name).table().rows))

    def _given(self, name: str, content) -> Given:
        optional = ("strategies", "labels", "verdicts", "value")
        content = self._known(f"given of {name}", content, ("run", "file"), optional)
        lists = {key: tuple(content[key]) for key in ("strategies", "labels", "verdicts") if key in content}
        if "labels" in lists and len(lists) > 1:
            raise DataError(self.path, f"given of {name}: labels, which are a harvest's, go with nothing else")
        return Given(self.run(content["run"]), content["file"], **lists, value=content.get("value", "{}"))

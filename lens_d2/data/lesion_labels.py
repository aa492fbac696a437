"""Labels of lesions (body part, type, attribute) as released with LesaNet, and their relations.

Labels are mined from reports: what a report leaves out may hold all the same. So a label of a lesion is either
certain (relevant, or implied by a relevant one as its parent); or doubtful; or excluded by a relevant one (a
reliable negative); or not mentioned.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ..io.errors import DataError
from ..io.formats import SPLITS, load_json
from ..io.tables import read_rows
from .datasets.catalog import default_root

_COLUMNS = ("class", "term", "term_exclusive", "term_parents")
_TABLES = {
    ".xlsx": lambda path: pd.read_excel(path, dtype=str, keep_default_na=False, engine="openpyxl"),
    ".csv": lambda path: pd.read_csv(path, dtype=str, keep_default_na=False),
}


class Term(NamedTuple):
    """A term of the ontology.

    Attributes:
        kind: "bodypart", "type" or "attribute".
        parents: the terms that it implies.
        exclusive: the terms that it rules out.
    """

    kind: str
    parents: tuple[str, ...]
    exclusive: tuple[str, ...]


def read_ontology(path: str | PathLike) -> dict[str, Term]:
    """Read the label relations of ``lesion_ontology_181022.xlsx``, or of a CSV file with the same columns.

    Parents and exclusive labels without a row of their own are kept by name.

    Raises:
        DataError: the file is missing, is no table, lacks a column, or has a term twice.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _TABLES:
        raise DataError(path, f"not one of {', '.join(_TABLES)}")
    try:
        table = _TABLES[suffix](path).fillna("")
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(path, f"not a table ({error})") from None
    absent = [column for column in _COLUMNS if column not in table.columns]
    if absent:
        raise DataError(path, f"no column {', '.join(absent)}")
    ontology: dict[str, Term] = {}
    for row, (kind, name, exclusive, parents) in enumerate(table[list(_COLUMNS)].itertuples(index=False), start=2):
        if not name or name in ontology:
            raise DataError(path, f"row {row}: the term {name!r} is {'there twice' if name else 'empty'}")
        ontology[name] = Term(kind, _split(parents), _split(exclusive))
    return ontology


def _split(cell: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in cell.split("|") if part.strip())


class LesionLabels(NamedTuple):
    """Labels of one lesion.

    Attributes:
        relevant, uncertain: numbers of terms, each once.
    """

    relevant: tuple[int, ...]
    uncertain: tuple[int, ...]


@dataclass(frozen=True)
class LabelFile:
    """A file of text-mined labels.

    Attributes:
        terms: C names, in the order of their numbers.
        lesions: for each split, the labels of lesions by their row in ``DL_info.csv``, from 0.
    """

    terms: tuple[str, ...]
    lesions: dict[str, dict[int, LesionLabels]]


def read_labels(path: str | PathLike) -> LabelFile:
    """Read ``text_mined_labels_171_and_split.json``, or a file of the same layout.

    Raises:
        DataError: the file is missing, is no JSON, lacks a list, has lists of different lengths, has a row twice,
            or has a number that belongs to no term.
    """
    content = load_json(path)
    if not isinstance(content, dict):
        raise DataError(path, "holds no term_list")
    terms = content.get("term_list")
    if not _all_of(terms, str) or len(set(terms)) < len(terms):
        raise DataError(path, "term_list is not a list of names, each once")
    return LabelFile(tuple(terms), {split: _read_split(path, content, split, len(terms)) for split in SPLITS})


def _read_split(path: str | PathLike, content: dict, split: str, num_terms: int) -> dict[int, LesionLabels]:
    names = [f"{split}_lesion_idxs", f"{split}_relevant_labels", f"{split}_uncertain_labels"]
    lists = [content.get(name) for name in names]
    for name, values in zip(names, lists, strict=True):
        if not isinstance(values, list) or len(values) != len(lists[0]):
            raise DataError(path, f"{name} is missing or not as long as {names[0]}")
    rows, *labels = lists
    if not _all_of(rows, int) or min(rows, default=0) < 0 or len(set(rows)) < len(rows):
        raise DataError(path, f"{names[0]} does not hold row numbers, each once")
    for name, values in zip(names[1:], labels, strict=True):
        for number, value in enumerate(values):
            if not _all_of(value, int) or any(not 0 <= term < num_terms for term in value):
                raise DataError(path, f"{name}, entry {number}: {value!r} are not numbers of {num_terms} terms")
    return {
        row: LesionLabels(tuple(dict.fromkeys(relevant)), tuple(dict.fromkeys(uncertain)))
        for row, relevant, uncertain in zip(rows, *labels, strict=True)
    }


def read_hand_labels(path: str | PathLike) -> dict[int, tuple[str, ...]]:
    """Read ``hand_labeled_test_set.json``: the names of a lesion's labels, by its row in ``DL_info.csv`` from 0.

    Raises:
        DataError: the file is missing, is no JSON or has another layout.
    """
    content = load_json(path)
    try:
        return {int(entry["lesion_idx"]): tuple(map(str, entry["expanded_terms"])) for entry in content}
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(path, f"not a list of lesion_idx and expanded_terms ({error})") from None


def _all_of(values, kind: type) -> bool:
    return isinstance(values, list) and all(type(value) is kind for value in values)


class Targets(NamedTuple):
    """Training targets of n lesions and C labels, each (n, C) bool.

    Attributes:
        positive: the label holds.
        known: False for a doubtful label, which is neither positive nor negative.
        reliable: positive, or excluded by a positive label; other negatives were merely not mentioned.
    """

    positive: np.ndarray
    known: np.ndarray
    reliable: np.ndarray


@dataclass(frozen=True)
class LabelRelations:
    """Hierarchy and exclusions of C labels.

    Attributes:
        implies: (C, C) bool, [i, j]: label i implies j, its parent or an ancestor; not itself.
        excludes: (C, C) bool, symmetric: i and j cannot both hold, because of themselves or of labels that they
            imply. A label never excludes what it implies.
    """

    implies: np.ndarray
    excludes: np.ndarray

    @classmethod
    def from_ontology(cls, terms: Iterable[str], ontology: Mapping[str, Term]) -> LabelRelations:
        """The relations of some terms, also through other terms. Unknown terms have none."""
        terms = tuple(terms)
        names = {name: number for number, name in enumerate(dict.fromkeys([*terms, *_all_names(ontology)]))}
        reach, exclusive = np.eye(len(names), dtype=bool), np.zeros((len(names), len(names)), dtype=bool)
        for name, term in ontology.items():
            reach[names[name], [names[p] for p in term.parents]] = True
            exclusive[names[name], [names[e] for e in term.exclusive]] = True
        while (further := _compose(reach, reach)).sum() > reach.sum():
            reach = further  # each term and all that it implies
        inherited = _compose(_compose(reach, exclusive | exclusive.T), reach.T)
        related = reach | reach.T
        own = np.ix_(range(len(terms)), range(len(terms)))
        implies = reach[own]
        np.fill_diagonal(implies, False)
        return cls(implies, (inherited & ~related)[own])

    def targets(self, lesions: Iterable[LesionLabels]) -> Targets:
        """Training targets of n lesions: parents are added, exclusive labels are reliable negatives."""
        lesions, count = list(lesions), len(self.implies)
        relevant, uncertain = np.zeros((2, len(lesions), count), dtype=bool)
        for i, labels in enumerate(lesions):
            relevant[i, list(labels.relevant)] = True
            uncertain[i, list(labels.uncertain)] = True
        upwards = self.implies | np.eye(count, dtype=bool)
        positive, doubted = _compose(relevant, upwards), _compose(uncertain, upwards)
        excluded = _compose(positive, self.excludes)
        known = positive | excluded | ~doubted
        return Targets(positive, known, positive | excluded)


def _compose(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The relation of i to k through any j: (a, b) and (b, c) bool -> (a, c) bool."""
    return first.astype(np.float32) @ second.astype(np.float32) > 0


def _all_names(ontology: Mapping[str, Term]) -> Iterable[str]:
    for name, term in ontology.items():
        yield from (name, *term.parents, *term.exclusive)


def class_weights(positive: np.ndarray, max_positive: float = 300.0) -> tuple[np.ndarray, np.ndarray]:
    """(C,) weights of a positive and of a negative label with which both classes count equally.

    They are N / 2P, at most ``max_positive``, and N / 2(N - P), if P of N lesions have the label (LesaNet, MULAN).

    Args:
        positive: (N, C) bool, the label holds.
        max_positive: the most that a positive label weighs.
    """
    count, of_label = len(positive), positive.sum(axis=0)
    weight = np.minimum(count / np.maximum(2 * of_label, 1), max_positive)
    return weight, count / np.maximum(2 * (count - of_label), 1)


def label_path(name: str) -> Path:
    """Path of a file of labels, below the dataset folder unless absolute."""
    return default_root() / name


def read_label_files(cfg: CfgNode) -> tuple[LabelFile, LabelRelations]:
    """Read the labels of ``MODEL.EMBEDDING.LABELS`` and their relations in ``MODEL.EMBEDDING.ONTOLOGY``.

    Raises:
        DataError: a file cannot be read, or the ``DL_info.csv`` of a dataset that is learnt from has fewer rows
            than the labels count.
    """
    path = label_path(cfg.MODEL.EMBEDDING.LABELS)
    labels = read_labels(path)
    last = max((row for lesions in labels.lesions.values() for row in lesions), default=-1)
    names = (*cfg.MODEL.EMBEDDING.DATASETS, *cfg.DATASETS.TRAIN)
    tables = {MetadataCatalog.get(name).get("mark_table") for name in names} - {None}
    for table in filter(os.path.isfile, tables):
        count = sum(1 for _ in read_rows(table, ["File_name"]))
        if count <= last:
            fault = f"has labels up to row {last}, and {table} has {count} rows: take the table as it was released"
            raise DataError(path, fault)
    ontology = read_ontology(label_path(cfg.MODEL.EMBEDDING.ONTOLOGY))
    return labels, LabelRelations.from_ontology(labels.terms, ontology)


@dataclass(frozen=True)
class TagTargets:
    """Labels of the training split's lesions, as a tag head learns them (MULAN).

    Attributes:
        rows: number of each lesion by its row in ``DL_info.csv``.
        positive: (n, C) bool, the label holds.
        weight: (n, C) of each label in the loss, by :func:`class_weights`; 0 if it is doubtful.
        experts: of the training datasets with a ``DL_info.csv``, whose lesions are labelled.
    """

    rows: Mapping[int, int]
    positive: np.ndarray
    weight: np.ndarray
    experts: frozenset[str]

    @classmethod
    def from_config(cls, cfg: CfgNode) -> TagTargets:
        """Read the label files of ``MODEL.EMBEDDING``.

        Raises:
            DataError: a file cannot be read, or has another number of labels than ``MODEL.MULAN.NUM_TAGS``.
        """
        labels, relations = read_label_files(cfg)
        found, wanted = len(labels.terms), cfg.MODEL.MULAN.NUM_TAGS
        if found != wanted:
            path = label_path(cfg.MODEL.EMBEDDING.LABELS)
            raise DataError("MODEL.MULAN.NUM_TAGS", f"{wanted}, and {path} has {found} labels: set it to {found}")
        own = {row: value for row, value in labels.lesions["train"].items() if value.relevant}
        targets = relations.targets(own.values())
        weights = class_weights(targets.positive, cfg.MODEL.EMBEDDING.MAX_POSITIVE_WEIGHT)
        weight = np.where(targets.positive, *weights) * targets.known
        trained = [MetadataCatalog.get(name) for name in cfg.DATASETS.TRAIN]
        experts = frozenset(own.expert for own in trained if own.get("mark_table"))
        numbers = {row: number for number, row in enumerate(own)}
        return cls(numbers, targets.positive, weight.astype(np.float32), experts)

    def of(self, lesions: Iterable[dict], expert: str) -> dict[str, np.ndarray]:
        """{"tags": (n, C) bool, "tag_weights": (n, C)} of n lesions of a record; those without labels weigh 0.

        Args:
            lesions: of the record.
            expert: of the record.
        """
        rows = self.rows if expert in self.experts else {}
        numbers = [rows.get(mark_row(lesion), -1) for lesion in lesions]
        known = np.array([number >= 0 for number in numbers], dtype=bool)[:, None]
        numbers = np.array(numbers, dtype=np.int64)
        return {"tags": self.positive[numbers] & known, "tag_weights": self.weight[numbers] * known}


def mark_row(lesion: dict) -> int | None:
    """The row in ``DL_info.csv`` of a lesion of DeepLesion's official splits; None for other lesions."""
    last = lesion["id"].rpartition("/")[2]
    return int(last) if lesion["recist"] is not None and last.isdigit() else None

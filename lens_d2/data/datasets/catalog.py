"""Registration of datasets in Detectron2, each under its name and, for the synthetic cohort, ``phantom_<name>``.

A dataset's module calls :func:`register` at its end. Registering opens no file: files are read when
``DatasetCatalog.get(name)`` is called.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from ...io.errors import DataError
from ...io.files import write_whole
from ...io.formats import LENS, FileFrame

logger = logging.getLogger(__name__)

PHANTOM = "phantom"
TRAINING_PART, SPLIT_SEED = 0.8, 2020  # of the split of patients (LENS, Section VI-A)
LEFT_OUT, WARNED_OF = "left_out", "warned_of"  # folders of the lists that a preparation writes


class Faults(dict[str, DataError]):
    """Errors, by sub-volume or row, that are collected while the rest of a dataset is read.

    Attributes:
        warnings: ``{sub-volume: lines}`` on what is odd but used.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.warnings: dict[str, list[str]] = {}

    def add(self, entry: str, error: DataError) -> None:
        """Add the error of a sub-volume or row, unless it has one."""
        self.setdefault(entry, error)

    def warn(self, entry: str, texts: Iterable[str]) -> None:
        """Add oddities of a sub-volume, each line once."""
        known = self.warnings.get(entry, [])
        if new := [text for text in dict.fromkeys(texts) if text not in known]:
            self.warnings[entry] = known + new


@dataclass(frozen=True)
class Dataset:
    """A registered dataset.

    Attributes:
        name: as in ``cfg.DATASETS``; ``phantom_`` names are derived from it.
        read: ``read(root, faults, processes)`` gives the sound records below ``root``, adds the errors of others
            to ``faults``, and raises DataError if nothing can be read at all.
        expert: the head that learns from it, ``record["expert"]``.
        fully_labelled: whether all lesions of its kind are annotated.
        truth_is_3d: whether its lesions have 3D boxes.
        evaluator_type: protocol of its evaluation, "lens3d" or "p3d", or a list of both
            (:data:`lens_d2.engine.evaluation.EVALUATORS`).
        file_frame: the numbers in which predictions for it are written, those of its annotation files.
        mark_table: below ``root``, its ``DL_info.csv``, if it has one.
    """

    name: str
    read: Callable[[Path, Faults, int], list[dict]] = field(repr=False)
    expert: str
    fully_labelled: bool = True
    truth_is_3d: bool = True
    evaluator_type: str | Sequence[str] = "lens3d"
    file_frame: FileFrame = LENS
    mark_table: str | None = None


DATASETS: dict[str, Dataset] = {}


def default_root() -> Path:
    """The folder of the datasets: the environment's DETECTRON2_DATASETS, else ``datasets``."""
    return Path(os.path.expanduser(os.getenv("DETECTRON2_DATASETS") or "datasets"))


def register(dataset: Dataset) -> None:
    """Register a dataset and its synthetic twin, with their data below :func:`default_root`.

    Raises:
        DataError: there is another one of this name, from another file.
    """
    known = DATASETS.get(dataset.name)
    if known is not None and _module_of(known) != _module_of(dataset):
        raise DataError(dataset.name, f"a dataset of this name is registered already, by {_module_of(known)}")
    if dataset.name.removeprefix(f"{PHANTOM}_") in DATASETS.keys() - {dataset.name}:
        raise DataError(dataset.name, "this is the name of a synthetic twin, give it another one")
    DATASETS[dataset.name] = dataset
    _register(dataset.name, dataset, default_root())
    _register(f"{PHANTOM}_{dataset.name}", dataset, default_root() / PHANTOM)


def _module_of(dataset: Dataset) -> str:
    """Module of the function that reads a dataset."""
    read = dataset.read
    while isinstance(read, partial):
        read = read.func
    return read.__module__


def register_all(root: str | os.PathLike | None) -> None:
    """Register all datasets and their synthetic twins anew, with their data below ``root``; None: leave them.

    From then on ``root`` is :func:`default_root`, of this process and of those that it starts.
    """
    if not root:
        return
    os.environ["DETECTRON2_DATASETS"] = os.fspath(root)
    for name, dataset in DATASETS.items():
        _register(name, dataset, Path(root))
        _register(f"{PHANTOM}_{name}", dataset, Path(root) / PHANTOM)


def partially_labelled(names: Iterable[str]) -> dict[str, str]:
    """Those of some registered datasets that are partially labelled, and the expert of each."""
    metadata = {name: MetadataCatalog.get(name) for name in names}
    return {name: own.expert for name, own in metadata.items() if not own.fully_labelled}


def register_derived(name: str, dataset: str, read: Callable[[], list[dict]], **changes) -> None:
    """Register a dataset that is derived from a registered one; replace any of its name.

    Args:
        name: of the new dataset.
        dataset: name of the other one, whose metadata the new one inherits.
        read: gives its records.
        changes: metadata that differ.
    """
    metadata = {key: value for key, value in MetadataCatalog.get(dataset).as_dict().items() if key != "name"}
    _replace(name, read, **metadata | changes)


def _replace(name: str, read: Callable[[], list[dict]], **metadata) -> None:
    for catalog in (DatasetCatalog, MetadataCatalog):
        if name in catalog.list():
            catalog.remove(name)
    DatasetCatalog.register(name, read)
    MetadataCatalog.get(name).set(**metadata)


def _register(name: str, dataset: Dataset, root: Path) -> None:
    _replace(
        name,
        lambda: load(name),
        thing_classes=["lesion"],
        expert=dataset.expert,
        fully_labelled=dataset.fully_labelled,
        truth_is_3d=dataset.truth_is_3d,
        evaluator_type=dataset.evaluator_type,
        file_frame=dataset.file_frame,
        mark_table=dataset.mark_table and str(root / dataset.mark_table),
        dataset=dataset.name,
        root=str(root),
    )


READER = "lens_d2_reader_"  # begins the names of the modules that the files of DATASETS.READERS become


def imported_readers() -> list[str]:
    """The files of ``cfg.DATASETS.READERS`` that have been run."""
    return [str(module.__file__) for name, module in sorted(sys.modules.items()) if name.startswith(READER)]


def import_readers(paths: Iterable[str | os.PathLike]) -> None:
    """Run the Python files of ``cfg.DATASETS.READERS``, which call :func:`register`, each once.

    Raises:
        DataError: a file is absent, or running it fails.
    """
    for given in paths:
        if not isinstance(given, (str, os.PathLike)):
            raise DataError("DATASETS.READERS", f"{given!r} is no path")
        path = Path(given)
        name = f"{READER}{path.stem}_{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:8]}"
        if name in sys.modules:
            continue
        spec = importlib.util.spec_from_file_location(name, path.resolve())
        if spec is None or spec.loader is None or not path.is_file():
            raise DataError(path, "no such Python file (DATASETS.READERS, which prediction can do without)")
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # whatever is wrong with it
            del sys.modules[name]
            raise DataError(path, f"cannot be imported: {type(error).__name__}: {error}") from error


def shuffled_patients(patients: Iterable[str], seed: int) -> list[str]:
    """Order patients at random, each once and in the same way on every machine: by a hash of their name.

    Args:
        patients: their names.
        seed: of the order.
    """
    return sorted(set(patients), key=lambda patient: hashlib.sha256(f"{seed}/{patient}".encode()).digest())


def split_of(patients: Iterable[str], seed: int = SPLIT_SEED) -> dict[str, str]:
    """Split patients at random, in the same way on every machine: ``{patient: "train" | "val"}``.

    The first fifth of :func:`shuffled_patients` is for validation. If patients are added, only those at the border
    between the two parts can change sides; the split is final once the dataset is complete.

    Args:
        patients: their names.
        seed: of the split.
    """
    ranked = shuffled_patients(patients, seed)
    validating = round(len(ranked) * (1 - TRAINING_PART))
    return {patient: "val" if rank < validating else "train" for rank, patient in enumerate(ranked)}


def root_of(name: str) -> Path:
    """The folder from which the dataset registered as ``name`` is read."""
    return Path(MetadataCatalog.get(name).root)


def read(name: str, faults: Faults, processes: int = 1) -> list[dict]:
    """Read the sound records of the dataset registered as ``name``; add the errors of others to ``faults``.

    Raises:
        DataError: nothing can be read at all, or two sub-volumes have one name.
    """
    records = list(DATASETS[MetadataCatalog.get(name).dataset].read(root_of(name), faults, processes))
    seen: set[str] = set()
    for record in records:
        record["expert"] = MetadataCatalog.get(name).expert
        if record["volume"] in seen:
            raise DataError(record["file_name"], f"{name} has a sub-volume {record['volume']!r} already")
        seen.add(record["volume"])
        boxes = [str(lesion["boxes"]) for lesion in record["lesions"] if lesion["boxes"]]
        if len(set(boxes)) < len(boxes):
            faults.warn(record["volume"], [f"{len(boxes) - len(set(boxes))} lesions appear twice"])
    return records


def load(name: str) -> list[dict]:
    """Load the records of a registered dataset; ``DatasetCatalog.get(name)`` calls this.

    What ``datasets/prepare_datasets.py`` has found and listed as unsound is left out with a warning.

    Raises:
        DataError: something else is unsound.
    """
    faults, left_out = Faults(), read_list(name, LEFT_OUT)
    records = read(name, faults)
    for entry, error in faults.items():
        if entry not in left_out:
            hint = "datasets/prepare_datasets.py lists everything unsound, and leaves it out"
            raise DataError(error.path, f"{error.fault} ({hint})")
    sound = [record for record in records if record["volume"] not in left_out]
    if left_out:
        entry, reason = next(iter(left_out.items()))
        logger.warning(
            f"{name}: {len(left_out)} left out by prepare_datasets.py, {len(sound)} sub-volumes are used "
            f"({entry}: {reason}; all in {list_file(name, LEFT_OUT)})"
        )
    if warned := read_list(name, WARNED_OF):
        entry, reason = next(iter(warned.items()))
        logger.warning(
            f"{name}: prepare_datasets.py warned of {len(warned)} sub-volumes "
            f"({entry}: {reason}; all in {list_file(name, WARNED_OF)})"
        )
    return sound


def cache_folder(root: Path) -> Path:
    """The folder of everything that is computed from the datasets below ``root``."""
    return root / "cache"


def list_file(name: str, kind: str) -> Path:
    """File of a list that the preparation of a dataset writes: LEFT_OUT or WARNED_OF."""
    return cache_folder(root_of(name)) / kind / f"{name}.json"


def read_list(name: str, kind: str) -> dict[str, str]:
    """Read a list of the last preparation: ``{sub-volume or row: reason}``; empty if nothing was listed.

    Args:
        name: of the dataset.
        kind: LEFT_OUT, or WARNED_OF for what is odd but used.

    Raises:
        DataError: the list is damaged.
    """
    file = list_file(name, kind)
    try:
        return dict(json.loads(file.read_text()))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(file, f"not readable, delete it ({error})") from None


def write_lists(name: str, faults: Faults) -> None:
    """Write the lists of what is to be left out of a dataset and of what is odd, in place of the former ones."""
    left_out = {entry: str(error) for entry, error in faults.items()}
    warned_of = {entry: "; ".join(texts) for entry, texts in faults.warnings.items()}
    for kind, reasons in ((LEFT_OUT, left_out), (WARNED_OF, warned_of)):
        if reasons:
            write_whole(list_file(name, kind), json.dumps(reasons, indent=1).encode())
        else:
            list_file(name, kind).unlink(missing_ok=True)

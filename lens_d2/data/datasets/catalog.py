"""How a dataset becomes known to Detectron2, under its name and, for the synthetic cohort, ``phantom_<name>``.

A dataset file calls :func:`register` at its bottom. Registering opens nothing: files are read when
``DatasetCatalog.get(name)`` is called.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from ...io.errors import DataError
from ...io.files import write_whole
from ...io.formats import LENS, FileFrame

logger = logging.getLogger(__name__)

PHANTOM = "phantom"
TRAINING_PART, SPLIT_SEED = 0.8, 2020  # of the split of patients (LENS, Section VI-A)
LEFT_OUT, WARNED_OF = "left_out", "warned_of"  # the lists that a preparation makes, each in a folder of its own


class Faults(dict[str, DataError]):
    """What could not be read: ``{sub-volume or row: the first error}``, collected while the rest is read.

    Attributes:
        warnings: ``{sub-volume: lines}`` on what is read and used, but is odd.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.warnings: dict[str, list[str]] = {}

    def add(self, entry: str, error: DataError) -> None:
        self.setdefault(entry, error)

    def warn(self, entry: str, texts: Iterable[str]) -> None:
        """Adds what is odd of a sub-volume, each line once."""
        known = self.warnings.get(entry, [])
        if new := [text for text in dict.fromkeys(texts) if text not in known]:
            self.warnings[entry] = known + new


@dataclass(frozen=True)
class Dataset:
    """A registered dataset.

    Attributes:
        name: as in ``cfg.DATASETS``; ``phantom_`` names are derived from it.
        read: ``read(root, faults, processes)`` gives the sound records below ``root``, adds the others' errors to
            ``faults``, and raises DataError where nothing can be read at all.
        expert: the head that learns from it.
        fully_labelled: whether all lesions of its kind are annotated.
        truth_is_3d: whether its lesions have 3D boxes.
        evaluator_type: protocol of its evaluation, "lens3d" or "p3d".
        file_frame: the numbers in which predictions for it are written, those of its annotation files.
        mark_table: below ``root``, its ``DL_info.csv``, if it has one.
    """

    name: str
    read: Callable[[Path, Faults, int], list[dict]] = field(repr=False)
    expert: str
    fully_labelled: bool = True
    truth_is_3d: bool = True
    evaluator_type: str = "lens3d"
    file_frame: FileFrame = LENS
    mark_table: str | None = None


DATASETS: dict[str, Dataset] = {}


def default_root() -> Path:
    """Where the datasets are: the environment's DETECTRON2_DATASETS, else ``datasets``."""
    return Path(os.path.expanduser(os.getenv("DETECTRON2_DATASETS") or "datasets"))


def register(dataset: Dataset) -> None:
    """Make ``dataset`` and its synthetic twin known to Detectron2, with their data where they are by default."""
    DATASETS[dataset.name] = dataset
    _register(dataset.name, dataset, default_root())
    _register(f"{PHANTOM}_{dataset.name}", dataset, default_root() / PHANTOM)


def register_all(root: str | os.PathLike) -> None:
    """Let all names, the synthetic ones too, read from below ``root`` from now on."""
    for name, dataset in DATASETS.items():
        _register(name, dataset, Path(root))
        _register(f"{PHANTOM}_{name}", dataset, Path(root) / PHANTOM)


def register_derived(name: str, dataset: str, read: Callable[[], list[dict]], **changes) -> None:
    """Register a dataset that is made from a registered one, in the place of what has its name.

    Args:
        name: of the new dataset. dataset: of the other one, whose metadata the new one has.
        read: gives its records. changes: metadata that are different.
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


def import_readers(paths: Iterable[str | os.PathLike]) -> None:
    """Run Python files, each once, that call :func:`register` at their bottom: ``cfg.DATASETS.READERS``.

    Raises:
        DataError: there is no such file, or running it fails.
    """
    for path in map(Path, paths):
        name = f"lens_d2_reader_{path.stem}"
        if getattr(sys.modules.get(name), "__file__", None) == str(path.resolve()):
            continue
        spec = importlib.util.spec_from_file_location(name, path.resolve())
        if spec is None or spec.loader is None or not path.is_file():
            raise DataError(path, "no such Python file (DATASETS.READERS)")
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # whatever is wrong with it
            del sys.modules[name]
            raise DataError(path, f"cannot be imported: {type(error).__name__}: {error}") from error


def split_of(patients: Iterable[str], seed: int = SPLIT_SEED) -> dict[str, str]:
    """``{patient: "train" | "val"}``, at random, the same on every machine.

    Patients are put in order of a hash of their name, and the first fifth validates. The parts are exact to a
    patient for any number of them, and where patients are added, only those at the border between the two parts
    can change sides. A split is therefore final when the dataset is complete.

    Args:
        patients: names; one patient's scans share one, and so are on one side.
        seed: another seed, another split.
    """
    ranked = sorted(set(patients), key=lambda patient: hashlib.sha256(f"{seed}/{patient}".encode()).digest())
    validating = round(len(ranked) * (1 - TRAINING_PART))
    return {patient: "val" if rank < validating else "train" for rank, patient in enumerate(ranked)}


def root_of(name: str) -> Path:
    """The folder that the dataset registered as ``name`` is read from."""
    return Path(MetadataCatalog.get(name).root)


def read(name: str, faults: Faults, processes: int = 1) -> list[dict]:
    """The sound records of the dataset registered as ``name``; the others' errors are added to ``faults``."""
    return DATASETS[MetadataCatalog.get(name).dataset].read(root_of(name), faults, processes)


def load(name: str) -> list[dict]:
    """The records of a registered dataset: what ``DatasetCatalog.get(name)`` returns.

    What ``datasets/prepare_datasets.py`` has found unsound, and has listed, is left out with a warning.

    Raises:
        DataError: something else is unsound.
    """
    faults, left_out = Faults(), read_left_out(name)
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
            f"({entry}: {reason}; all in {_list_file(name, LEFT_OUT)})"
        )
    if warned := read_warned_of(name):
        entry, reason = next(iter(warned.items()))
        logger.warning(
            f"{name}: prepare_datasets.py warned of {len(warned)} sub-volumes "
            f"({entry}: {reason}; all in {_list_file(name, WARNED_OF)})"
        )
    return sound


def cache_folder(root: Path) -> Path:
    """Where what is computed from the datasets below ``root`` is kept."""
    return root / "cache"


def read_left_out(name: str) -> dict[str, str]:
    """``{sub-volume or row: reason}``: what the last preparation of dataset ``name`` has left out."""
    return _read_list(_list_file(name, LEFT_OUT))


def read_warned_of(name: str) -> dict[str, str]:
    """``{sub-volume: reason}``: what the last preparation of dataset ``name`` found odd, and left in."""
    return _read_list(_list_file(name, WARNED_OF))


def write_left_out(name: str, faults: Faults) -> Path:
    """Keep the list of what is to be left out of dataset ``name`` in the place of the former one."""
    return _write_list(_list_file(name, LEFT_OUT), {entry: str(error) for entry, error in faults.items()})


def write_warned_of(name: str, faults: Faults) -> Path:
    """Keep the list of what is odd in dataset ``name`` in the place of the former one."""
    return _write_list(
        _list_file(name, WARNED_OF), {key: "; ".join(texts) for key, texts in faults.warnings.items()}
    )


def _list_file(name: str, kind: str) -> Path:
    return cache_folder(root_of(name)) / kind / f"{name}.json"


def _read_list(file: Path) -> dict[str, str]:
    try:
        return dict(json.loads(file.read_text()))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(file, f"not readable, delete it ({error})") from None


def _write_list(file: Path, reasons: dict[str, str]) -> Path:
    if reasons:
        return write_whole(file, json.dumps(reasons, indent=1).encode())
    file.unlink(missing_ok=True)
    return file

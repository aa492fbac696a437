"""The volume cache: preprocessed sub-volumes on disk, each slice readable on its own."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import blosc2
import cv2
import numpy as np
from detectron2.config import CfgNode

from ..io.errors import DataError, WriteError
from ..io.files import MAX_NAME
from ..io.memory import check_memory
from ..structures.geometry import VolumeGeometry
from .checks import refuse_impossible_sizes
from .datasets.catalog import cache_folder, default_root
from .preprocess import PreprocessParams, cache_geometry, cache_slices
from .sources import SOURCE_KEYS, open_source
from .volume import CTVolume, read_volume

logger = logging.getLogger(__name__)

FORMAT = 1  # counts up when preprocessing or layout change, so that files of older versions are not read

RESOLVED = "cache_file"  # key of a resolved record: identity of the cache, path of the file
UNFINISHED = 86400.0  # seconds without a change, after which no process still writes a temporary file
STAT_THREADS = 16  # that ask for the times of source files, which is slow on a file server

# Differences between neighbouring bytes of the shuffled low and high halves, then entropy coding. CT slices of 0.8
# mm take half to nine tenths of a PNG; stronger compression gains 2% for a hundred times the time.
CODEC = {
    "codec": blosc2.Codec.ZSTD,
    "clevel": 1,
    "filters": [blosc2.Filter.SHUFFLE, blosc2.Filter.BYTEDELTA],
    "filters_meta": [0, 0],
    "nthreads": 1,
}


def unresolved(record: Mapping) -> dict:
    """The record without what :meth:`VolumeCache.resolve` has added."""
    return {key: value for key, value in record.items() if key != RESOLVED}


def source_name(record: Mapping) -> str:
    """Name of a sub-volume's cache file, which changes with its source; empty unless the record was resolved."""
    return Path(record[RESOLVED][1]).name if RESOLVED in record else ""


def identified(record: Mapping) -> dict:
    """The record with :func:`source_name` in the place of what :meth:`VolumeCache.resolve` has added."""
    return {**unresolved(record), "source": source_name(record)}


class DamagedCache(DataError):
    """A cache file that differs from what was written."""


def build_cache(cfg: CfgNode) -> VolumeCache:
    """Build the cache of a config: CACHE_DIR, PIXEL_SPACING, BORDER_HU and BORDER_MARGIN of INPUT."""
    root = cfg.INPUT.CACHE_DIR or cache_folder(default_root())
    params = PreprocessParams(
        pixel_spacing=cfg.INPUT.PIXEL_SPACING,
        border_hu=cfg.INPUT.BORDER_HU,
        border_margin=cfg.INPUT.BORDER_MARGIN,
    )
    return VolumeCache(root, params)


class VolumeCache:
    """A folder with one file for each sub-volume and set of preprocessing parameters.

    A file's name is a digest of what it is made from: path, size and time of the source files, the part of the
    record on which reading depends, and the parameters. When one of these changes, another file is built. A file
    has its name only once it is complete; several processes may build the same one.
    """

    def __init__(self, root: str | os.PathLike, params: PreprocessParams | None = None):
        """
        Args:
            root: the folder.
            params: of preprocessing; the defaults unless given.
        """
        self.root = Path(root)
        self.params = params or PreprocessParams()

    @property
    def _identity(self) -> str:
        """Folder, parameters and format: a record resolved by an equal cache names this cache's file."""
        return json.dumps([FORMAT, str(self.root), asdict(self.params)], sort_keys=True)

    def path(self, record: Mapping | str | os.PathLike) -> Path:
        """Path of the cache file of a record or a bare path, whether or not it exists.

        Raises:
            DataError: the source is absent.
        """
        record = _source_record(record)
        source = open_source(record)
        version = [source.VERSION] if source.VERSION != 1 else []  # cached before there were versions: same names
        key = json.dumps(
            [FORMAT, record, source.stamps(), asdict(self.params), *version], sort_keys=True, default=str
        )
        name = re.sub(r"[^\w.-]+", "_", str(record.get("volume") or Path(record["file_name"]).name))
        name = name.encode()[:MAX_NAME].decode(errors="ignore")
        return self.root / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.b2nd"

    def resolve(self, records: Iterable[dict]) -> list[dict]:
        """Add to records the path of their cache file, so that opening them does not touch their sources.

        The sources are looked at once, here; an absent cache file is built when it is first opened.

        Args:
            records: of sub-volumes; not changed.

        Raises:
            DataError: a source is absent.
        """
        records, own = list(records), self._identity
        with ThreadPoolExecutor(STAT_THREADS) as pool:
            paths = pool.map(self.path, records)
            return [{**record, RESOLVED: (own, str(path))} for record, path in zip(records, paths, strict=True)]

    def build(self, record: Mapping | str | os.PathLike) -> Path:
        """Build the cache file of a sub-volume if it is absent or damaged, and return its path.

        Raises:
            DataError: the source cannot be read.
        """
        return self.open(record).path

    def open(self, record: Mapping | str | os.PathLike) -> CachedVolume:
        """Open the cached sub-volume of a record or a bare path; build it if it is absent or damaged.

        Raises:
            DataError: the source cannot be read.
        """
        cache, name = record.get(RESOLVED, (None, "")) if isinstance(record, Mapping) else (None, "")
        record = _source_record(record)
        path = Path(name) if cache == self._identity else self.path(record)
        rebuild = partial(_write, path, record, self.params)
        if not path.exists():
            rebuild()
        return CachedVolume(path, rebuild)


class CachedVolume:
    """A preprocessed sub-volume in the cache frame.

    It keeps no file open: threads may share it, and it can be pickled.

    Attributes:
        path: the cache file.
        geometry: maps to the volume frame and the world.
        warnings: those of the :class:`~lens_d2.data.volume.CTVolume` from which it was made.
    """

    def __init__(self, path: Path, rebuild: Callable[[], None]):
        """
        Args:
            path: the cache file.
            rebuild: writes it anew; called if it turns out to be damaged.
        """
        self.path = path
        self._rebuild = rebuild
        opened = self._rebuilding(lambda: _open(path))
        self.geometry: VolumeGeometry = opened.geometry
        self.warnings: tuple[str, ...] = opened.warnings

    @property
    def shape(self) -> tuple[int, int, int]:
        """(Z, H, W): native slices, pixels."""
        return self.geometry.cache_shape

    def read(self, positions: Iterable[float]) -> np.ndarray:
        """Read slices at any positions, interpolated linearly between their native neighbours.

        Args:
            positions: (n,) fractional numbers of native slices in the cache frame; beyond the ends, the first or
                last slice is repeated.

        Returns:
            (n, H, W) float32 HU.

        Raises:
            DataError: the file is damaged and cannot be built again.
        """
        places = np.clip(np.asarray(positions, dtype=np.float64), 0, self.shape[0] - 1)
        below = np.floor(places).astype(int)
        weights = places - below
        needed = np.union1d(below, below[weights > 0] + 1).tolist()
        slices = self.decode(needed)
        out = np.empty((len(places), *self.shape[1:]), np.float32)
        for i, (z, weight) in enumerate(zip(below.tolist(), weights.tolist(), strict=True)):
            if weight > 0:
                cv2.addWeighted(slices[z], 1 - weight, slices[z + 1], weight, 0, dst=out[i], dtype=cv2.CV_32F)
            else:
                out[i] = slices[z]
        return out

    def decode(self, slices: Iterable[int]) -> Mapping[int, np.ndarray]:
        """Decode native slices: ``{number: (H, W) int16 HU}``."""
        return self._rebuilding(lambda: _open(self.path).decode(slices))

    def _rebuilding(self, action: Callable):
        """Run an action on the file; if the file is damaged, build it again and repeat the action."""
        try:
            return action()
        except DamagedCache as damage:
            logger.warning("%s; building it again", damage)
            self._rebuild()
            return action()


class VolumeInMemory(CachedVolume):
    """A preprocessed sub-volume that leaves nothing on disk, read like one of the cache."""

    def __init__(self, volume: CTVolume, params: PreprocessParams, path: str | PathLike = "scan"):
        """
        Args:
            volume: in its volume frame.
            params: of the preprocessing.
            path: named by the error.

        Raises:
            DataError: the memory does not hold the resampled voxels.
        """
        self.geometry = cache_geometry(volume, params)
        self.warnings = volume.warnings
        check_memory(path, math.prod(self.geometry.cache_shape))
        self._slices = dict(enumerate(cache_slices(volume, self.geometry, params.hu_range)))

    def decode(self, slices: Iterable[int]) -> Mapping[int, np.ndarray]:
        """(H, W) int16 HU of every native slice."""
        return self._slices


@dataclass(frozen=True)
class _OpenFile:
    """A memory-mapped cache file whose header is sound. Slices are checked as they are decoded."""

    path: Path
    array: blosc2.NDArray
    geometry: VolumeGeometry
    checksums: list[int]
    warnings: tuple[str, ...]

    def decode(self, slices: Iterable[int]) -> dict[int, np.ndarray]:
        """(H, W) int16 HU of each native slice asked for."""
        shape = self.geometry.cache_shape[1:]
        return {z: np.frombuffer(self._unpack(z), np.int16).reshape(shape) for z in slices}

    def _unpack(self, z: int) -> bytes:
        try:
            chunk = self.array.schunk.get_chunk(z)
        except RuntimeError as error:
            raise DamagedCache(self.path, f"damaged, slice {z} cannot be found") from error
        if zlib.crc32(chunk) != self.checksums[z]:
            raise DamagedCache(self.path, f"damaged, slice {z} has a wrong checksum")
        return blosc2.decompress2(chunk, nthreads=1)


def read_cache_header(path: Path) -> dict:
    """Header of a cache file: format, source, parameters, geometry, warnings and a checksum of each slice.

    Raises:
        DamagedCache: it cannot be read.
    """
    return _open_header(path)[1]


def _open(path: Path) -> _OpenFile:
    array, header = _open_header(path)
    geometry = VolumeGeometry.from_dict(header["geometry"])
    return _OpenFile(path, array, geometry, header["checksums"], tuple(header.get("warnings", ())))


def _open_header(path: Path) -> tuple[blosc2.NDArray, dict]:
    try:
        array = blosc2.open(str(path), mode="r", mmap_mode="r", dparams=blosc2.DParams(nthreads=1))
        text, checksum = array.schunk.vlmeta["header"], array.schunk.vlmeta["header_checksum"]
        if zlib.crc32(text.encode()) != checksum:
            raise ValueError("wrong checksum")
        return array, json.loads(text)
    except Exception as error:  # on damaged bytes, blosc2 raises whatever it stumbles over
        raise DamagedCache(path, f"damaged header ({error})") from error


def _write(path: Path, record: dict, params: PreprocessParams) -> None:
    """Read, preprocess and store a sub-volume, under a temporary name until it is complete.

    Raises:
        DataError: the source cannot be read, or the file not be written.
    """
    volume = read_volume(record)
    refuse_impossible_sizes(record["file_name"], volume.geometry)
    geometry = cache_geometry(volume, params)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp.b2nd")
    one = (1, *geometry.cache_shape[1:])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        array = blosc2.empty(
            geometry.cache_shape, np.int16, chunks=one, blocks=one, urlpath=str(temporary), mode="w", cparams=CODEC
        )
        for z, picture in enumerate(cache_slices(volume, geometry, params.hu_range)):
            array.schunk.update_data(z, picture, copy=False)  # a slice is a chunk
        header = {
            "format": FORMAT,
            "source": record,
            "params": asdict(params),
            "geometry": geometry.to_dict(),
            "warnings": list(volume.warnings),
            "checksums": [zlib.crc32(array.schunk.get_chunk(z)) for z in range(geometry.cache_shape[0])],
        }
        text = json.dumps(header, default=str)
        array.schunk.vlmeta["header"] = text
        array.schunk.vlmeta["header_checksum"] = zlib.crc32(text.encode())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        raise WriteError(path, f"the cache file cannot be written ({error})") from error
    finally:
        with suppress(OSError):  # renamed, unless something failed
            temporary.unlink()


def _source_record(record: Mapping | str | os.PathLike) -> dict:
    """The part of a record on which the voxels and their geometry depend."""
    if not isinstance(record, Mapping):
        record = {"file_name": record}
    kept = {key: record[key] for key in SOURCE_KEYS if key in record}
    return {**kept, "file_name": os.path.abspath(record["file_name"])}


class Superseded(NamedTuple):
    """A cache file that nothing reads any more.

    Attributes:
        path: of the file.
        size: bytes.
        reason: why nothing reads it.
    """

    path: Path
    size: int
    reason: str


def superseded(cache: VolumeCache) -> Iterator[Superseded]:
    """Find the files in a cache's folder that the cache, with its parameters, would no longer read.

    A file names its source and parameters. It is in use if the parameters are those of the cache and its source
    has not changed, whichever dataset the source belongs to.
    """
    for path in sorted(cache.root.glob("*.b2nd")):
        reason = _reason(path, cache)
        if reason:
            yield Superseded(path, path.stat().st_size, reason)


def _reason(path: Path, cache: VolumeCache) -> str | None:
    if path.name.startswith("."):
        return "unfinished" if time.time() - path.stat().st_mtime > UNFINISHED else None
    try:
        header = read_cache_header(path)
    except DamagedCache:
        return "damaged"
    if header["format"] != FORMAT:
        return "of another version"
    if header["params"] != json.loads(json.dumps(asdict(cache.params))):
        return "other parameters"
    try:
        return None if cache.path(header["source"]) == path else "its source has changed"
    except DataError:
        return "its source is gone"

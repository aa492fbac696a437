"""Cache files that nothing will read any more."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from ..io.errors import DataError
from .cache import FORMAT, DamagedCache, VolumeCache, read_cache_header

UNFINISHED = 86400.0  # seconds without a change, after which no process is at a temporary file any more


class Superseded(NamedTuple):
    """A cache file that is not used: where it is, its bytes, and why nothing reads it."""

    path: Path
    size: int
    reason: str


def superseded(cache: VolumeCache) -> Iterator[Superseded]:
    """The files in a cache's folder that opening a sub-volume with the cache's parameters would pass over.

    A file says what it was made from and how. It is of use if that is this cache's way and its source is still
    what it was, whichever dataset the source belongs to.
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

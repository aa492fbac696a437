"""Free memory, against which a volume is weighed before it is read."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

import psutil

from .errors import DataError

# Bytes to keep free: for the pieces in which a file is read, for writing the cache, and for other programs.
RESERVE = 256 << 20
CGROUPS = Path("/sys/fs/cgroup")
# Versions 2 and 1 of Linux' control groups: file of the limit, file of the use, folder of the hierarchy.
LIMITS = (
    ("memory.max", "memory.current", CGROUPS),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", CGROUPS / "memory"),
)


def check_memory(path: str | PathLike, num_voxels: int, bytes_per_voxel: float = 2) -> None:
    """Refuse a volume that the memory cannot hold, before it is read.

    Args:
        path: named by the error.
        num_voxels: size that the header promises.
        bytes_per_voxel: memory that reading takes; 2 for one int16 copy.

    Raises:
        DataError: reading it would take more memory than is free.
    """
    needed, free = num_voxels * bytes_per_voxel + RESERVE, available_memory()
    if needed > free:
        raise DataError(
            path,
            f"{num_voxels:,} voxels need {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free: "
            "end other programs, or use a machine with more",
        )


def available_memory() -> int:
    """Bytes that this process can still allocate: limited by the machine, its control groups and its own limit."""
    return max(0, min([psutil.virtual_memory().available, *_left_by_cgroups(), *_left_by_rlimit()]))


def _left_by_rlimit() -> Iterator[int]:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit not in (resource.RLIM_INFINITY, -1):
        yield limit - psutil.Process().memory_info().vms


def _left_by_cgroups() -> Iterator[int]:
    """Bytes that each control group around this process leaves free."""
    for limit_name, used_name, root in LIMITS if sys.platform == "linux" else ():
        for group in _groups(root):
            try:
                limit, used = ((group / name).read_text().strip() for name in (limit_name, used_name))
                pages = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):
                continue  # another version, or hidden from inside a container
            if limit.isdigit():
                yield int(limit) - int(used) + int(pages.get("inactive_file", 0))  # which the kernel gives back


def _groups(root: Path) -> Iterator[Path]:
    """The folders of the control groups of this process below ``root``, from the innermost to ``root`` itself."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for _, controllers, name in (line.split(":", 2) for line in lines):
        if "memory" in controllers.split(",") or not controllers:
            group = root / name.lstrip("/")
            yield from (place for place in (group, *group.parents) if place.is_relative_to(root))

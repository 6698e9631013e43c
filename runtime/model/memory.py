"""How much memory a model needs at least, and how much is free."""

from pathlib import Path
from typing import Final, Literal

from ...schemas.manifest import ModelManifest
from ..errors import SetupError

Graph = Literal["ragged", "padded"]

_GROUPS: Final = Path("/sys/fs/cgroup")
_LIMITS: Final = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)
"""Limit, usage and statistics of the group of this process, by version 2 and 1 of the interface."""
_FORMS: Final = ("graph:ragged", "graph:padded")


def find_needed_bytes(manifest: ModelManifest, graph: Graph) -> int:
    """Return the size of the graphs that serve, in this form: with their weights they are the least that a model takes in memory."""
    return sum(
        entry.bytes
        for entry in manifest.files
        if entry.role == f"graph:{graph}" or (entry.role.startswith("graph:") and entry.role not in _FORMS)
    )


def find_free_bytes(meminfo: Path = Path("/proc/meminfo"), groups: Path = _GROUPS) -> int | None:
    """Return the memory that this machine, or the group of this process, has left; None where nothing says so.

    Cached files count as free: the kernel drops them when memory is needed.
    """
    left = [_read_left(*(groups / name for name in names)) for names in _LIMITS]
    return min((each for each in (_read_available(meminfo), *left) if each is not None), default=None)


def check_room(name: str, manifest: ModelManifest, graph: Graph, free: int | None) -> None:
    """Raise SetupError for a model that is larger than the free memory."""
    needed = find_needed_bytes(manifest, graph)
    if free is not None and needed > free:
        raise SetupError(
            f"model {name}: its graphs take {needed / 1e6:.0f} MB, {free / 1e6:.0f} MB are free: give the process more memory, "
            "or serve fewer models"
        )


def _read_available(meminfo: Path) -> int | None:
    try:
        lines = meminfo.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def _read_left(limit: Path, usage: Path, statistics: Path) -> int | None:
    try:
        left = int(limit.read_text()) - int(usage.read_text())
    except (OSError, ValueError):  # not there, or `max`: no limit
        return None
    return max(left + _read_cached(statistics), 0)


def _read_cached(statistics: Path) -> int:
    """Return the bytes of cached files in a group's usage, those of the groups below it included; 0 where nothing says so."""
    try:
        found = dict(line.split() for line in statistics.read_text().splitlines())
        kinds = ("inactive_file", "active_file")
        return sum(int(found.get(f"total_{kind}", found.get(kind, 0))) for kind in kinds)  # version 1 has totals apart
    except (OSError, ValueError):
        return 0

"""How much memory a model needs at least, and how much is free."""

from pathlib import Path
from typing import Final

from ...schemas.manifest import ModelManifest
from ..errors import SetupError

_GROUPS: Final = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)


def find_needed_bytes(manifest: ModelManifest) -> int:
    """Return the size of a model's graphs: with their weights they are the least that it takes in memory."""
    return sum(entry.bytes for entry in manifest.files if entry.role.startswith("graph"))


def find_free_bytes(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Return the memory that this machine, or the group of this process, has left; None where nothing says so."""
    found = [_read_available(meminfo), *(_read_left(*paths) for paths in _GROUPS)]
    return min((each for each in found if each is not None), default=None)


def check_room(name: str, manifest: ModelManifest, free: int | None) -> None:
    """Raise SetupError for a model that is larger than the free memory."""
    needed = find_needed_bytes(manifest)
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


def _read_left(limit: Path, usage: Path) -> int | None:
    try:
        return max(int(limit.read_text()) - int(usage.read_text()), 0)
    except (OSError, ValueError):  # not there, or `max`: no limit
        return None

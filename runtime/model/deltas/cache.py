"""A cache of model versions that several processes share without coordination.

A folder is named `NAME-VERSION-DIGEST`. It is created and removed by a rename, so it is complete or absent; a process with
open files keeps them.
"""

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

KEPT: Final = 4
"""Number of versions of a model that stay in a cache, the most recently used."""
_FOLDER: Final = r"-\d+-[0-9a-f]{32}"
_ABANDONED_S: Final = 600
"""A temporary folder without a write for this time is abandoned. A process id cannot tell: containers that share a cache
have separate ids."""


def temporary_path(folder: Path) -> Path:
    """Return a temporary path in which a folder of the cache is built before it is renamed."""
    return folder.parent / f".{folder.name}.{os.getpid()}.{uuid4().hex[:8]}"


def touch(folder: Path) -> None:
    """Mark a folder as used now. A folder that another process has removed meanwhile is ignored."""
    with suppress(OSError):
        os.utime(folder)


def discard(folder: Path) -> None:
    """Remove a folder, atomically for other processes."""
    gone = folder.parent / f".{folder.name}.{uuid4().hex[:8]}"
    with suppress(OSError):
        folder.rename(gone)
        if gone.is_symlink() or gone.is_file():
            gone.unlink()
    shutil.rmtree(gone, ignore_errors=True)


def remove_old(cache: Path, name: str, newest: Path) -> None:
    """Keep the most recently used folders of a model, `newest` included, and remove those abandoned by killed processes."""
    versions = re.compile(re.escape(name) + _FOLDER)
    found = [(used, path) for path, used in _entries(cache) if versions.fullmatch(path.name) and path != newest]
    for _, folder in sorted(found, reverse=True)[KEPT - 1 :]:
        discard(folder)
    _sweep(cache)


def _sweep(cache: Path) -> None:
    left_over = re.compile(r"\..*" + _FOLDER + r"\.(\d+\.)?[0-9a-f]{8}")
    for path, _ in _entries(cache):
        if left_over.fullmatch(path.name) and time.time() - _last_written(path) > _ABANDONED_S:
            shutil.rmtree(path, ignore_errors=True)


def _entries(folder: Path) -> Iterator[tuple[Path, float]]:
    """Yield paths and modification times of a folder's entries; entries that vanish meanwhile are omitted."""
    with suppress(OSError):
        for path in list(folder.iterdir()):
            with suppress(OSError):
                yield path, path.lstat().st_mtime


def _last_written(folder: Path) -> float:
    """Return the latest modification time in a folder, at any depth.

    A growing file does not change the times of the folders above it.
    """
    times: list[float] = []
    with suppress(OSError):
        for path in folder.rglob("*"):
            with suppress(OSError):
                times.append(path.lstat().st_mtime)
    with suppress(OSError):
        times.append(folder.lstat().st_mtime)
    return max(times, default=time.time())

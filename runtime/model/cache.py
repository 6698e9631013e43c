"""What lies in a cache of model versions, and what may go: several processes use one and know nothing of each other.

A folder there is `NAME-VERSION-DIGEST`. It appears by a rename and goes by a rename, so it is whole or not there; who has
its files open keeps them.
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
"""So many versions of a model stay in a cache, those used last."""
_FOLDER: Final = r"-\d+-[0-9a-f]{32}"
_ABANDONED_S: Final = 600
"""Nobody has written to it for so long: whoever began it is gone. A process id says nothing here: containers that share
a cache count them anew."""


def beside(folder: Path) -> Path:
    """Return where a folder of the cache is put together before it is renamed to its name."""
    return folder.parent / f".{folder.name}.{os.getpid()}.{uuid4().hex[:8]}"


def touch(folder: Path) -> None:
    """Note that a folder is in use. One that another process has removed meanwhile is no error."""
    with suppress(OSError):
        os.utime(folder)


def discard(folder: Path) -> None:
    """Remove a folder at once for everybody else."""
    gone = folder.parent / f".{folder.name}.{uuid4().hex[:8]}"
    with suppress(OSError):
        folder.rename(gone)
        if gone.is_symlink() or gone.is_file():
            gone.unlink()
    shutil.rmtree(gone, ignore_errors=True)


def forget_old(cache: Path, name: str, newest: Path) -> None:
    """Keep of a model the folders used last, `newest` among them, and remove what killed processes have left."""
    ours = re.compile(re.escape(name) + _FOLDER)
    found = [(used, path) for path, used in _entries(cache) if ours.fullmatch(path.name) and path != newest]
    for _, folder in sorted(found, reverse=True)[KEPT - 1 :]:
        discard(folder)
    _sweep(cache)


def _sweep(cache: Path) -> None:
    left_over = re.compile(r"\..*" + _FOLDER + r"\.(\d+\.)?[0-9a-f]{8}")
    for path, _ in _entries(cache):
        if left_over.fullmatch(path.name) and time.time() - _last_written(path) > _ABANDONED_S:
            shutil.rmtree(path, ignore_errors=True)


def _entries(folder: Path) -> Iterator[tuple[Path, float]]:
    """Paths and times of change of what is in a folder; what vanishes meanwhile is left out."""
    with suppress(OSError):
        for path in list(folder.iterdir()):
            with suppress(OSError):
                yield path, path.lstat().st_mtime


def _last_written(folder: Path) -> float:
    """Return when anything in a folder, at any depth, was changed last.

    A large file that still grows leaves the times of all folders above it as they are.
    """
    times: list[float] = []
    with suppress(OSError):
        for path in folder.rglob("*"):
            with suppress(OSError):
                times.append(path.lstat().st_mtime)
    with suppress(OSError):
        times.append(folder.lstat().st_mtime)
    return max(times, default=time.time())

"""A folder that is there when it is complete, or not at all, and that one process makes at a time."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...runtime.errors import SetupError


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give the empty folder `OUT.part`, which becomes `out` when the body ends, and is removed when it raises.

    What a process that was killed left there is removed. SetupError when another one is at it.
    """
    if not out.name:  # `.`
        _refuse_existing(out)
    part = out.with_name(f"{out.name}.part")
    handle = _locked(part, out)
    try:
        _empty(part)
        yield part
        _refuse_existing(out)
        part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    finally:
        os.close(handle)


def _locked(part: Path, out: Path) -> int:
    """Make the folder, or take over the one that is there. The lock is the folder's own, and ends with the process."""
    part.mkdir(parents=True, exist_ok=True)
    handle = os.open(part, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever had the lock until now may have finished, and taken the folder away.
        if not part.exists() or not os.path.samestat(os.fstat(handle), part.stat()):
            raise BlockingIOError
        _refuse_existing(out)
    except BlockingIOError:
        os.close(handle)
        raise SetupError(f"{out} is being made by another process: wait for it, or name another folder") from None
    except BaseException:
        os.close(handle)
        raise
    return handle


def _refuse_existing(out: Path) -> None:
    if out.exists():
        raise SetupError(f"{out} is there already; a data set is never changed: name another folder")


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()

"""Which processes work on a study in a folder. A process holds a lock on a file of its own; the system lets it go when it dies."""

import fcntl
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

WORKERS: Final = "workers"
_NEW: Final = ".new"


@contextmanager
def register_worker(out: Path) -> Iterator[str]:
    """Yield a name for this process, known as alive until the end. After an error its file says that it has ended."""
    name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    folder = out / WORKERS
    folder.mkdir(parents=True, exist_ok=True)
    path, new = folder / name, folder / f"{name}{_NEW}"
    with new.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        new.rename(path)  # under its name it has its lock from the beginning
        yield name
        path.unlink(missing_ok=True)


def host_of(worker: str) -> str:
    """Return the machine of a process."""
    return worker.rsplit("-", 2)[0]


def is_alive(out: Path, worker: str) -> bool | None:
    """True or False when the process is one of this machine, in this folder. Of others nothing is known: None."""
    if host_of(worker) != socket.gethostname():
        return None
    try:
        with (out / WORKERS / worker).open("r+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return None
    return False


def forget_dead(out: Path) -> None:
    """Remove what processes of this machine have left that died. Their trials have to be taken care of before."""
    for path in (out / WORKERS).iterdir():
        if not path.name.endswith(_NEW) and is_alive(out, path.name) is False:
            path.unlink(missing_ok=True)


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Let one process of this machine at a time do what stands inside; the others wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

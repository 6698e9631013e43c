"""Which processes work on a study in a folder. A process holds a lock on a file of its own; the system lets it go when it dies."""

import fcntl
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

WORKERS: Final = "workers"


@contextmanager
def register_worker(out: Path) -> Iterator[str]:
    """Yield a name for this process, known as alive until the end."""
    name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    folder = out / WORKERS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    with path.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield name
        finally:
            path.unlink(missing_ok=True)


def is_dead(out: Path, worker: str) -> bool:
    """True when the process was one of this machine, in this folder, and has ended. Of others nothing is known."""
    if not worker.startswith(f"{socket.gethostname()}-") or not (out / WORKERS).is_dir():
        return False
    path = out / WORKERS / worker
    try:
        with path.open("r+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, FileNotFoundError):
        return False
    path.unlink(missing_ok=True)
    return True


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Let one process of this machine at a time do what stands inside; the others wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Turn:
    """One process of this machine at a time asks for a trial: SQLite gives a waiting trial to two that ask at once."""

    def __init__(self, out: Path) -> None:
        self._path = out / "turn.lock"
        self._file: IO[str] | None = None

    def take(self) -> None:
        """Wait for the turn, unless this process has it."""
        if self._file is None:
            file = self._path.open("w", encoding="utf-8")
            fcntl.flock(file, fcntl.LOCK_EX)
            self._file = file

    def give(self) -> None:
        """Let another process ask."""
        if self._file is not None:
            self._file.close()
            self._file = None

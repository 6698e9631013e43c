"""Where a retraining keeps what it has done: a folder for each stage, with a marker once the stage has come to its end."""

import fcntl
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeGuard
from uuid import uuid4

from ...runtime.errors import SetupError
from ..recipe.job import Job
from ..run_folders.os_errors import write_text
from ..run_folders.overlaps import find_overlaps

STARTED: Final = "job.json"
DONE: Final = "done.json"
LOCK: Final = ".lock"
FIXED: Final = "fit"
"""From this stage on a changed job is another job: what was trained cost too much to be thrown away unasked."""
LAYOUT: Final = 3
"""Of the stages' files. Raise it when a stage reads what an earlier version did not write."""
Facts = dict[str, Any]


def refuse_overlaps(job: Job, work: Path) -> None:
    """Raise SetupError where a work folder and one that is copied into it overlap: the copy would be of itself, or the folder would be
    removed where the job begins anew.
    """
    read = {"the model": job.model.folder, "the feedback": job.feedback.data}
    for what, folder in read.items():
        for problem in find_overlaps(work, "--work", [] if folder is None else [str(folder)], what):
            raise SetupError(problem)


class WorkFolder:
    """A stage's folder counts only with its marker, which is written last; without it the stage is made anew, or goes on.

    The folder belongs to one job file and one layout of the files; another job, or the same one changed, is refused once
    the model is trained, and begins anew before. Within the block one process has it.
    """

    def __init__(self, path: Path, job: Path) -> None:
        """Nothing is read or written yet. Raises SetupError for a folder that is another's."""
        self.path = path
        self.run = ""
        """The id of the run, the same when it goes on after an interruption."""
        self._job, self._digest = job.name, sha256(job.read_bytes()).hexdigest()
        self._refuse_another()

    def _refuse_another(self) -> Facts | None:
        file = self.path / STARTED
        if not file.is_file():
            # What is hidden are a lock, and the draft of a file that was never finished.
            if self.path.exists() and any(not each.name.startswith(".") for each in self.path.iterdir()):
                raise SetupError(f"{self.path}: not empty and not the folder of a retraining; name another with --work")
            return None
        known: Facts = json.loads(file.read_text(encoding="utf-8"))
        if known.get("layout", 1) != LAYOUT and self._is_done(FIXED):
            raise SetupError(
                f"{self.path}: trained by another version of Murmura, whose stages this one cannot read; finish the run with "
                "that version, or begin anew in another folder with --work"
            )
        if known["job"] != self._digest and self._is_done(FIXED):
            raise SetupError(
                f"{self.path}: begun with another {self._job}, and trained; name another folder with --work, or remove "
                "this one"
            )
        return known

    def __enter__(self) -> Self:
        """Take the folder and begin, or go on. SetupError, naming the process, when another one has it, or when nobody can."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = (self.path / LOCK).open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            who = self._lock.read().strip() or "another process"
            self._lock.close()
            raise SetupError(f"{self.path}: {who} is at work in it; wait for its end or name another --work") from None
        except OSError as error:
            self._lock.close()
            raise SetupError(
                f"{self.path}: cannot be locked ({error.strerror or error}); name a --work on a file system that has locks"
            ) from None
        self._lock.truncate(0)
        self._lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        self._lock.flush()
        try:
            self._begin()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._lock.close()  # which gives it back; the file stays, as removing it would race with who waits for it

    def _begin(self) -> None:
        known = self._refuse_another()
        if self._is_same_job(known):
            self.run = str(known["run"])
            return
        if known is not None:
            for stage in self.path.glob("[!.]*/"):
                shutil.rmtree(stage)
        self.run = uuid4().hex[:16]
        _write(self.path / STARTED, {"job": self._digest, "run": self.run, "layout": LAYOUT})

    def _is_same_job(self, known: Facts | None) -> TypeGuard[Facts]:
        """Say whether the folder was begun by the job as it is now, and by a version with the same files."""
        return known is not None and known["job"] == self._digest and known.get("layout", 1) == LAYOUT

    def goes_on(self, stages: Iterable[str]) -> bool:
        """Say whether all these stages were finished, by the job as it is now."""
        return self._is_same_job(self._refuse_another()) and all(self._is_done(stage) for stage in stages)

    def _is_done(self, stage: str) -> bool:
        return (self.path / stage / DONE).is_file()

    def facts(self, stage: str) -> Facts | None:
        """Return what a finished stage noted; None when it is not finished."""
        marker = self.path / stage / DONE
        return json.loads(marker.read_text(encoding="utf-8")) if marker.is_file() else None

    def forget(self, stage: str) -> None:
        """Let a finished stage be made anew."""
        (self.path / stage / DONE).unlink(missing_ok=True)

    def drop(self, stage: str) -> None:
        """Remove what a stage has left, finished or not."""
        shutil.rmtree(self.path / stage, ignore_errors=True)

    def take(self, stage: str, make: Callable[[Path], Facts], *, resumes: bool = False) -> Facts:
        """Return a stage's facts, from `make(folder)` when it was not finished before.

        The folder that `make` gets is empty; with `resumes` it holds what an interrupted run of the stage left in it.
        """
        known = self.facts(stage)
        if known is not None:
            return known
        folder = self.path / stage
        if not resumes:
            self.drop(stage)
        folder.mkdir(parents=True, exist_ok=True)
        facts = make(folder)
        _write(folder / DONE, facts)
        return facts


def _write(path: Path, facts: Facts) -> None:
    draft = path.with_name(f".{path.name}.part")
    write_text(draft, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    draft.replace(path)

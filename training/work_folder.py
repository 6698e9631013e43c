"""Where a retraining keeps what it has done: a folder for each stage, with a marker once the stage has come to its end."""

import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from ..runtime.errors import SetupError

STARTED: Final = "job.json"
DONE: Final = "done.json"
Facts = dict[str, Any]


class WorkFolder:
    """A stage's folder counts only with its marker, which is written last; without it the stage is made anew.

    The folder belongs to one job file: another job, or the same one changed, is refused.
    """

    def __init__(self, path: Path, job: Path) -> None:
        self.path = path
        self.run = self._begun(sha256(job.read_bytes()).hexdigest(), job)
        """The id of the run, the same when it goes on after an interruption."""

    def _begun(self, digest: str, job: Path) -> str:
        file = self.path / STARTED
        if not file.is_file():
            if self.path.exists() and any(self.path.iterdir()):
                raise SetupError(f"{self.path}: not empty and not the folder of a retraining; name another with --work")
            self.path.mkdir(parents=True, exist_ok=True)
            run = uuid4().hex[:16]
            _write(file, {"job": digest, "run": run})
            return run
        known = json.loads(file.read_text(encoding="utf-8"))
        if known["job"] != digest:
            raise SetupError(
                f"{self.path}: begun with another {job.name}; name another folder with --work, or remove this one"
            )
        return str(known["run"])

    def facts(self, stage: str) -> Facts | None:
        """Return what a finished stage noted; None when it is not finished."""
        marker = self.path / stage / DONE
        return json.loads(marker.read_text(encoding="utf-8")) if marker.is_file() else None

    def take(self, stage: str, make: Callable[[Path], Facts]) -> Facts:
        """Return a stage's facts, from `make(folder)` when it was not finished before."""
        known = self.facts(stage)
        if known is not None:
            return known
        folder = self.path / stage
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        facts = make(folder)
        _write(folder / DONE, facts)
        return facts


def _write(path: Path, facts: Facts) -> None:
    draft = path.with_name(f".{path.name}.part")
    draft.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)

"""The job of the learning demo, and `murmura retrain` as the process of its own that it is meant to be."""

import asyncio
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from ...runtime.embedded import FETCH_MAX_WAIT_MS
from ...runtime.errors import MurmuraError
from .exam import SOURCES
from .room import REPOSITORY
from .traffic import TOPIC

OWN_TEXTS: Final = ("customers", "customers-by-queue", "out-of-scope", "entities")
"""Texts that we wrote, without their labels: on these the new version has to answer as the old one did."""
SENTIMENT_ALLOWANCE: Final = 0.05
"""Of plain messages the model gives a mood a score of 0.3, little more than chance among four: what tips from one to the
other is noise, and half a point of 154 messages less than one of them."""
_KEPT_LINES: Final = 20
_MURMURA: Final = "from murmura.runtime.cli import main; main()"  # a script of that name need not be on the path


def write_job(work: Path, bootstrap: str, model: str, data: Path | None) -> Path:
    """Write the job. With `data`, the public sets that the model was made of, a share of these is seen again."""
    recipes = REPOSITORY / "recipes"
    held = {"weight": 3.0, "texts": [str(recipes / "demo" / f"{name}.jsonl") for name in OWN_TEXTS]}
    reports: dict[str, dict[str, Any]] = defaultdict(dict)
    for source in SOURCES:
        reports[source.task][source.name] = source.as_report()
    job: dict[str, Any] = {
        "model": {"store": str(work / "store"), "name": model},
        "feedback": {"ingest": {"requests": [TOPIC], "split": "text"}, "weight": 5},
        "fit": {
            "epochs": 2,
            "evaluations": 1,
            "encoder_lr": 3.0e-5,
            "dropout": 0.0,
            "threads": max(1, (os.cpu_count() or 2) - 1),
        },
        "gate": {"reports": dict(reports), "allowances": {"sentiment": SENTIMENT_ALLOWANCE}},
        "release": {"by": "the demo", "why": "corrections of a new product"},
        "kafka": {"bootstrap_servers": bootstrap, "fetch_max_wait_ms": FETCH_MAX_WAIT_MS},
    }
    if data is None:
        job["hold"] = held
    else:
        job["old"] = {"recipe": str(recipes / "demo.yaml"), "data": str(data.resolve()), "replay": 0.2}
        # Its thresholds are chosen anew, on 120 messages: the share that is withheld is not known better than that.
        job["gate"]["served_allowance"] = 0.1
    path = work / "job.yaml"
    path.write_text(yaml.safe_dump(job, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


class Retraining:
    """A running `murmura retrain`. Nice to its neighbours: the desk goes on answering on the same cores."""

    def __init__(self, process: asyncio.subprocess.Process, told: Callable[[str], None]) -> None:
        self._process, self._told = process, told
        self._last: list[str] = []

    async def finished(self) -> None:
        """Wait for its end; MurmuraError with its last line unless the new version was released."""
        assert self._process.stdout is not None
        async for raw in self._process.stdout:
            line = raw.decode(errors="replace").strip()
            if line:
                self._last = [*self._last, line][-_KEPT_LINES:]
                self._told(line)
        if code := await self._process.wait():
            last = self._last[-1].removeprefix("murmura: ") if self._last else "it said nothing"
            raise MurmuraError(f"murmura retrain ended with {code}: {last}")


@asynccontextmanager
async def retraining(job: Path, told: Callable[[str], None]) -> AsyncIterator[Retraining]:
    """Start it; it is ended on the way out, should it still run. `told` gets each line that it says."""
    process = await asyncio.create_subprocess_exec(
        *_nicely(sys.executable, "-c", _MURMURA, "retrain", str(job), "--quiet"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is ours to handle
    )
    try:
        yield Retraining(process, told)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


def _nicely(*command: str) -> Sequence[str]:
    return command if (nice := shutil.which("nice")) is None else (nice, "-n", "10", *command)

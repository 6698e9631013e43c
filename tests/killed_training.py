"""Trains runs, each in three processes that kill themselves with SIGKILL: killed_training.py DATA RECIPE,OUT...

The first dies before its fifth step, the second at the first scoring when one task has been scored, the third when half of a
state is on the disk. The state is written after each third step only, so that steps have to be taken again. Prints for each
run, in a line, how its processes ended. The processes are forked before torch computes anything, so that it is imported once.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from late_imports import import_before_fork

import murmura.training.fit.loop as loop
from murmura.training.compute import state_file
from murmura.training.fit.steps import gradient
from murmura.training.kinds.tagging import Tagging


def kill(*_: Any, **__: Any) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still there")


def train(recipe: Path, data: Path, out: Path, point: str) -> None:
    """Train until the point where the process dies."""
    save_file, save_state, collate = state_file.save_file, loop.save_state, gradient.collate  # type: ignore[attr-defined]
    collated: list[Any] = []

    def write_half(tensors: dict[str, Any], path: Path, metadata: dict[str, str]) -> None:
        save_file(tensors, path, metadata=metadata)
        os.truncate(path, path.stat().st_size // 2)
        kill()

    def save_each_third(run: Any, optimiser: Any) -> None:
        if point == "state" and run.standing.step == 12:
            state_file.save_file = write_half  # type: ignore[attr-defined]
        if run.standing.step % 3 == 0:
            save_state(run, optimiser)

    def collate_until_fifth(parts: Any, tasks: Any, step: Any, device: str) -> Any:
        collated.append(step)
        return kill() if point == "step" and len(collated) == 5 else collate(parts, tasks, step, device)

    loop.save_state = save_each_third  # type: ignore[attr-defined]
    gradient.collate = collate_until_fifth  # type: ignore[attr-defined]
    if point == "scoring":
        Tagging.metrics = kill  # type: ignore[method-assign]
    loop.fit(recipe, data, out, quiet=True, resume=True)


data = Path(sys.argv[1])
import_before_fork()
for recipe, out in (run.split(",") for run in sys.argv[2:]):
    for point in ("step", "scoring", "state"):
        if not (child := os.fork()):
            train(Path(recipe), data, Path(out), point)
            os._exit(0)
        print(point, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), end=" ", flush=True)
    print(flush=True)

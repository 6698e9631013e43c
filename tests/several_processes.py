"""Trains in two processes, as `torchrun` starts them: several_processes.py DATA RECIPE,OUT[,POINT]...

One run after the other. `fail`: the second process fails in its third step. `freeze`: it stands still there, and the first one
waits for five seconds. `resume`: the run goes on. `apart`: it goes on in the first process alone, the second one has another folder. `other`: the second process reads DATA's sibling `other`. Prints for each run and process what it printed last, and how it ended. The processes are
forked before torch computes anything, so that it is imported once.
"""

import os
import signal
import socket
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from late_imports import import_before_fork

from murmura.training.compute import device
from murmura.training.fit.loop import fit
from murmura.training.fit.steps import gradient


def begin_as(number: int, port: int) -> None:
    """Set what `torchrun` sets."""
    numbers = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in numbers.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}


def end_in_third_step(point: str) -> None:
    collate, collated = gradient.collate, list[None]()  # type: ignore[attr-defined]

    def collate_or_fail(*arguments: Any) -> Any:
        collated.append(None)
        if len(collated) == 3 and point == "fail":
            raise MemoryError("in the third step")
        if len(collated) == 3:
            os.kill(os.getpid(), signal.SIGSTOP)
        return collate(*arguments)

    gradient.collate = collate_or_fail  # type: ignore[attr-defined]


def train(number: int, recipe: Path, data: Path, out: Path, point: str) -> None:
    last = number == 1
    if point == "freeze":
        device.MOST_WAITING = timedelta(seconds=5)  # type: ignore[misc]
    if last and point in {"fail", "freeze"}:
        end_in_third_step(point)
    rows = data.with_name("other") if last and point == "other" else data
    folder = out.with_name("empty") if last and point == "apart" else out
    lines: list[str] = []
    try:
        resume = point in {"resume", "apart"}
        record = fit(recipe, rows, folder, quiet=True, resume=resume, print_line=lines.append)
        found = f"{record.steps} steps, {len(lines)} lines"
    except BaseException as error:
        found = f"{type(error).__name__}: {error}".splitlines()[0]
    os.write(1, f"{out.name} {point} {number}: {found}\n".encode())  # in one piece: two processes write
    os._exit("Error" in found)


data, runs = Path(sys.argv[1]), [[*run.split(","), ""][:3] for run in sys.argv[2:]]
import_before_fork()
for recipe, out, point in runs:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for number in (0, 1):
        if not (child := os.fork()):
            begin_as(number, port)
            train(number, Path(recipe), data, Path(out), point)
        children.append(child)
    os.waitpid(children[0], 0)
    if point == "freeze":
        os.kill(children[1], signal.SIGKILL)
    os.waitpid(children[1], 0)

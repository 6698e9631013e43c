"""Try a version in a process of its own, before the serving process touches it.

A graph can be harmless to load and endless to run, ask for more memory than there is, or crash the library that runs
it; a delta can multiply to any size. A child with a deadline and a memory limit assembles and loads it, runs the
reference sample and a few texts of ours, and says how that went.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Event
from typing import Any, Final

from ..schemas.serving_event import RejectReason as Reason
from .errors import Closed, ModelFailed, ModelRefused, SetupError, VersionRefused

TIMEOUT_S: Final = 60.0
MEMORY_BYTES: Final = 8 * 2**30
"""Address space, of which the libraries alone map about 2 GiB."""
_LOOK_S: Final = 0.2
# Each thread of a BLAS maps memory of its own, as many as there are cores; here nothing is multiplied that is worth it.
_ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
# Whoever answers records goes first; not so far behind that a busy machine makes a good version look endless.
_NICE: Final = 5
_OUT_OF_MEMORY: Final = ("bad_alloc", "bad allocation", "allocate memory", "out of memory")


def prove(
    folder: Path,
    graph: str,
    *,
    max_rows: int = 256,
    timeout_s: float = TIMEOUT_S,
    memory_bytes: int = MEMORY_BYTES,
    given_up: Event | None = None,
) -> Path:
    """Return the folder to serve, the assembled one for a delta, once its model has reproduced its reference sample.

    VersionRefused with the reason otherwise, and for a folder without a sample. Blocks: call it off the event loop;
    `given_up` ends it with Closed. The child runs on the CPU, whatever device serves.
    """
    limits = (str(memory_bytes), str(int(timeout_s) + 1))
    command = [sys.executable, "-P", "-m", __name__, str(folder), graph, str(max_rows), *limits]
    child = subprocess.Popen(  # noqa: S603
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, **_ONE_THREAD},
    )
    said, complaint = _wait(child, folder, timeout_s, given_up or Event())
    verdict = _last_line(said)
    if child.returncode == 0 and "folder" in verdict:
        return Path(verdict["folder"])
    if "reason" in verdict:
        raise VersionRefused(verdict["reason"], verdict["message"])
    raise VersionRefused(*_how_it_ended(child.returncode, complaint, folder))


def _wait(child: "subprocess.Popen[str]", folder: Path, timeout_s: float, given_up: Event) -> tuple[str, str]:
    deadline = time.monotonic() + timeout_s
    try:
        while True:
            try:
                return child.communicate(timeout=_LOOK_S)
            except subprocess.TimeoutExpired:
                if given_up.is_set():
                    raise Closed("nobody waits for this version any more") from None
                if time.monotonic() > deadline:
                    message = f"{folder}: its reference sample took more than {timeout_s:g} s"
                    raise VersionRefused(Reason.ENDLESS, message) from None
    finally:
        if child.returncode is None:
            child.kill()
            child.communicate()


def _last_line(said: str) -> dict[str, Any]:
    try:
        verdict = json.loads(said.splitlines()[-1])
    except (ValueError, IndexError):
        return {}
    return verdict if isinstance(verdict, dict) else {}


def _how_it_ended(code: int, complaint: str, folder: Path) -> tuple[str, str]:
    if code == -signal.SIGXCPU:
        return Reason.ENDLESS, f"{folder}: it took more computing time than a version may"
    if code < 0:
        return Reason.TOO_LARGE, f"{folder}: the process that tried it was ended by signal {-code}: too much memory?"
    last = (complaint.strip().splitlines() or ["it said nothing"])[-1][:200]
    return Reason.FAILED, f"{folder}: the process that tried it ended with code {code}: {last}"


def _try(folder: Path, graph: str, max_rows: int) -> dict[str, str]:
    """Return the verdict on a folder, in the child."""
    try:
        return {"folder": str(_tried(folder, graph, max_rows))}
    except ModelRefused as error:
        return _verdict(Reason.TOO_LARGE if _is_memory(error) else error.reason, error)
    except MemoryError:
        return {"reason": Reason.TOO_LARGE, "message": f"{folder}: it needs more memory than a model may have"}
    except BaseException as error:  # noqa: BLE001  (what a library panics with is a verdict, too)
        return _verdict(Reason.TOO_LARGE if _is_memory(error) else Reason.FAILED, error)


def _tried(folder: Path, graph: str, max_rows: int) -> Path:
    from .calibration import warm_up  # noqa: PLC0415  (heavy, and only the child needs them)
    from .model import Model, failed_on_sample  # noqa: PLC0415
    from .store import resolve  # noqa: PLC0415

    try:
        servable = resolve(folder)
    except ModelRefused:
        raise
    except SetupError as error:
        raise VersionRefused(Reason.NO_BASE, str(error)) from error
    model = Model.open(servable, device="cpu", graph=graph)
    model.reproduce(servable, required=True)
    try:
        warm_up(model, max_rows=max_rows)
    except ModelFailed as error:
        raise failed_on_sample(error, str(folder)) from error
    return servable


def _verdict(reason: str, error: BaseException) -> dict[str, str]:
    message = str(error) if isinstance(error, ModelRefused) else f"{type(error).__name__}: {error}"
    return {"reason": reason, "message": message[:500]}


def _is_memory(error: BaseException) -> bool:
    """Say whether a library ran out of memory: onnxruntime has no class of its own for that."""
    return any(words in str(error) for words in _OUT_OF_MEMORY)


def _limit(memory_bytes: int, cpu_s: int) -> None:
    os.nice(_NICE)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    _limit(int(sys.argv[4]), int(sys.argv[5]))
    verdict = _try(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    print(json.dumps(verdict))
    sys.exit(0 if "folder" in verdict else 1)

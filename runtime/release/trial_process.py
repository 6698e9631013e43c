"""Tries a version in a child process, before the serving process loads it.

A graph can be harmless to load and endless to run, need more memory than exists, or crash the library; a delta can multiply
to any size. The child has a deadline and a memory limit. It assembles and loads the version, runs the reference sample and
a few other texts, and reports the verdict.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Event
from typing import Any, Final

from ...schemas.serving_event import RejectReason as Reason
from ..errors import Closed, ModelFailed, ModelRefused, SetupError, VersionRefused
from ..model.device_faults import is_out_of_memory

_CHECK_S: Final = 0.2
# A BLAS maps memory for one thread per core, which would count against the limit; the products here are small.
_ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
# The variables that a child needs to find Python, its libraries, the cache and a base checkpoint. No credentials.
_PASSED_ON: Final = frozenset(
    {"HOME", "LANG", "LD_LIBRARY_PATH", "MURMURA_CACHE", "PATH", "PYTHONHOME", "PYTHONPATH", "TEMP", "TMP", "TMPDIR"}
    | {"TZ", "USER", "VIRTUAL_ENV", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE"}
)
_BUSY_SHARE: Final = 0.5
"""A child with less CPU time than this share of its deadline was slowed by other processes."""
# Lower priority than serving, but not so low that a busy machine makes a good version look endless.
_NICE: Final = 5


def prove(
    folder: Path,
    graph: str,
    *,
    max_rows: int = 256,
    timeout_s: float,
    memory_bytes: int,
    given_up: Event | None = None,
) -> Path:
    """Return the folder to serve (for a delta the assembled one) after its model has reproduced its reference sample.

    Raises VersionRefused with the reason otherwise, also for a folder without a sample, and Closed when `given_up` is set.
    Blocks: call it off the event loop. The child runs on the CPU, regardless of the serving device. `memory_bytes` limits
    its address space, libraries included. Its environment has none of this process's secrets.
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
        env={**_filter_environment(os.environ), **_ONE_THREAD},
    )
    output, stderr = _wait_for_child(child, folder, timeout_s, given_up or Event())
    verdict = _parse_verdict(output)
    if child.returncode == 0 and "folder" in verdict:
        return Path(verdict["folder"])
    if "reason" in verdict:
        certain = verdict["reason"] != Reason.FAILED
        raise VersionRefused(verdict["reason"], verdict["message"], certain=certain)
    raise _explain_exit(child.returncode, stderr, folder)


def _filter_environment(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name in _PASSED_ON or name.startswith("LC_")}


def _wait_for_child(child: "subprocess.Popen[str]", folder: Path, timeout_s: float, given_up: Event) -> tuple[str, str]:
    deadline = time.monotonic() + timeout_s
    try:
        while True:
            try:
                return child.communicate(timeout=_CHECK_S)
            except subprocess.TimeoutExpired:
                if given_up.is_set():
                    raise Closed("nobody waits for this version any more") from None
                if time.monotonic() > deadline:
                    message = f"{folder}: its reference sample took more than {timeout_s:g} s"
                    busy = _cpu_seconds(child.pid) < _BUSY_SHARE * timeout_s
                    raise VersionRefused(Reason.ENDLESS, message, certain=not busy) from None
    finally:
        if child.returncode is None:
            child.kill()
            child.communicate()


def _cpu_seconds(process: int) -> float:
    """Return the CPU time of a process, 0 where the system does not provide it."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0


def _parse_verdict(output: str) -> dict[str, Any]:
    try:
        verdict = json.loads(output.splitlines()[-1])
    except (ValueError, IndexError):
        return {}
    return verdict if isinstance(verdict, dict) else {}


def _explain_exit(code: int, stderr: str, folder: Path) -> VersionRefused:
    if code == -signal.SIGXCPU:
        return VersionRefused(Reason.ENDLESS, f"{folder}: it took more computing time than a version may")
    if code < 0:
        message = f"{folder}: the process that tried it was ended by signal {-code}: too much memory?"
        # The system may have killed it, for memory that other processes use.
        return VersionRefused(Reason.TOO_LARGE, message, certain=code != -signal.SIGKILL)
    last = (stderr.strip().splitlines() or ["no message"])[-1][:200]
    message = f"{folder}: the process that tried it ended with code {code}: {last}"
    return VersionRefused(Reason.FAILED, message, certain=False)


def _judge(folder: Path, graph: str, max_rows: int) -> dict[str, str]:
    """Return the verdict on a folder, in the child."""
    try:
        return {"folder": str(_load_and_run(folder, graph, max_rows))}
    except ModelRefused as error:
        return _verdict(Reason.TOO_LARGE if is_out_of_memory(error) else error.reason, error)
    except MemoryError:
        return {"reason": Reason.TOO_LARGE, "message": f"{folder}: it needs more memory than a model may have"}
    except BaseException as error:  # noqa: BLE001  (a panic of a library is a verdict, too)
        return _verdict(Reason.TOO_LARGE if is_out_of_memory(error) else Reason.FAILED, error)


def _load_and_run(folder: Path, graph: str, max_rows: int) -> Path:
    from ..batching.costs.calibration import warm_up  # noqa: PLC0415  (heavy, and only the child needs them)
    from ..model.deltas.assembled import resolve  # noqa: PLC0415
    from ..model.model import Model, sample_error  # noqa: PLC0415

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
        raise sample_error(error, str(folder)) from error
    return servable


def _verdict(reason: str, error: BaseException) -> dict[str, str]:
    message = str(error) if isinstance(error, ModelRefused) else f"{type(error).__name__}: {error}"
    return {"reason": reason, "message": message[:500]}


def _limit(memory_bytes: int, cpu_s: int) -> None:
    os.nice(_NICE)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    _limit(int(sys.argv[4]), int(sys.argv[5]))
    verdict = _judge(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    print(json.dumps(verdict))
    sys.exit(0 if "folder" in verdict else 1)

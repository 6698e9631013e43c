"""Try a model folder in a process of its own, before the serving process touches it.

A graph can be harmless to load and endless to run, ask for more memory than there is, or crash the library that runs
it. A child with a deadline and a memory limit loads it, runs the reference sample, and says how that went.
"""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Final

from .errors import ModelFailed, ModelRefused, VersionRefused

TIMEOUT_S: Final = 60.0
MEMORY_BYTES: Final = 8 * 2**30
"""Address space, of which the libraries alone map about 2 GiB."""


def prove(folder: Path, graph: str, *, timeout_s: float = TIMEOUT_S, memory_bytes: int = MEMORY_BYTES) -> None:
    """Return when the folder's model reproduces its reference sample; VersionRefused with the reason otherwise.

    Blocks: call it off the event loop. The child runs on the CPU, whatever device serves.
    """
    command = [sys.executable, "-P", "-m", __name__, str(folder), graph, str(memory_bytes), str(int(timeout_s) + 1)]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=timeout_s)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise VersionRefused("endless", f"{folder}: its reference sample took more than {timeout_s:g} s") from None
    if done.returncode == 0:
        return
    try:
        verdict = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        raise VersionRefused(
            "too_large", f"{folder}: the process that tried it ended with code {done.returncode}: too much memory?"
        ) from None
    raise VersionRefused(verdict["reason"], verdict["message"])


def _try(folder: Path, graph: str) -> tuple[str, str] | None:
    from .model import Model  # noqa: PLC0415  (heavy, and only the child needs it)

    try:
        Model.load(folder, device="cpu", graph=graph)
    except ModelRefused as error:
        return error.reason, str(error)
    except ModelFailed as error:
        return ("not_finite" if "not finite" in str(error) else "wrong_shape"), str(error)
    except MemoryError:
        return "too_large", f"{folder}: it needs more memory than a model may have"
    return None


def _limit(memory_bytes: int, cpu_s: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    _limit(int(sys.argv[3]), int(sys.argv[4]))
    refusal = _try(Path(sys.argv[1]), sys.argv[2])
    if refusal:
        print(json.dumps({"reason": refusal[0], "message": refusal[1]}))
        sys.exit(1)

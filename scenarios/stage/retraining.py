"""`murmura retrain` as the process of its own that it is meant to be."""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from ...runtime.errors import MurmuraError

_KEPT_LINES: Final = 20
_MURMURA: Final = "from murmura.runtime.cli.main import main; main()"  # a script of that name need not be on the path


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

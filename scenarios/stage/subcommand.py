"""Runs a `murmura` command in a separate process."""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from ...runtime.errors import MurmuraError

_KEPT_LINES: Final = 20
_MURMURA: Final = "from murmura.runtime.cli.main import main; main()"  # the script may not be on the path


class Subcommand:
    """A running command, at low priority: the desk keeps answering on the same cores."""

    def __init__(self, process: asyncio.subprocess.Process, name: str, on_line: Callable[[str], None]) -> None:
        self._process, self._name, self._on_line = process, name, on_line
        self._last: list[str] = []

    async def finish(self) -> None:
        """Wait for its end. Raises MurmuraError with its last line where it has failed."""
        assert self._process.stdout is not None
        async for raw in self._process.stdout:
            line = raw.decode(errors="replace").strip()
            if line:
                self._last = [*self._last, line][-_KEPT_LINES:]
                self._on_line(line)
        if code := await self._process.wait():
            last = self._last[-1].removeprefix("murmura: ") if self._last else "it said nothing"
            raise MurmuraError(f"murmura {self._name} ended with {code}: {last}")


@asynccontextmanager
async def run_subcommand(name: str, *arguments: str, on_line: Callable[[str], None]) -> AsyncIterator[Subcommand]:
    """Start `murmura NAME ARGUMENTS`, and terminate it at the end of the block. `on_line` is called with each line of its output.

    Settings of the environment, which are those of a production, do not reach it, but for the cache.
    """
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("MURMURA_") or key == "MURMURA_CACHE"
    }
    process = await asyncio.create_subprocess_exec(
        *_with_low_priority(sys.executable, "-c", _MURMURA, name, *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,  # the parent handles Ctrl-C
        env=environment,
    )
    try:
        yield Subcommand(process, name, on_line)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


def _with_low_priority(*command: str) -> Sequence[str]:
    return command if (nice := shutil.which("nice")) is None else (nice, "-n", "10", *command)

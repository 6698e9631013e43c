"""`murmura serve` in a process of its own, as users start it."""

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from serving import Desk

MURMURA = Path(sys.executable).with_name("murmura")


class Process:
    """`murmura serve` as users start it."""

    def __init__(
        self,
        desk: Desk,
        folder: Path,
        number: int = 0,
        *,
        agents: Sequence[str] = (),
        settings: Mapping[str, object] | None = None,
        **kafka: object,
    ) -> None:
        """`agents`: their names as on the command line, modules in `folder` among them; default: those of the desk.

        `settings` take the place of whole sections.
        """
        config = folder / f"serve-{number}.yaml"
        declared = {agent.name: {"topics": list(agent.topics), "output": agent.output} for agent in desk.agents}
        # A member that was killed is missed for a session: short, so that the test is.
        short = {"session_timeout_ms": 1500, "heartbeat_interval_ms": 200}
        written: dict[str, object] = {
            "app": desk.prefix,
            "prefix": desk.prefix,
            "kafka": {"bootstrap_servers": desk.bootstrap, **short, **kafka},
            "agents": {} if agents else declared,
            "model": {"folder": str(desk.model), "cores": 1, "token_budget": 64},
            "http": "127.0.0.1:0",
            "commit_interval_ms": 50,
        }
        config.write_text(yaml.safe_dump(written | dict(settings or {})))
        self.log = (folder / f"serve-{number}.log").open("wb")
        self.process = subprocess.Popen(
            [MURMURA, "serve", *agents, "--config", str(config)], stderr=self.log, stdout=self.log, cwd=folder
        )

    @property
    def written(self) -> str:
        """The log up to now."""
        return Path(self.log.name).read_text()

    async def until(self, word: str) -> str:
        """Wait until the log has a line with `word`, and return it."""
        async with asyncio.timeout(60):
            while True:
                text = self.written
                if found := re.search(f".*{word}.*", text):
                    return found[0]
                assert self.process.poll() is None, text
                await asyncio.sleep(0.02)

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        code = self.process.wait(30)
        self.log.close()
        return code


@contextmanager
def ended(processes: list[Process]) -> Iterator[None]:
    try:
        yield
    finally:
        for process in processes:
            if process.process.poll() is None:
                process.end(signal.SIGKILL)

"""Processes of `murmura serve` that a benchmark starts, kills and stops."""

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

HOLDS = "this process holds the experiments"


class Members:
    """The processes that serve."""

    def __init__(self, config: Path, folder: Path) -> None:
        self._config, self._folder, self._started = config, folder, 0
        self._all: dict[Path, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        self._started += 1
        log = self._folder / f"serve-{self._started}.log"
        command = [Path(sys.executable).with_name("murmura"), "serve", "classification", "--config", self._config]
        with log.open("wb") as file:
            self._all[log] = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)

    def check(self) -> None:
        """Raise RuntimeError when one has ended by itself."""
        for log, process in self._all.items():
            if process.poll() is not None:
                raise RuntimeError(f"a process has ended with {process.returncode}: {log.read_text()[-3000:]}")

    def kill_holder(self) -> bool:
        """Kill the process that holds the experiment; False where none does."""
        holding = [log for log in self._all if HOLDS in log.read_text()]
        if not holding:
            return False
        killed = self._all.pop(holding[-1])
        killed.kill()
        killed.wait()
        return True

    def stop(self) -> None:
        for process in self._all.values():
            process.send_signal(signal.SIGTERM)
        for process in self._all.values():
            process.wait(60)

    def end(self) -> None:
        for process in self._all.values():
            if process.poll() is None:
                process.kill()
                process.wait()

    def warnings(self) -> Counter[str]:
        """Return the warnings and errors in the logs of those that run, by their text."""
        lines = [line for log in self._all for line in log.read_text().splitlines() if line.startswith("{")]
        found = [json.loads(line) for line in lines]
        return Counter(line["event"] for line in found if line["level"] not in ("debug", "info"))

"""A demo in a process of its own, in a terminal that is none."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

MURMURA = str(Path(sys.executable).with_name("murmura"))
LAST_LINE = r"published (\d+), answered (\d+), dead-lettered (\d+), lost (\d+)"


def environment() -> dict[str, str]:
    """Return what a demo is started with: nothing of a production set-up, and the size of its own terminal."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    return inherited | {
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "MURMURA_KAFKA__BOOTSTRAP_SERVERS": "production.invalid:9092",
        "TERM": "xterm-256color",
    }


class Terminal:
    """A pseudo terminal of 120 x 30 characters with the demo in it."""

    def __init__(self, command: list[str]) -> None:
        self.output = b""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
        self.before = termios.tcgetattr(theirs)
        self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment())
        self.ours, self.theirs = ours, theirs
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while data := os.read(self.ours, 65536):
            self.output += data

    def wait_for(self, text: str, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while text not in (shown := self.shown()):
            assert time.monotonic() < deadline, shown[-3000:]
            time.sleep(0.05)

    def shown(self) -> str:
        """All that was ever drawn, without colours and cursor movements."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.output.decode(errors="replace"))

    def type(self, text: str) -> None:
        os.write(self.ours, text.encode())

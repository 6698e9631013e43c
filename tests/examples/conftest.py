"""An example whose README is run: its code blocks, line by line, as somebody pastes them."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 100


class Example:
    """One folder of `examples/`, copied to an empty root, with a prefix of its own in the place of `e05` and the like."""

    def __init__(self, folder: str, root: Path, bootstrap: str, prefix: str) -> None:
        self.root, self.folder = root, root / "examples" / folder
        self._log = root / "serve.log"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.http = f"127.0.0.1:{free.getsockname()[1]}"
        shutil.copytree(ROOT / "examples", root / "examples", ignore=shutil.ignore_patterns("__pycache__"))
        self.replace(rf"\b{folder[:3]}\b", prefix)
        self.replace("localhost:9092", bootstrap)
        self.replace("127.0.0.1:9464", self.http)
        activate = root / ".venv/bin/activate"
        activate.parent.mkdir(parents=True)
        activate.write_text(f'PATH="{Path(sys.executable).parent}:$PATH"\n')
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("MURMURA_")} | {
            "MURMURA_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
            "MURMURA_HTTP": self.http,
            "MURMURA_CACHE": str(root / "cache"),
        }

    def replace(self, pattern: str, by: str) -> None:
        """Replace a pattern in every file of the folder."""
        for path in self.folder.iterdir():
            path.write_text(re.sub(pattern, by, path.read_text()))

    @property
    def blocks(self) -> list[str]:
        return re.findall(r"^```sh\n(.*?)^```$", (self.folder / "README.md").read_text(), re.DOTALL | re.MULTILINE)

    def paste(self, block: str) -> str:
        """What the lines of a block print, in a terminal that has had the two lines which every terminal needs."""
        script = "\n".join([*self.blocks[0].splitlines()[:2], block])
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", script],
            cwd=self.root, env=self._environment, capture_output=True, text=True, timeout=PATIENCE_S,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def first_terminal(self) -> Iterator[None]:
        """The first block, whose last line serves while the `with` lasts; it has to end well."""
        *before, serve = self.blocks[0].splitlines()
        assert serve.startswith("murmura serve ")
        self.paste("\n".join(before))
        with self._log.open("wb") as log:
            serving = subprocess.Popen(
                ["bash", "-ec", "\n".join([*before[:2], f"exec {serve}"])],
                cwd=self.root, env=self._environment, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            self._wait_until_ready(serving)
            yield
        finally:
            serving.send_signal(signal.SIGTERM)
            code = serving.wait(30)
        assert code == 0, self._log.read_text()

    def _wait_until_ready(self, serving: subprocess.Popen) -> None:
        end = time.monotonic() + PATIENCE_S
        while serving.poll() is None and time.monotonic() < end:
            try:
                urllib.request.urlopen(f"http://{self.http}/readyz", timeout=5).close()
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise AssertionError(self._log.read_text())


@pytest.fixture
def example(kafka: str, unique: Callable[[str], str], tmp_path: Path) -> Callable[[str], Example]:
    """`example("e05_releases")` is that example in an empty root, ready to be pasted from."""
    return lambda folder: Example(folder, tmp_path, kafka, unique(folder[:3]))

"""Where the tests find a real Apache Kafka, in this order.

1. `MURMURA_TEST_BOOTSTRAP`, a broker that already runs;
2. `deploy/kafka/kafka`, on a free port with a temporary data folder, once a run;
3. compose, where a Docker engine answers (a client alone is common and is no engine);
4. none: `NoBroker` says in one line what to install.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from confluent_kafka.admin import AdminClient

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "deploy/kafka/kafka"
COMPOSE = ROOT / "deploy/compose.yaml"
START_SECONDS = 180
"""On a machine that computes something else beside, a node needs more than a minute. All tests on Kafka wait for one node."""
TIMEOUT_S = 20.0
"""For a request to a node."""


class NoBroker(Exception):
    """No Kafka can be had here; the message is one line."""


class OwnBroker:
    """A node of one's own, to be stopped, killed and started again on the same port with the same data."""

    def __init__(self, data: Path, properties: Path | None = None) -> None:
        self.data = data
        self.properties = properties
        self.port = 0
        self.bootstrap = ""

    def start(self) -> str:
        added = [] if self.properties is None else ["--properties", str(self.properties)]
        said = self._script("start", "--port", str(self.port), "--timeout", str(START_SECONDS), *added)
        found = re.search(r"127\.0\.0\.1:(\d+)", said)
        assert found, f"the script did not say where Kafka answers: {said!r}"
        self.port = int(found[1])
        self.bootstrap = f"127.0.0.1:{self.port}"
        return self.bootstrap

    def stop(self) -> None:
        self._script("stop")

    def reset(self) -> None:
        """Make it as good as new, whatever has been done to it: it runs, and has no topics and no offsets of theirs."""
        if self.is_running:
            self.thaw()
        else:
            self.port = 0  # somebody else may have taken it meanwhile
        self.start()
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        if names := [name for name in admin.list_topics(timeout=TIMEOUT_S).topics if not name.startswith("__")]:
            for deleted in admin.delete_topics(names, operation_timeout=TIMEOUT_S).values():
                deleted.result(TIMEOUT_S)

    def discard(self) -> None:
        """End it for ever, which is quicker than a stop: nobody reads its data again."""
        if self.is_running:
            self.kill()

    def kill(self) -> None:
        """End it as a crash would: no goodbye to its clients."""
        os.kill(self.pid, signal.SIGKILL)
        while not _is_gone(self.port):
            time.sleep(0.02)
        self._pid_file.unlink()

    @property
    def is_running(self) -> bool:
        """True for a frozen one, too."""
        try:
            os.kill(self.pid, 0)
        except (FileNotFoundError, ProcessLookupError):
            return False
        return True

    @property
    def pid(self) -> int:
        return int(self._pid_file.read_text())

    @property
    def _pid_file(self) -> Path:
        return self.data / "kafka.pid"

    def freeze(self) -> None:
        """Leave the connections open and answer nothing, as a machine that swaps does."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _script(self, *arguments: str) -> str:
        command = [sys.executable, str(SCRIPT), *arguments, "--data", str(self.data)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise NoBroker(done.stderr.strip().splitlines()[-1])
        return done.stdout


def _is_gone(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


class GivenBroker:
    """A broker that runs already and goes on when the tests have ended."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap

    def discard(self) -> None:
        pass


class ComposedBroker:
    """The broker of `deploy/compose.yaml`, on a free port."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = str(probe.getsockname()[1])
        self.bootstrap = f"127.0.0.1:{self._port}"

    def start(self) -> None:
        self._compose("up", "--detach", "--wait", "kafka", check=True)

    def discard(self) -> None:
        self._compose("down", "--volumes", check=False)

    def _compose(self, *arguments: str, check: bool) -> None:
        compose = ["docker", "compose", "--project-name", "murmura-tests", "--file", str(COMPOSE)]
        subprocess.run([*compose, *arguments], check=check, env={**os.environ, "KAFKA_PORT": self._port})


RunBroker = GivenBroker | OwnBroker | ComposedBroker


def start_broker(data: Path) -> RunBroker:
    """Return a broker for this run, started if none was given; NoBroker where there can be none."""
    if given := os.environ.get("MURMURA_TEST_BOOTSTRAP"):
        return GivenBroker(given)
    broker = OwnBroker(data)
    try:
        broker.start()
    except NoBroker as refusal:
        if not engine_answers():
            raise NoBroker(
                f"no Kafka for the tests: {refusal}; or start a Docker engine, or set MURMURA_TEST_BOOTSTRAP"
            ) from None
        composed = ComposedBroker()
        composed.start()
        return composed
    return broker


def engine_answers() -> bool:
    if not (docker := shutil.which("docker")):
        return False
    try:
        return subprocess.run([docker, "info"], check=False, capture_output=True, timeout=20).returncode == 0
    except subprocess.TimeoutExpired:
        return False

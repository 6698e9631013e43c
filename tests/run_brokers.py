"""The brokers that a run shares: the first process of the run that asks starts one, the run's end stops it.

A run is one pytest, or one with workers beside it (pytest-xdist). What is known of a broker lies in a folder of the run, behind
a lock.
"""

import fcntl
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from guarded_broker import GuardedBroker
from kafka_broker import NoBroker, RunBroker, start_broker


class RunBrokers:
    """Brokers by name, each started once a run. Where one was refused, every process of the run is refused it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def plain(self) -> RunBroker:
        """Return the Kafka that most tests use; NoBroker says why there is none."""
        return self._started("plain", lambda: start_broker(self.folder / "kafka"))

    def guarded(self) -> GuardedBroker:
        """Return the Kafka with an authorizer, users and TLS; NoBroker says why there is none."""

        def start() -> GuardedBroker:
            (self.folder / "guarded").mkdir()
            broker = GuardedBroker(self.folder / "guarded")
            broker.start()
            return broker

        return self._started("guarded", start)

    def refuse(self, reason: str) -> None:
        """Remember that a test found no Kafka."""
        (self.folder / "refusal.txt").write_text(reason)

    @property
    def refusal(self) -> str | None:
        """Why tests had no Kafka; None where each had one."""
        path = self.folder / "refusal.txt"
        return path.read_text() if path.exists() else None

    def stop(self) -> None:
        """Stop what was started; for the process that leads the run, after all others have ended."""
        for path in self.folder.glob("*.pickle"):
            broker = pickle.loads(path.read_bytes())
            if not isinstance(broker, NoBroker):
                broker.stop()

    def _started(self, name: str, start: Callable[[], Any]) -> Any:
        path = self.folder / f"{name}.pickle"
        with self._one_at_a_time():
            if not path.exists():
                path.write_bytes(pickle.dumps(_broker_or_refusal(start)))
        broker = pickle.loads(path.read_bytes())
        if isinstance(broker, NoBroker):
            raise broker
        return broker

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _broker_or_refusal(start: Callable[[], Any]) -> Any:
    try:
        return start()
    except NoBroker as refusal:
        return refusal

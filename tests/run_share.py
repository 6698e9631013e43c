"""What a run shares: brokers and models that the first of its processes that asks makes, and that all of them use.

A run is one pytest, or one with workers beside it (pytest-xdist). What has been made is noted in a folder of the run.
"""

import fcntl
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from guarded_broker import GuardedBroker
from kafka_broker import NoBroker, RunBroker, start_broker

SHARE: "pytest.StashKey[RunShare]" = pytest.StashKey()


class RunShare:
    """Values by name, each made once a run. Whoever asks for one that is being made waits for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def once(self, name: str, make: Callable[[Path], Any]) -> Any:
        """Return what `make`, given an empty folder, returned to the first that asked; it has to be picklable."""
        record = self.folder / f"{name}.pickle"
        with self._one_at_a_time(name):
            if not record.exists():
                folder = self.folder / name
                folder.mkdir()
                record.write_bytes(pickle.dumps(make(folder)))
        return pickle.loads(record.read_bytes())

    def kafka(self) -> RunBroker:
        """Return the Kafka that most tests use; NoBroker says why there is none."""
        return _broker(self.once("kafka", lambda folder: _broker_or_refusal(start_broker, folder)))

    def guarded_kafka(self) -> GuardedBroker:
        """Return the Kafka with an authorizer, users and TLS; NoBroker says why there is none."""
        return _broker(self.once("guarded_kafka", lambda folder: _broker_or_refusal(_start_guarded, folder)))

    def discard_brokers(self) -> None:
        """End what was started; for the process that leads the run, after all others have ended."""
        for name in ("kafka", "guarded_kafka"):
            record = self.folder / f"{name}.pickle"
            if record.exists() and not isinstance(broker := pickle.loads(record.read_bytes()), NoBroker):
                broker.discard()

    def refuse_kafka(self, reason: str) -> None:
        """Remember that a test found no Kafka."""
        (self.folder / "refusal.txt").write_text(reason)

    @property
    def refusal(self) -> str | None:
        """Why tests had no Kafka; None where each had one."""
        path = self.folder / "refusal.txt"
        return path.read_text() if path.exists() else None

    @contextmanager
    def _one_at_a_time(self, name: str) -> Iterator[None]:
        with (self.folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _start_guarded(folder: Path) -> GuardedBroker:
    broker = GuardedBroker(folder)
    broker.start()
    return broker


def _broker_or_refusal(start: Callable[[Path], Any], folder: Path) -> Any:
    try:
        return start(folder)
    except NoBroker as refusal:
        return refusal


def _broker(found: Any) -> Any:
    if isinstance(found, NoBroker):
        raise found
    return found

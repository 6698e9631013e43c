"""Figures that no topic says, from the `/metrics` of serving processes: lag and suspended agents."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

_PAUSE_S: Final = 10.0
_TIMEOUT_S: Final = 3.0
_MOST_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that a process says it answers with. `process`: the address of its metrics."""

    process: str
    name: str
    version: str
    device: str


@dataclass(frozen=True, slots=True)
class ProcessMetrics:
    """What the processes that answered said. `unanswered`: addresses without an answer."""

    lag: dict[str, float] = field(default_factory=dict)
    """Unfinished records by topic."""
    suspended: frozenset[str] = frozenset()
    """Agents that some process has suspended."""
    known: frozenset[str] = frozenset()
    """Agents of which it was said whether they are."""
    unanswered: tuple[str, ...] = ()
    models: tuple[ServedModel, ...] = ()


class MetricsReader:
    """Asks all addresses every 10 s."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses
        self.latest: ProcessMetrics | None = None
        """None without addresses, and before the first answer."""

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            if self._addresses:
                self.latest = read_metrics(await asyncio.gather(*map(self._fetch, self._addresses)), self._addresses)
            await asyncio.sleep(_PAUSE_S)

    async def _fetch(self, address: str) -> str | None:
        def fetch() -> str:
            with urlopen(address, timeout=_TIMEOUT_S) as answer:  # noqa: S310  (the settings allow http and https)
                body: bytes = answer.read(_MOST_BYTES)
                return body.decode()

        try:
            return await asyncio.to_thread(fetch)
        except (OSError, ValueError):
            return None


def read_metrics(pages: Sequence[str | None], addresses: Sequence[str]) -> ProcessMetrics:
    """Return what pages of metrics say together; None stands for a process that did not answer."""
    lag: dict[str, float] = {}
    suspended, known, models = set(), set(), []
    unanswered = [address for page, address in zip(pages, addresses, strict=True) if page is None]
    for page, address in zip(pages, addresses, strict=True):
        if page is None:
            continue
        try:
            families = list(text_string_to_metric_families(page))
        except ValueError:
            unanswered.append(address)
            continue
        for sample in (sample for family in families for sample in family.samples):
            if sample.name == "murmura_consumer_lag_records":
                topic = sample.labels.get("topic", "")
                lag[topic] = lag.get(topic, 0.0) + sample.value
            elif sample.name == "murmura_suspended_agents":
                known.add(sample.labels.get("agent", ""))
                if sample.value:
                    suspended.add(sample.labels.get("agent", ""))
            elif sample.name == "murmura_model_info" and sample.value:
                found = (sample.labels.get(label, "") for label in ("name", "version", "device"))
                models.append(ServedModel(address, *found))
    return ProcessMetrics(lag, frozenset(suspended), frozenset(known), tuple(unanswered), tuple(models))

"""Passes records to the model of their topic."""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from ..batching.queues.entry import Entry
from ..batching.versions import ServedModel
from ..output.delivery import Delivery, Rejected
from ..output.outcome import Outcome
from .feeding import Feeding


class ModelFeedings:
    """A `Feeding` for each model of the process. Records of other topics, which were rejected, go to the first one's."""

    def __init__(self, served: Sequence[ServedModel], make: Callable[[ServedModel], Feeding]) -> None:
        self._first = served[0]
        self._feedings = {each.name: make(each) for each in served}
        self.groups = {topic: each.name for each in served[1:] for topic in each.versions.current.routes}
        """The model of a topic, other than the first: its records are queued apart."""

    def group(self, served: ServedModel) -> str:
        """Return the group of a model's topics in the queue."""
        return "" if served is self._first else served.name

    async def pass_on(self, served: ServedModel, items: Sequence[Delivery | Rejected]) -> None:
        """Pass records of a model's group to it; see `Feeding.pass_on`."""
        await self._feedings[served.name].pass_on(items)

    def take_back(self, entries: Iterable[Entry]) -> None:
        """Submit records again; see `Feeding.take_back`."""
        parts: dict[str, list[Entry]] = {}
        for entry in entries:
            parts.setdefault(self._find_name(entry.context.record.topic), []).append(entry)
        for name, part in parts.items():
            self._feedings[name].take_back(part)

    def offer(self, entries: Sequence[Entry], outcome: Outcome, sending: "asyncio.Task[bool]") -> None:
        """Show a batch, which is of one model, to a version that is only compared; see `Feeding.offer`."""
        self._feedings[self._find_name(entries[0].context.record.topic)].offer(entries, outcome, sending)

    def send(self, outcome: Outcome, held: int) -> "asyncio.Task[bool]":
        """Send an outcome; see `Feeding.send`."""
        return self._feedings[self._first.name].send(outcome, held)

    def _find_name(self, topic: str) -> str:
        return self.groups.get(topic, self._first.name)

"""Decides whether a result can keep its request's partition number, from the clients' current metadata."""

from collections.abc import Callable, Iterable, Mapping

from ..agent.agent import Agent

Count = Callable[[str], int | None]
"""Returns a topic's number of partitions in the client's current metadata; None while it has none of the topic."""


class Alignment:
    """Pairs of a request topic and a result topic that have the same number of partitions.

    Where the numbers differ, a result goes to the partition of its key. Partitions may be added to a topic at any time;
    the consumer and the producer notice that independently.
    """

    def __init__(self, agents: Iterable[Agent], counts: Mapping[str, int], consumer: Count, producer: Count) -> None:
        """`counts` holds the partitions of each topic at the start."""
        self._pairs = [(topic, agent.output) for agent in agents if agent.output for topic in agent.topics]
        self._counts = dict(counts)
        self._consumer, self._producer = consumer, producer

    def aligned_pairs(self) -> frozenset[tuple[str, str]]:
        """Return the (request topic, result topic) pairs with equal numbers of partitions. Call it once per batch."""
        return frozenset(
            (topic, output)
            for topic, output in self._pairs
            if self._count(topic, self._consumer) == self._count(output, self._producer)
        )

    def _count(self, topic: str, ask: Count) -> int | None:
        if (known := ask(topic)) is not None:
            self._counts[topic] = known
        return self._counts.get(topic)

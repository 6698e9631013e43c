"""Whether a result can keep its request's partition number: asked of what the clients know now, not of the start."""

from collections.abc import Callable, Iterable, Mapping

from ..agent.agent import Agent

Count = Callable[[str], int | None]
"""A topic's partitions as a client knows them now; None while it knows nothing of the topic."""


class Alignment:
    """Topics of requests and of results with as many partitions.

    Where the numbers differ, a result goes to the partition of its key. A topic may be widened at any time, and the consumer
    may hear of it before the producer does, or after it.
    """

    def __init__(self, agents: Iterable[Agent], counts: Mapping[str, int], consumer: Count, producer: Count) -> None:
        """`counts` holds the partitions of each topic at the start."""
        self._pairs = [(topic, agent.output) for agent in agents if agent.output for topic in agent.topics]
        self._counts = dict(counts)
        self._consumer, self._producer = consumer, producer

    def now(self) -> frozenset[tuple[str, str]]:
        """Return the pairs (topic of requests, topic of results) that have as many partitions. Ask once for a batch."""
        return frozenset(
            (topic, output)
            for topic, output in self._pairs
            if self._count(topic, self._consumer) == self._count(output, self._producer)
        )

    def _count(self, topic: str, ask: Count) -> int | None:
        if (known := ask(topic)) is not None:
            self._counts[topic] = known
        return self._counts.get(topic)

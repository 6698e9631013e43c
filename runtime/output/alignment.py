"""Decides whether a result can keep its request's partition number, from the clients' current metadata."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from ..agent.agent import Agent

Count = Callable[[str], int | None]
"""Returns a topic's number of partitions in the client's current metadata; None while it has none of the topic."""


class PartitionCounts(Mapping[str, int]):
    """The number of partitions of each topic now. Partitions may be added to a topic at any time.

    The consumer answers for the topics that it reads, the producer for the others: they notice that independently.
    """

    def __init__(self, counts: Mapping[str, int], consumer: Count, producer: Count) -> None:
        """`counts` holds the partitions of each topic at the start."""
        self._counts = dict(counts)
        self._clients = consumer, producer

    def __getitem__(self, topic: str) -> int:
        for count in self._clients:
            if (known := count(topic)) is not None:
                self._counts[topic] = known
                break
        return self._counts[topic]

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)


class Alignment:
    """Pairs of a request topic and a result topic that have the same number of partitions.

    Where the numbers differ, a result goes to the partition of its key.
    """

    def __init__(self, agents: Iterable[Agent], counts: Mapping[str, int]) -> None:
        self._pairs = [(topic, agent.output) for agent in agents if agent.output for topic in agent.topics]
        self._counts = counts

    def aligned_pairs(self) -> frozenset[tuple[str, str]]:
        """Return the (request topic, result topic) pairs with equal numbers of partitions. Call it once per batch."""
        return frozenset(
            (topic, output) for topic, output in self._pairs if self._counts.get(topic) == self._counts.get(output)
        )

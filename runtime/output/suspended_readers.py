"""What the suspension of agents means for the partitions that they read. Read-only."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from .delivery import Delivery
from .overflow import Overflow
from .suspension import Suspensions
from .waiting_handlers import Waiters


class Partition(Protocol):
    """A partition of a topic."""

    @property
    def topic(self) -> str: ...


class SuspendedReaders:
    """Answers questions about partitions while agents are suspended."""

    def __init__(
        self,
        agents: Suspensions[Any, Delivery],
        readers: Mapping[str, Sequence[str]],
        waiters: Waiters,
        overflow: Overflow,
    ) -> None:
        """`readers`: the agents of each input topic. `overflow`: takes the parts that exceed the limits."""
        self._agents, self._readers, self._waiters, self.overflow = agents, readers, waiters, overflow

    def blocks(self, partition: Partition) -> bool:
        """Return whether to pause a partition: no agent answers it and enough waits for a probe, or a suspended agent's limit is
        reached.
        """
        if not self._agents.suspended:
            return False
        held = self._suspended_readers(partition)
        is_full = not self.overflow.is_open and any(self._agents[name].is_full(partition) for name in held)
        return is_full or (
            self._answers_nobody(partition)
            and any(self._agents[name].has_enough(partition) or self._waiters.has(name) for name in held)
        )

    def idle_records(self, partition: Partition) -> int | None:
        """Return how many records of a partition wait for suspended agents only; None: all, since no agent answers."""
        if not self._agents.suspended:
            return 0
        if self._answers_nobody(partition):
            return None
        held = (self._agents[name].parts(partition) for name in self._suspended_readers(partition))
        return len({id(part.record) for parts in held for part in parts})

    def _suspended_readers(self, partition: Partition) -> list[str]:
        return [name for name in self._readers.get(partition.topic, ()) if name in self._agents.suspended]

    def _answers_nobody(self, partition: Partition) -> bool:
        return len(self._suspended_readers(partition)) == len(self._readers.get(partition.topic, ()))

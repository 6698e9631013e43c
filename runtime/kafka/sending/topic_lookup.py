"""Looks up how many partitions topics have. Remembers missing topics for a while, and asks once per topic."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from ...errors import Closed
from .producer import IdempotentProducer

_TIMEOUT_S: Final = 3.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 5.0


class TopicLookup:
    """Answers from the producer's metadata, and asks the broker where the producer has none.

    Invariants:
    - concurrent lookups of a topic share one request;
    - a topic that is missing or not visible counts as missing for `missing_s`, unless `forget` is called;
    - a broker that does not answer is asked again until it does.
    """

    def __init__(
        self,
        producer: Callable[[], IdempotentProducer | None],
        *,
        missing_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`producer` returns the current producer; None while it is being replaced."""
        self._producer, self._missing_s, self._clock = producer, missing_s, clock
        self._missing: dict[str, float] = {}
        self._asking: dict[str, asyncio.Task[int]] = {}
        self._closed = asyncio.Event()

    def known(self, topic: str) -> set[int] | None:
        """Return the partitions in the producer's metadata; None where it has none of the topic."""
        producer = self._producer()
        found: set[int] | None = None if producer is None else producer.client.cluster.partitions_for_topic(topic)
        return found or None

    def is_missing(self, topic: str) -> bool:
        """Return whether the broker answered within `missing_s` that the topic is missing or not visible."""
        until = self._missing.get(topic)
        return until is not None and self._clock() < until

    def forget(self, topic: str) -> None:
        """Ask the broker again at the next lookup."""
        self._missing.pop(topic, None)

    async def count(self, topic: str) -> int:
        """Return how many partitions a topic has: 0 when missing or not visible. Raises Closed after `close`."""
        if (known := self.known(topic)) is not None:
            return len(known)
        if self.is_missing(topic):
            return 0
        return await self._share_answer(topic)

    def close(self) -> None:
        """Make waiting and later lookups raise Closed."""
        self._closed.set()

    async def refresh(self, topic: str) -> set[int]:
        """Return a topic's partitions from fresh metadata, or the last known ones; empty: missing or not visible."""
        producer = self._producer()
        if producer is not None:
            with contextlib.suppress(TimeoutError, KafkaError, OSError):
                async with asyncio.timeout(_TIMEOUT_S):
                    await producer.client.force_metadata_update()
        known = self.known(topic)
        if known is None:
            self._missing[topic] = self._clock() + self._missing_s
        return known or set()

    async def _share_answer(self, topic: str) -> int:
        task = self._asking.get(topic)
        if task is None:
            task = self._asking[topic] = asyncio.get_running_loop().create_task(self._ask(topic))
            task.add_done_callback(lambda done: self._asking.pop(topic, None))
        return await asyncio.shield(task)

    async def _ask(self, topic: str) -> int:
        wait_s = _FIRST_WAIT_S
        while True:
            producer = self._producer()
            if producer is not None and (count := await self._ask_broker(producer, topic)) is not None:
                if count == 0:
                    self._missing[topic] = self._clock() + self._missing_s
                return count
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), wait_s)
                raise Closed("the publisher has been stopped")
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    async def _ask_broker(self, producer: IdempotentProducer, topic: str) -> int | None:
        """Return the broker's answer; None when it does not answer."""
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return len(await producer.partitions_for(topic))
        except TopicAuthorizationFailedError:
            return 0
        except (TimeoutError, KafkaError, OSError):
            pass
        # The client waits in the same way for a missing topic and for a missing broker: find out which it is.
        with contextlib.suppress(TimeoutError, KafkaError, OSError):
            async with asyncio.timeout(_TIMEOUT_S):
                fresh = await producer.client.force_metadata_update()
                if fresh and producer.client.cluster.partitions_for_topic(topic) is None:
                    return 0
        return None

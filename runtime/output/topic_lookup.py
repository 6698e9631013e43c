"""How many partitions topics have, asked of the broker; a "no" is remembered for a while and asked for once."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from ..errors import Closed

_LOOK_S: Final = 3.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 5.0


class TopicLookup:
    """Answers from what the producer knows, and asks the broker for the rest.

    Invariants:
    - a topic is asked for once, whoever else waits for the answer;
    - that a topic is not there, or not for us, is believed for `missing_s`, unless `forget` is called;
    - a broker that says nothing is asked again until it does.
    """

    def __init__(
        self,
        producer: Callable[[], AIOKafkaProducer | None],
        *,
        missing_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`producer` returns the one that is used now; None while another takes its place."""
        self._producer, self._missing_s, self._clock = producer, missing_s, clock
        self._missing: dict[str, float] = {}
        self._asking: dict[str, asyncio.Task[int]] = {}
        self._closed = asyncio.Event()

    def known(self, topic: str) -> set[int] | None:
        """Return the partitions that the producer knows; None where it knows nothing of the topic."""
        producer = self._producer()
        found: set[int] | None = None if producer is None else producer.client.cluster.partitions_for_topic(topic)
        return found or None

    def is_missing(self, topic: str) -> bool:
        """Say whether the broker has told lately that the topic is not there, or not for us."""
        until = self._missing.get(topic)
        return until is not None and self._clock() < until

    def forget(self, topic: str) -> None:
        """Ask anew the next time."""
        self._missing.pop(topic, None)

    async def count(self, topic: str) -> int:
        """Return how many partitions a topic has: 0 when there is none, or none for us. Raises Closed after `close`."""
        if (known := self.known(topic)) is not None:
            return len(known)
        if self.is_missing(topic):
            return 0
        return await self._shared(topic)

    def close(self) -> None:
        """Answer whoever waits, and whoever comes later, with Closed."""
        self._closed.set()

    async def refresh(self, topic: str) -> set[int]:
        """Return the partitions of a topic as the broker has them now, or had when it last answered; empty: none for us."""
        producer = self._producer()
        if producer is not None:
            with contextlib.suppress(TimeoutError, KafkaError, OSError):
                async with asyncio.timeout(_LOOK_S):
                    await producer.client.force_metadata_update()
        known = self.known(topic)
        if known is None:
            self._missing[topic] = self._clock() + self._missing_s
        return known or set()

    async def _shared(self, topic: str) -> int:
        task = self._asking.get(topic)
        if task is None:
            task = self._asking[topic] = asyncio.get_running_loop().create_task(self._ask(topic))
            task.add_done_callback(lambda done: self._asking.pop(topic, None))
        return await asyncio.shield(task)

    async def _ask(self, topic: str) -> int:
        wait_s = _FIRST_WAIT_S
        while True:
            producer = self._producer()
            if producer is not None and (count := await self._asked_once(producer, topic)) is not None:
                if count == 0:
                    self._missing[topic] = self._clock() + self._missing_s
                return count
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), wait_s)
                raise Closed("the publisher has been stopped")
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    async def _asked_once(self, producer: AIOKafkaProducer, topic: str) -> int | None:
        """Return what the broker says; None when it says nothing."""
        try:
            async with asyncio.timeout(_LOOK_S):
                return len(await producer.partitions_for(topic))
        except TopicAuthorizationFailedError:
            return 0
        except (TimeoutError, KafkaError, OSError):
            pass
        # The client waits for a topic that is not there as it does for a broker that is not: ask which it is.
        with contextlib.suppress(TimeoutError, KafkaError, OSError):
            async with asyncio.timeout(_LOOK_S):
                fresh = await producer.client.force_metadata_update()
                if fresh and producer.client.cluster.partitions_for_topic(topic) is None:
                    return 0
        return None

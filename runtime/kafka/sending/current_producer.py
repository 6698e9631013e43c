"""The producer in use. A failed one is closed and replaced once, however many calls failed with it."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from ...errors import ProcessRefused
from ...observe.logs import get_logger
from .partition_batches import PartitionBatches
from .producer import IdempotentProducer
from .scopes import Place, Scope, is_of_kafka, scope_of

log = get_logger(__name__)

_STOP_S: Final = 5.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 5.0


class CurrentProducer:
    """Owns a producer and its batches; both are None while a failed producer is being replaced, and after `stop`.

    Invariants:
    - at most one replacement runs; whoever asks for another meanwhile waits for it;
    - a replacement that finds no broker tries again, with pauses from 0.1 to 5 s, until it is connected or stopped, or
      until the broker has refused this process for `give_up_s`.
    """

    def __init__(
        self,
        make: Callable[[], IdempotentProducer],
        linger_s: float,
        *,
        give_up_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`linger_s`: how long the first message of a batch waits for more."""
        self._make, self._linger_s = make, linger_s
        self._give_up_s, self._clock = give_up_s, clock
        self.trouble: str | None = None
        """Why the broker refuses a new producer of this process; None while it does not."""
        self.producer: IdempotentProducer | None = None
        self.batches: PartitionBatches | None = None
        self._replacement: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Connect; raises aiokafka's KafkaConnectionError when no broker answers."""
        producer = self._make()
        try:
            await producer.start()
        except BaseException:
            await producer.close()
            raise
        self.producer, self.batches = producer, PartitionBatches(producer, self._linger_s)

    async def stop(self) -> None:
        """Close the producer. What it has not sent within 5 s is dropped, and its batches are failed."""
        if self._replacement is not None:
            self._replacement.cancel()
            await asyncio.wait([self._replacement], timeout=_STOP_S)
        await self._close(*self._take())
        if self._closing:
            await asyncio.wait(self._closing, timeout=_STOP_S)

    @property
    def is_replacing(self) -> bool:
        return self._replacement is not None

    async def renew(self, failed: IdempotentProducer | None) -> None:
        """Replace a failed producer and return when another is connected, or after `stop`.

        Does nothing when that has been done already. `failed` is None for a call that found a replacement under way.
        Raises ProcessRefused when the broker has refused this process for too long.
        """
        if self._replacement is None and failed is not None and self.producer is failed:
            self._begin(self._renew())
        if (replacement := self._replacement) is not None:
            await asyncio.wait([replacement])
            if not replacement.cancelled():
                replacement.result()

    def exchange(self, stuck: IdempotentProducer) -> None:
        """Switch to another producer in the background, and close one with undeliverable batches after that."""
        if self._replacement is None and self.producer is stuck:
            self._begin(self._exchange())

    def _begin(self, replace: Coroutine[Any, Any, None]) -> None:
        self._replacement = asyncio.get_running_loop().create_task(replace)
        self._replacement.add_done_callback(self._end)

    def _end(self, replacement: "asyncio.Task[None]") -> None:
        self._replacement = None
        if not replacement.cancelled() and (error := replacement.exception()) is not None:
            log.error("the producer cannot be replaced", why=type(error).__name__)

    async def _renew(self) -> None:
        # Closed first: what it still sends must not follow what is sent again. A stop does not interrupt this.
        await asyncio.shield(self._begin_closing(*self._take()))
        wait_s, refused_since = _FIRST_WAIT_S, None
        try:
            while (error := await self._connect()) is not None:
                refused_since = self._note_refusal(error, refused_since)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        finally:
            self.trouble = None

    def _note_refusal(self, error: Exception, since: float | None) -> float | None:
        """Return since when the broker has refused this process; None: it does not. Raises ProcessRefused at the limit."""
        if scope_of(error, Place.SEND) is not Scope.PROCESS:
            self.trouble = None
            return None
        now = self._clock()
        self.trouble = f"the broker refuses a new producer of this process: {type(error).__name__}"
        if since is not None and now - since >= self._give_up_s:
            advice = "allow this user IDEMPOTENT_WRITE on the cluster or WRITE on its topics"
            raise ProcessRefused(f"{self.trouble}, for {self._give_up_s:g} s now; {advice}")
        return now if since is None else since

    async def _exchange(self) -> None:
        stuck, batches = self.producer, self.batches
        if await self._connect() is None:
            self._begin_closing(stuck, batches)

    async def _connect(self) -> Exception | None:
        """Start another producer. Returns the error of Kafka or the network that prevents it."""
        try:
            await self.start()
        except Exception as error:
            if not is_of_kafka(error):
                raise
            log.warning("no broker answers", why=type(error).__name__)
            return error
        return None

    def _take(self) -> tuple[IdempotentProducer | None, PartitionBatches | None]:
        taken = self.producer, self.batches
        self.producer = self.batches = None
        return taken

    def _begin_closing(
        self, producer: IdempotentProducer | None, batches: PartitionBatches | None
    ) -> "asyncio.Task[None]":
        closing = asyncio.get_running_loop().create_task(self._close(producer, batches))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        return closing

    @staticmethod
    async def _close(producer: IdempotentProducer | None, batches: PartitionBatches | None) -> None:
        if producer is not None:
            await producer.close()
        if batches is not None:
            batches.abandon()

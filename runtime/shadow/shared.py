"""What the shadows of a process share: bounds, counts, the way out, and whose pass runs."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from threading import Thread
from typing import Final, Protocol

from ..batching.device.run_threads import join_threads
from ..observe.metrics import Metrics
from ..observe.metrics_table import SHADOW_RECORDS
from ..settings.shadow import ShadowSettings
from ..wire.message import Message
from .comparing import Compared
from .disagreements import DisagreementReviews
from .messages import ShadowMessages
from .rows import Row, Versions
from .tally import Outcome, Tally

COUNTS_EVERY_S: Final = 60.0


class Loaded(Protocol):
    """A loaded version that is only compared."""

    threads: list[Thread]
    """Those that it has ended."""

    def wake(self) -> None: ...
    def stop(self) -> bool: ...


class Shared:
    """One per process, used on the event loop.

    Differences are published as they are found, counts each minute and at the end.
    """

    def __init__(
        self,
        limits: ShadowSettings,
        messages: ShadowMessages,
        put: Callable[[Message], None],
        metrics: Metrics,
        *,
        reviews: DisagreementReviews | None = None,
        put_review: Callable[[Message], None] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`put` queues a message and never waits, and so does `put_review`: default `put`. `reviews` None: nobody is asked."""
        self.limits = limits
        self.running: Loaded | None = None
        """Whose pass runs."""
        self._messages, self._put, self._clock = messages, put, clock
        self._reviews, self._put_review = reviews, put_review or put
        self._records = metrics.add_counter(SHADOW_RECORDS)
        self._tally, self._since = Tally(), clock()
        self._loaded: list[Loaded] = []

    def add(self, shadow: Loaded) -> None:
        """Wake a shadow when the pass of another one has ended."""
        self._loaded.append(shadow)

    def forget(self, shadow: Loaded) -> None:
        """Do not wake a shadow any more."""
        self._loaded = [other for other in self._loaded if other is not shadow]

    def wake(self) -> None:
        """Let the next shadow start a pass: the one that has run last comes last."""
        self._loaded = [*self._loaded[1:], *self._loaded[:1]]
        for shadow in self._loaded:
            shadow.wake()

    def count_answered(self, versions: Versions, answered: int, chosen: int) -> None:
        """Count records that the current version answered, and those of the share among them."""
        self._tally.add_answered(versions, answered, chosen)

    def count(self, versions: Versions, outcome: Outcome, records: int = 1) -> None:
        """Count records that were not compared, by why."""
        self._tally.add(versions, outcome, records)
        self._records.add((versions.name, outcome), records)

    def record(self, row: Row, compared: Compared) -> None:
        """Count a record that was compared; where the answers differ, publish that, and maybe ask a person."""
        self._tally.add_compared(row.versions, compared)
        self._records.add((row.versions.name, "agreed" if compared.agrees else "differed"))
        if compared.agrees:
            return
        now = self._clock()
        self._put(self._messages.difference(row, compared, now))
        review = self._reviews.ask(row, compared, now) if self._reviews is not None else None
        if review is not None:
            self._put_review(review)

    def publish_counts(self) -> None:
        """Publish what was counted since the last time."""
        now = self._clock()
        for versions, fields in self._tally.take():
            self._put(self._messages.counts(versions, fields, self._since, now))
        self._since = now

    async def run(self) -> None:
        """Publish counts each minute, until cancelled."""
        while True:
            await asyncio.sleep(COUNTS_EVERY_S)
            self.publish_counts()

    async def stop(self) -> None:
        """Stop all shadows and publish the last counts."""
        ran = [shadow for shadow in [*self._loaded] if shadow.stop()]
        self.publish_counts()
        for shadow in ran:  # a thread inside a native library at interpreter exit may abort the process
            await asyncio.to_thread(join_threads, shadow.threads)

"""Tells the topics what happens in a run: events to `murmura.training`, examples worth a look to `murmura.reviews`.

Training blocks, so a thread of its own runs the loop that the runtime's producer lives in.
"""

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self

from ...runtime.kafka.sending.producer import producer_factory
from ...runtime.kafka.sending.publisher import Publisher
from ...runtime.kafka.topics import require_topics
from ...runtime.observe.logs import get_logger
from ...runtime.settings.settings import KafkaSettings, ProducerSettings
from ...runtime.wire.message import Message
from ...schemas import envelope
from ...schemas.result import ModelRef
from ...schemas.review import REVIEW_TYPE, Review
from ...schemas.training_event import TrainingEvent, TrainingEventKind
from .outbox import Entry, Outbox

log = get_logger(__name__)
_LAST_WORDS_S: Final = 15.0
_CLOSE_S: Final = 20.0
"""For a producer to close, or to be given up: that has time-outs of its own."""
_GOES_ON: Final = (TrainingEventKind.STARTED, TrainingEventKind.FAILED)
"""What a run may say more than once."""


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop until it is stopped, and end what a client whose broker is gone has left in it."""
    loop.run_forever()
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.wait(left))
    loop.close()


class Announcer:
    """Publishes in the background what the outbox keeps, one after another; leaving the block waits for the rest.

    Without Kafka settings every call does nothing.
    """

    def __init__(self, kafka: KafkaSettings | None, prefix: str, run: str, name: str, outbox: Outbox) -> None:
        self._kafka, self._prefix, self._run, self._name, self._outbox = kafka, prefix, run, name, outbox
        self.current: ModelRef | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Self:
        """Raises SetupError when no broker answers, or the topic of training events is not there."""
        if self._kafka is None:
            return self
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_run, args=(self._loop,), name="announcer", daemon=True)
        self._thread.start()
        try:
            self._reviewed = self._call(self._start(self._kafka)).result()
        except BaseException:
            self._end()
            raise
        return self

    async def _start(self, kafka: KafkaSettings) -> bool:
        present = await require_topics(kafka, [self._topic("training")])
        self._publisher = Publisher(producer_factory(kafka, ProducerSettings()))
        await self._publisher.start()
        self._more, self._idle = asyncio.Event(), asyncio.Event()
        self._more.set()
        self._worker = asyncio.get_running_loop().create_task(self._deliver())
        return self._topic("reviews") in present

    async def _deliver(self) -> None:
        """Send one record after another: a batch of which a part is sent again would change their order."""
        while True:
            await self._more.wait()
            self._more.clear()
            while (entry := self._outbox.first_unsent()) is not None:
                self._idle.clear()
                (refused,) = await self._publisher.publish([_message(entry)])
                if refused is not None:
                    log.warning("the broker will not take a record about the run", id=entry.id, why=str(refused))
                self._outbox.acknowledge()
            self._idle.set()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._loop is None:
            return
        wait_for([self._call(self._stop())], timeout=_LAST_WORDS_S + _CLOSE_S)
        self._end()

    async def _stop(self) -> None:
        if self._outbox.unsent:
            self._idle.clear()
            self._more.set()
            try:
                await asyncio.wait_for(self._idle.wait(), _LAST_WORDS_S)
            except TimeoutError:
                log.warning("the broker has not taken everything about the run", records=self._outbox.unsent)
        self._worker.cancel()
        await asyncio.wait([self._worker])
        await self._publisher.stop()

    def _end(self) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=_CLOSE_S)

    def _call(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def _topic(self, name: str) -> str:
        return f"{self._prefix}.{name}"

    def say(self, event: TrainingEventKind, **more: Any) -> None:
        """Publish an event of this run; fields as in TrainingEvent. The same of the same step is said once."""
        if self._loop is None:
            return
        now = datetime.now(UTC)
        fields = {"event": event, "run": self._run, "name": self._name, "current": self.current, "at": now, **more}
        record = TrainingEvent.model_validate(fields)
        name = f"{self._run}/{event.value}"
        if event in _GOES_ON:
            name += f"/{1 + self._outbox.times(f'{name}/')}"
        elif record.step is not None:
            name += f"/{record.step}"
        value = record.model_dump_json(exclude_none=True)
        self._keep([Entry(name, self._topic("training"), record.key, record.event_type(), now.isoformat(), value)])

    def ask(self, reviews: Sequence[Review]) -> None:
        """Publish requests for a look; left out where the topic is missing."""
        if self._loop is None or not reviews:
            return
        topic = self._topic("reviews")
        if not self._reviewed:
            log.warning("not asked for reviews: no such topic", topic=topic, reviews=len(reviews))
            return
        self._keep(
            Entry(
                id=f"{self._run}/{each.why.value}/{each.task}/{each.key}",
                topic=topic,
                key=each.key,
                type=REVIEW_TYPE,
                at=each.at.isoformat(),
                value=each.model_dump_json(exclude_none=True),
            )
            for each in reviews
        )

    def _keep(self, entries: Iterable[Entry]) -> None:
        assert self._loop is not None
        for entry in entries:
            self._outbox.add(entry)
        self._loop.call_soon_threadsafe(self._more.set)


def _message(entry: Entry) -> Message:
    headers = [
        (envelope.CE_SPECVERSION, envelope.SPEC_VERSION),
        (envelope.CE_TYPE, entry.type),
        (envelope.CE_ID, entry.id),
        (envelope.CE_SOURCE, envelope.app_source("training")),
        (envelope.CE_TIME, entry.at),
        (envelope.CONTENT_TYPE_HEADER, envelope.CONTENT_TYPE),
    ]
    return Message(entry.topic, entry.value.encode(), entry.key.encode(), [(n, v.encode()) for n, v in headers])

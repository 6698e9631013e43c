"""Tells the topics what happens in a run: events to `murmura.training`, examples worth a look to `murmura.reviews`.

Training blocks, so a thread of its own runs the loop that the runtime's producer lives in.
"""

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self
from uuid import uuid4

from ..runtime import topics_admin
from ..runtime.deadletters import Message
from ..runtime.errors import SetupError
from ..runtime.logs import get_logger
from ..runtime.publisher import Publisher, producer_factory
from ..runtime.settings import KafkaSettings, ProducerSettings
from ..schemas import envelope
from ..schemas.result import ModelRef
from ..schemas.review import REVIEW_TYPE, Review
from ..schemas.training_event import TrainingEvent, TrainingEventKind

log = get_logger(__name__)
_LAST_WORDS_S: Final = 15.0


class Announcer:
    """Publishes in the background; leaving the block waits until the broker has everything, for so long as is decent.

    Without Kafka settings every call does nothing.
    """

    def __init__(self, kafka: KafkaSettings | None, prefix: str, run: str, name: str) -> None:
        self._kafka, self._prefix, self._run, self._name = kafka, prefix, run, name
        self.current: ModelRef | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: list[Future[Any]] = []

    def __enter__(self) -> Self:
        """Raises SetupError when no broker answers, or the topic of training events is not there."""
        if self._kafka is None:
            return self
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="announcer", daemon=True)
        self._thread.start()
        try:
            self._reviewed = self._call(self._start(self._kafka)).result()
        except BaseException:
            self._end()
            raise
        return self

    async def _start(self, kafka: KafkaSettings) -> bool:
        there = await topics_admin.partitions(kafka)
        if self._topic("training") not in there:
            raise SetupError(f"topic {self._topic('training')} is not there; `murmura topics --create` makes ours")
        self._publisher = Publisher(producer_factory(kafka, ProducerSettings()))
        await self._publisher.start()
        return self._topic("reviews") in there

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._loop is None:
            return
        undecided = wait_for(self._waiting, timeout=_LAST_WORDS_S).not_done
        if undecided:
            log.warning("the broker has not taken everything about the run", records=len(undecided))
        wait_for([self._call(self._publisher.stop())], timeout=_LAST_WORDS_S)
        self._end()

    def _end(self) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=_LAST_WORDS_S)

    def _call(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def _topic(self, name: str) -> str:
        return f"{self._prefix}.{name}"

    def say(self, event: TrainingEventKind, **more: Any) -> None:
        """Publish an event of this run; fields as in TrainingEvent."""
        if self._loop is None:
            return
        now = datetime.now(UTC)
        fields = {"event": event, "run": self._run, "name": self._name, "current": self.current, "at": now, **more}
        said = TrainingEvent.model_validate(fields)
        value = said.model_dump_json(exclude_none=True).encode()
        headers = _headers(said.event_type(), f"{self._run}/{uuid4().hex[:12]}", now)
        self._publish([Message(self._topic("training"), value, said.key.encode(), headers)])

    def ask(self, reviews: Sequence[Review]) -> None:
        """Publish requests for a look; left out where the topic is not there."""
        if self._loop is None or not reviews:
            return
        if not self._reviewed:
            log.warning("not asked for reviews: no such topic", topic=self._topic("reviews"), reviews=len(reviews))
            return
        topic = self._topic("reviews")
        self._publish(
            [
                Message(
                    topic,
                    each.model_dump_json(exclude_none=True).encode(),
                    each.key.encode(),
                    _headers(REVIEW_TYPE, f"{self._run}/{each.key}", each.at),
                )
                for each in reviews
            ]
        )

    def _publish(self, messages: list[Message]) -> None:
        self._waiting = [each for each in self._waiting if not each.done()]
        self._waiting.append(self._call(self._publisher.publish(messages)))


def _headers(of: str, name: str, at: datetime) -> list[tuple[str, bytes]]:
    return [
        (envelope.CE_SPECVERSION, envelope.SPEC_VERSION.encode()),
        (envelope.CE_TYPE, of.encode()),
        (envelope.CE_ID, name.encode()),
        (envelope.CE_SOURCE, envelope.app_source("training").encode()),
        (envelope.CE_TIME, at.isoformat().encode()),
        (envelope.CONTENT_TYPE_HEADER, envelope.CONTENT_TYPE.encode()),
    ]

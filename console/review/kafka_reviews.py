"""Fills the queue from `murmura.reviews`, and commits what is done. Consoles of one group share the topic."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from aiokafka.errors import KafkaError

from ...runtime.errors import MurmuraError, RecordError
from ...runtime.kafka.group_reader import GroupReader
from ...runtime.kafka.topics import require_topics
from ...runtime.observe.logs import get_logger
from ...runtime.settings.settings import KafkaSettings
from ...runtime.wire.feedback import read_feedback
from ...schemas.feedback import Verdict
from ...schemas.review import Review
from .item import NO_PLACE, Place, ReviewItem, item_key
from .known_verdicts import KnownVerdicts
from .loading import NotReviewed, make_item, read_review
from .posted import target_of
from .queue import ReviewQueue
from .requests import RequestFinder
from .second_copies import SecondCopies
from .tasks import ReviewTask

log = get_logger(__name__)

_BATCH: Final = 20
"""Reviews whose texts are read at once."""
_MOST_UNCOMMITTED: Final = 5000
_COMMIT_S: Final = 1.0
_SETTLE_S: Final = 1.0
"""Age of a review from which its answer, published at the same time, is on the broker."""
_PAUSES_S: Final = (1.0, 2.0, 5.0, 10.0)
_EXAMPLES: Final = 100
"""Reviews of training rows that are listed."""


class KafkaReviews:
    """A member of the consoles' group. A review is committed when its item is done, or when it is no item."""

    def __init__(
        self,
        kafka: KafkaSettings,
        group: str,
        topic: str,
        queue: ReviewQueue,
        tasks: Mapping[str, ReviewTask],
        finder: RequestFinder,
        known: KnownVerdicts,
        clock: Callable[[], float] = time.time,
        copies: SecondCopies | None = None,
    ) -> None:
        self._copies = copies or SecondCopies(0.0)
        self._kafka, self._group, self._topic = kafka, group, topic
        self._queue, self._tasks, self._finder, self._known, self._clock = queue, tasks, finder, known, clock
        self._places: dict[str, set[Place]] = {}
        """By item: the reviews that ask for it, of which there may be several."""
        self._waiting: deque[tuple[Review, Place]] = deque()
        """Reviews whose texts were not found yet."""
        self.not_reviewed: Counter[NotReviewed] = Counter()
        self.examples: deque[Review] = deque(maxlen=_EXAMPLES)
        """The newest reviews of training rows."""
        self.trouble: str | None = None
        """Why nothing is read now, in one line."""

    async def run(self) -> None:
        """Read until cancelled; what is finished is committed at the end."""
        failures = 0
        while True:
            try:
                await self._read_on()
            except (KafkaError, MurmuraError, OSError) as error:
                self.trouble = str(error).splitlines()[0] if str(error) else type(error).__name__
                log.warning("reviews cannot be read, trying again", why=self.trouble)
                await asyncio.sleep(_PAUSES_S[min(failures, len(_PAUSES_S) - 1)])
                failures += 1

    async def _read_on(self) -> None:
        await require_topics(self._kafka, [self._topic])
        reader = GroupReader(self._kafka, self._group, [self._topic], self._revoke)
        try:
            await reader.start()
            committed = self._clock()
            while True:
                await self._turn(reader)
                if self._clock() - committed >= _COMMIT_S:
                    committed = self._clock()
                    self._finish_done(reader)
                    await reader.commit()
        except asyncio.CancelledError:
            self._finish_done(reader, closing=True)
            raise
        finally:
            self._finish_done(reader)
            self._revoke({place[:2] for places in self._places.values() for place in places})
            self._waiting.clear()
            with suppress(KafkaError):
                await reader.stop()

    async def _turn(self, reader: GroupReader) -> None:
        """Read a few reviews and their texts, as far as there is room."""
        room = min(_BATCH, self._queue.room) - len(self._waiting)
        if room > 0 and reader.uncommitted < _MOST_UNCOMMITTED:
            records = await reader.read(room)
            for record in records:
                self._take(record, reader)
        else:
            await asyncio.sleep(0.2)
        if self._waiting:
            newest = max(review.at.timestamp() for review, _ in self._waiting)
            await asyncio.sleep(min(_SETTLE_S, max(0.0, newest + _SETTLE_S - self._clock())))
            await self._load(reader)
        await self._load_copies()
        self.trouble = None

    def _take(self, record: Any, reader: GroupReader) -> None:
        place = Place(record.topic, record.partition, record.offset)
        review = read_review(record.value)
        if review is None:
            self._leave_out(NotReviewed.UNREADABLE, place, reader)
        elif review.prediction_id is None or review.source is None or review.agent is None:
            self.examples.append(review)
            self._leave_out(NotReviewed.NO_PREDICTION, place, reader)
        else:
            self._waiting.append((review, place))

    async def _load(self, reader: GroupReader) -> None:
        batch = list(self._waiting)
        found = await self._finder.find([review for review, _ in batch])
        for pair in batch:
            if pair not in self._waiting:
                continue  # revoked while its text was read
            self._waiting.remove(pair)
            review, place = pair
            item = make_item(review, found, self._tasks, place)
            if isinstance(item, NotReviewed):
                self._leave_out(item, place, reader)
            else:
                self._add(item, place)

    async def _load_copies(self) -> None:
        """Take in what a person of another console judged, and a second one is to. No offset of it is committed here."""
        room = self._queue.room
        due = self._copies.take_due(self._clock())[:room] if room else []
        found = await self._finder.find([review for review, _ in due]) if due else None
        for review, first in due:
            item = make_item(review, found, self._tasks, NO_PLACE) if found else None
            if isinstance(item, ReviewItem) and item.key not in self._queue:
                self._queue.add(item)
                at = first.at.timestamp()
                self._queue.note_judge(item.key, first.by, first.id, at, target_of(first, item))

    def _add(self, item: ReviewItem, place: Place) -> None:
        self._places.setdefault(item.key, set()).add(place)
        self._queue.add(item, self._known.judges_of(item.prediction_id, item.task.name), self._clock())

    def _leave_out(self, why: NotReviewed, place: Place, reader: GroupReader) -> None:
        self.not_reviewed[why] += 1
        reader.finish(*place)

    def _finish_done(self, reader: GroupReader, *, closing: bool = False) -> None:
        for item in self._queue.finish(self._clock(), closing=closing):
            for place in self._places.pop(item.key, ()):
                reader.finish(*place)

    def _revoke(self, partitions: Iterable[tuple[str, int]]) -> None:
        gone = set(partitions)
        self._queue.revoke(gone)
        self._places = {key: places for key, places in self._places.items() if key in self._queue}
        self._waiting = deque(pair for pair in self._waiting if pair[1][:2] not in gone)


def take_feedback(
    known: KnownVerdicts, queue: ReviewQueue, copies: SecondCopies, clock: Callable[[], float] = time.time
) -> Callable[[Sequence[Any]], None]:
    """Return what notes everybody's verdicts, for a follower of the feedback topic."""

    def take(records: Sequence[Any]) -> None:
        for record in records:
            try:
                feedback = read_feedback(record.value)
            except RecordError:
                continue
            known.add(feedback)
            copies.note(feedback)
            key = item_key(feedback.prediction_id, feedback.task)
            if feedback.verdict is Verdict.WITHDRAWN:
                queue.note_withdrawal(key, feedback.by, str(feedback.value))
            elif feedback.id in known.judges_of(feedback.prediction_id, feedback.task):
                item = queue.find(key)
                target = None if item is None else target_of(feedback, item)
                queue.note_judge(key, feedback.by, feedback.id, clock(), target)

    return take

"""The demo's customers: send samples to the input topic and read the results."""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ...runtime.errors import SetupError
from ...runtime.kafka.groupless_reader import PartitionsReader
from ...runtime.kafka.sending.producer import producer_factory
from ...runtime.settings.settings import ProducerSettings, Settings
from ...runtime.wire.feedback import to_record
from ...schemas.deadletter import PREFIX
from ...schemas.feedback import Feedback
from .desk import Answered, Desk, Message

FEEDBACK: Final = "murmura.feedback"
Listeners = Mapping[str, Callable[[bytes, float], None]]
"""By topic: called with a record's value and the time of arrival."""
SETTLE_S: Final = 10.0
"""How long to wait for the last answers."""
_POLL_MS: Final = 100
# Customers arrive alone or in small groups, so that batches have several rows: sizes and weights.
_CROWDS: Final = ((1, 14), (2, 3), (4, 2), (9, 1))
_MEAN_CROWD: Final = sum(size * often for size, often in _CROWDS) / sum(often for _, often in _CROWDS)


@dataclass(frozen=True, slots=True)
class Sample:
    """A message's text for people, and the record's value."""

    text: str
    value: bytes


def text_sample(text: str) -> Sample:
    """Return the request that asks about a text."""
    return Sample(text, json.dumps({"text": text}, ensure_ascii=False).encode())


def read_samples(path: Path) -> list[Sample]:
    """Read JSON lines with `text`, or with `raw` or `raw_hex` for a deliberately broken value."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{path}: cannot read the sample messages: {error}") from None
    samples = [_sample(line, path, number) for number, line in enumerate(lines, start=1) if line.strip()]
    if not samples:
        raise SetupError(f'{path}: no messages; expected lines such as {{"text": "where is my card?"}}')
    return samples


def _sample(line: str, path: Path, number: int) -> Sample:
    with contextlib.suppress(ValueError):  # not JSON, or not hexadecimal
        match json.loads(line):
            case {"text": str(text)}:
                return text_sample(text)
            case {"raw": str(raw)}:
                return Sample(raw, raw.encode())
            case {"raw_hex": str(digits)}:
                value = bytes.fromhex(digits)
                return Sample(value.decode(errors="replace"), value)
    raise SetupError(f'{path}, line {number}: expected {{"text": "..."}}, {{"raw": "..."}} or {{"raw_hex": "..."}}')


class Customers:
    """Sends messages and adds them to the desk."""

    def __init__(self, settings: Settings, desk: Desk, topic: str) -> None:
        self.desk = desk
        self.topic = topic
        self._producer = producer_factory(settings.kafka, ProducerSettings(linger_ms=0))()
        self._numbers = iter(range(1, 1 << 62))

    async def __aenter__(self) -> "Customers":
        await self._producer.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._producer.stop()

    async def send(self, sample: Sample, *, typed: bool = False) -> Message:
        """Send one message; returns when the broker has it."""
        sent_at = time.monotonic()
        key = f"customer-{next(self._numbers)}".encode()
        place = await self._producer.send_and_wait(self.topic, sample.value, key=key)
        return self.desk.add_message((place.partition, place.offset), sample.text, sent_at, typed=typed)

    async def send_record(self, topic: str, value: bytes, key: bytes) -> None:
        """Send a record that is no message; returns when the broker has it."""
        await self._producer.send_and_wait(topic, value, key=key)

    async def judge(self, *feedback: Feedback) -> None:
        """Send feedback; returns when the broker has it."""
        sent = [await self._producer.send(**to_record(each, FEEDBACK)) for each in feedback]
        await asyncio.gather(*sent)
        self.desk.verdicts += len(feedback)

    async def keep_sending(self, samples: list[Sample], rate: float, stop: asyncio.Event) -> None:
        """Send samples until `stop`, `rate` per second on average, at random times and in small groups."""
        chance = random.Random(7)
        endless = _endless(samples, chance)
        sizes, weights = zip(*_CROWDS, strict=True)
        while not stop.is_set():
            (crowd,) = chance.choices(sizes, weights)
            await asyncio.gather(*(self.send(next(endless)) for _ in range(crowd)))
            # A compromise between exponential gaps, which look jammed at times, and constant ones, which look static.
            pause = _MEAN_CROWD / rate * (0.4 + 0.6 * chance.expovariate(1))
            try:
                await asyncio.wait_for(stop.wait(), pause)
            except TimeoutError:
                continue


def _endless(samples: list[Sample], chance: random.Random) -> Iterator[Sample]:
    """Yield the samples in the file's order, then repeatedly in random order."""
    order = list(samples)
    while True:
        yield from order
        chance.shuffle(order)


async def open_hours(
    customers: Customers,
    consumer: Any,
    samples: list[Sample],
    rate: float,
    stop: asyncio.Event,
    server: asyncio.Task[None],
    *,
    seconds: float | None = None,
    others: Listeners | None = None,
    until: asyncio.Task[None] | None = None,
) -> None:
    """Send and read messages until `stop`, the end of `until` or of serving, or for `seconds`.

    Then stop sending and wait for the last answers. Raises the error that ended one of the parts.
    """
    collecting = asyncio.create_task(_collect_answers(consumer, customers, others or {}))
    sending = asyncio.create_task(customers.keep_sending(samples, rate, stop))
    writing = [sending, *([until] if until else [])]
    await asyncio.wait((collecting, server, *writing), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    if until is not None:
        until.cancel()
    ended = await asyncio.gather(*writing, return_exceptions=True)
    if not server.done():
        await _wait_until_settled(customers.desk)
    collecting.cancel()
    for error in (*ended, *await asyncio.gather(collecting, return_exceptions=True)):
        if isinstance(error, Exception):
            raise error


async def _collect_answers(consumer: Any, customers: Customers, others: Listeners) -> None:
    """Add results and dead letters to the desk until cancelled; values of topics in `others` go to their listener."""

    def take(records: Sequence[Any]) -> None:
        now = time.monotonic()
        for record in records:
            if record.topic in others:
                others[record.topic](record.value, now)
            else:
                _add_record(record, customers, now)

    reader = PartitionsReader(consumer, take)
    while True:
        await reader.read_more(_POLL_MS)


def _add_record(record: Any, customers: Customers, now: float) -> None:
    desk = customers.desk
    dead = {name.removeprefix(PREFIX): value.decode() for name, value in record.headers if name.startswith(PREFIX)}
    if dead.get("topic") == FEEDBACK:
        desk.refused_verdicts += 1
        return
    if dead:
        if dead["topic"] == customers.topic:
            desk.add_dead_letter((int(dead["partition"]), int(dead["offset"])), dead["reason"], now)
        return
    result = json.loads(record.value)
    source, model = result["source"], result["model"]
    by = Answered(result["agent"], result["prediction_id"], model["name"], model["version"])
    desk.add_result((source["partition"], source["offset"]), result["agent"], result["outputs"], now, by)


async def _wait_until_settled(desk: Desk) -> None:
    """Wait until every message has its answer, or for ten seconds."""
    await until_true(lambda: not desk.open, SETTLE_S)


async def until_true(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until a condition on the desk holds; False when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:  # noqa: ASYNC110  (the desk has no event)
        await asyncio.sleep(0.01)
    return found

"""Events of this process: in order, with ids of their own, and never in anybody's way."""

import asyncio
import json
import time
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import TopicAuthorizationFailedError

from murmura.runtime.kafka.sending.publisher import Publisher
from murmura.runtime.output.serving_events import Pauses, ServingEvents
from murmura.schemas.serving_event import ServingEventKind as Kind


class Producer:
    """Takes what it is sent, unless the topic is closed to it."""

    def __init__(self, broker: "Broker") -> None:
        self.broker = broker

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def create_batch(self) -> "Batch":
        return Batch()

    async def send_batch(self, batch: "Batch", topic: str, *, partition: int) -> Any:
        if self.broker.closed:
            raise TopicAuthorizationFailedError(topic)
        self.broker.taken += [(topic, json.loads(value), key, dict(headers)) for key, value, headers in batch.records]
        sent = asyncio.get_running_loop().create_future()
        sent.set_result(None)
        return sent

    @property
    def client(self) -> Any:
        return SimpleNamespace(cluster=SimpleNamespace(partitions_for_topic=lambda topic: {0}))


class Batch:
    def __init__(self) -> None:
        self.records: list[Any] = []

    def append(self, *, timestamp: Any, key: Any, value: Any, headers: Any) -> Any:
        self.records.append((key, value, headers))
        return self.records

    def close(self) -> None: ...


class Broker:
    def __init__(self) -> None:
        self.closed = False
        self.taken: list[tuple[str, dict[str, Any], bytes, dict[str, bytes]]] = []

    def events(self, **more: Any) -> ServingEvents:
        return ServingEvents("shop", "m.events", lambda: Publisher(lambda: Producer(self)), **more)


@pytest.fixture
def broker() -> Broker:
    return Broker()


async def until(holds, seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


async def test_events_are_sent_in_order_with_their_headers(broker):
    events = broker.events()
    task = asyncio.create_task(events.run())
    events.emit(Kind.MODEL_SWAPPED, name="desk", version=2)
    events.emit(Kind.PAUSED)
    await until(lambda: len(broker.taken) == 2)
    task.cancel()
    (topic, swapped, key, headers), (_, paused, other_key, _) = broker.taken
    assert (topic, key, other_key) == ("m.events", b"desk", b"shop")
    assert (swapped["event"], swapped["version"], paused["event"]) == ("model.swapped", 2, "paused")
    assert (headers["ce_type"], headers["ce_source"]) == (b"murmura.model.swapped.v1", b"murmura/shop")


async def test_no_two_events_have_an_id_in_common_be_they_of_one_process_or_of_two(broker):
    for events in (broker.events(), broker.events()):
        events.emit(Kind.MODEL_REJECTED, name="desk", version=2, generation=2, reason="damaged")
        events.emit(Kind.MODEL_SWAPPED, name="desk", version=2, generation=2)
        await events.stop()
    assert len({headers["ce_id"] for *_, headers in broker.taken}) == 4
    assert len({value["instance"] for _, value, *_ in broker.taken}) == 2


async def test_a_topic_that_takes_no_events_holds_nobody_up(broker):
    broker.closed = True
    events = broker.events()
    task = asyncio.create_task(events.run())
    began = time.monotonic()
    for _ in range(500):
        events.emit(Kind.PAUSED)
    assert time.monotonic() - began < 30
    await asyncio.sleep(0.2)
    assert not task.done()
    broker.closed = False
    await until(lambda: len(broker.taken) == 100)  # the newest of them
    task.cancel()


async def test_an_event_that_is_not_taken_in_time_is_dropped_and_the_next_one_tried(broker):
    broker.closed = True
    events = broker.events(patience_s=0.2)
    task = asyncio.create_task(events.run())
    events.emit(Kind.PAUSED)
    await until(lambda: not events._waiting)
    broker.closed = False
    events.emit(Kind.RESUMED)
    await until(lambda: len(broker.taken) == 1)
    task.cancel()
    assert broker.taken[0][1]["event"] == "resumed"


async def test_stopping_sends_what_is_left_and_waits_for_no_broker(broker):
    events = broker.events()
    events.emit(Kind.MODEL_SWAPPED, name="desk", version=2)
    assert await events.finish(60.0)
    assert len(broker.taken) == 1
    broker.closed = True
    events = broker.events()
    events.emit(Kind.PAUSED)
    async with asyncio.timeout(60):
        assert not await events.finish(0.1)


def test_a_pause_is_told_once_it_lasts_and_its_end_with_its_seconds():
    pauses = Pauses(after_s=1.0)
    looks = [(True, 0.0), (False, 1.0), (False, 1.5), (False, 2.0), (False, 9.0), (True, 9.5), (True, 10.0)]
    assert [pauses.update(*look) for look in looks] == [
        None,
        None,
        None,
        (Kind.PAUSED, None),
        None,
        (Kind.RESUMED, 8.5),
        None,
    ]


def test_a_short_stop_is_no_pause():
    pauses = Pauses(after_s=1.0)
    assert [pauses.update(*look) for look in [(False, 1.0), (True, 1.5), (False, 2.0), (True, 2.5)]] == [None] * 4

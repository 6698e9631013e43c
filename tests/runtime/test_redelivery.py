"""A retried record is answered as the original would have been, and the retry's own offset is finished for it."""

import json
from dataclasses import replace

import pytest
from aiokafka.structs import ConsumerRecord, TopicPartition
from test_dispatcher import INTENT, Line

from murmura.agents.classification import agent as classification
from murmura.runtime.agent.routes import make_routes
from murmura.runtime.errors import RecordError
from murmura.runtime.flow.retries.redelivery import make_redelivery, restore_original
from murmura.runtime.output.delivery import Attempt
from murmura.runtime.testing.fakes import FakeModel
from murmura.runtime.wire.retry_record import Coordinates, Retry, read_retry, retry_message

RETRIES = TopicPartition("murmura.retries", 1)
ORIGINAL = ConsumerRecord("in", 2, 40, 1234, 0, b"k", b'{"text": "one"}', None, 1, 15, (("x-own", b"\xff"),))
PLACE = Coordinates("in", 2, 40, 1234)


def retried(only_agent: str | None = None, value: bytes | None = ORIGINAL.value) -> tuple[ConsumerRecord, Retry]:
    message = retry_message(replace(ORIGINAL, value=value), Retry("test", PLACE, only_agent, 99.0, 3), RETRIES.topic)
    record = ConsumerRecord(*RETRIES, 7, 5555, 0, message.key, message.value, None, 1, 1, tuple(message.headers))
    return record, read_retry(record)


def test_the_original_comes_back_as_it_was():
    record, retry = retried()
    assert restore_original(record, retry.original) == replace(ORIGINAL, serialized_key_size=1, serialized_value_size=1)


async def test_a_retried_result_differs_from_a_first_one_in_its_time_alone():
    line = Line(FakeModel([INTENT]))
    line.dispatcher.receive({TopicPartition("in", 2): [ORIGINAL]})
    await line.settle()
    record, retry = retried("classification")
    progress = line.tracker.progress(RETRIES)
    progress.begin(record.offset)
    delivery = make_redelivery(record, progress, retry, max_value_bytes=1000, max_hops=None)
    assert delivery.attempt == Attempt(4, "classification", read_from=RETRIES)
    delivery.settle(line.dispatcher._routes["in"])
    line.dispatcher._intake.requeue(RETRIES, delivery)
    line.dispatcher._wake.set()
    await line.settle()
    first, second = line.broker.taken
    assert {**json.loads(first.value), "time": 0} == {**json.loads(second.value), "time": 0}
    assert [pair for pair in first.headers if pair[0] != "ce_time"] == [
        pair for pair in second.headers if pair[0] != "ce_time"
    ]
    assert (first.key, first.partition) == (second.key, second.partition)
    assert progress.committable == 8


def test_only_the_named_agent_is_asked_again():
    both = (classification, replace(classification, name="other"))
    line_routes = [replace(agent, topics=("in",), output="out") for agent in both]
    record, retry = retried("other")
    delivery = make_redelivery(record, FakeProgress(), retry, max_value_bytes=1000, max_hops=None)
    delivery.settle(make_routes(line_routes, FakeModel([INTENT]).manifest, "test")["in"])
    assert [bound.agent.name for bound, _ in delivery.asked] == ["other"]


def test_a_retried_record_that_cannot_be_read_is_refused_like_its_original():
    record, retry = retried(value=b"garbage")
    with pytest.raises(RecordError, match="not JSON"):
        make_redelivery(record, FakeProgress(), retry, max_value_bytes=1000, max_hops=None)


class FakeProgress:
    def finish(self, offset: int) -> None:
        raise AssertionError("it has not been answered")

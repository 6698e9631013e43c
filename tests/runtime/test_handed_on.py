"""A request that is handed on, retried or redriven can be read where it arrives, however it came in."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from aiokafka.structs import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import INTENT, SENTIMENT

from murmura.agents.analysis import agent as analysis
from murmura.agents.classification import agent as classification
from murmura.runtime.agent.agent import agent
from murmura.runtime.agent.handler import Handler
from murmura.runtime.errors import RecordError
from murmura.runtime.field_paths import FieldPath, FieldPaths
from murmura.runtime.flow.handlers.handler_attempts import HandlerAttempts
from murmura.runtime.flow.retries.redelivery import make_redelivery
from murmura.runtime.kafka.offset_tracker import Progress
from murmura.runtime.output.outcome import Outcome
from murmura.runtime.redrive.rules import ORIGINAL, Redrive
from murmura.runtime.settings.settings import Settings
from murmura.runtime.testing.fakes import FakeModel, classified
from murmura.runtime.testing.rehearsal import rehearse
from murmura.runtime.wire.dead_letter import dead_letter
from murmura.runtime.wire.dead_letter_records import Letter, read_letter
from murmura.runtime.wire.message import Publish
from murmura.runtime.wire.request import read_id_in_body, read_request
from murmura.runtime.wire.retry_record import Coordinates, Retry, read_retry, retry_message
from murmura.schemas.deadletter import DeadLetterReason
from murmura.schemas.envelope import REQUEST_TYPE

ELSEWHERE = FieldPaths({"text": FieldPath.parse("$.payload.body"), "id": FieldPath.parse("$.meta.id")})
FORMS = {
    "plain": (None, {"text": "my card", "id": "t-1", "metadata": {"a": "b"}}, ()),
    "paths": (ELSEWHERE, {"payload": {"body": "my card"}, "meta": {"id": "t-1"}, "metadata": {"a": "b"}}, ()),
    "event": (
        None,
        {"specversion": "1.0", "type": "mail", "id": "t-1", "source": "/shop",
         "data": {"text": "my card", "metadata": {"a": "b"}}},
        (("content-type", b"application/cloudevents+json; charset=utf-8"),),
    ),
    "event with paths": (
        ELSEWHERE,
        {"specversion": "1.0", "type": "mail", "id": "t-1", "source": "/shop",
         "data": {"payload": {"body": "my card"}, "metadata": {"a": "b"}}},
        (("content-type", b"application/cloudevents+json"),),
    ),
}  # fmt: skip
INPUTS = {"text": "$.payload.body", "id": "$.meta.id"}


def record(value: dict, headers=(), topic: str = "in", offset: int = 41) -> SimpleNamespace:
    raw = json.dumps(value).encode()
    return SimpleNamespace(topic=topic, partition=2, offset=offset, timestamp=5, timestamp_type=0, key=b"k", value=raw,
                           headers=headers, checksum=None, serialized_key_size=1, serialized_value_size=1)  # fmt: skip


def arrived(message) -> SimpleNamespace:
    found = record({}, tuple(message.headers), message.topic)
    found.value, found.key = message.value, message.key
    return found


@pytest.mark.parametrize("by", ["rule", "code"])
@pytest.mark.parametrize("target", [{}, {"second": INPUTS}, {"second": {"text": "$.other"}}], ids=["", "same", "other"])
@pytest.mark.parametrize("source", [None, INPUTS], ids=["plain", "paths"])
async def test_the_next_agent_reads_what_is_handed_on_whatever_the_settings_say_of_both_topics(source, target, by):
    inputs = target | ({"first": source} if source else {})
    value = FORMS["paths" if source else "plain"][1]
    second = replace(analysis, topics=("second",), tasks=("sentiment",), output="analysed")
    if by == "rule":
        first = replace(classification, topics=("first",), tasks=("intent",), output="classified")
        routing = [{"agent": "classification", "topic": "second", "otherwise": True}]
    else:
        routing = []

        @agent(topics=["first"], tasks=["intent"], output="classified")
        def first(request, prediction):
            return prediction.outputs, Publish("second", request.value, request.key)

    model = FakeModel(
        [INTENT, SENTIMENT], {"my card": {"intent": classified("refund"), "sentiment": classified("negative")}}
    )
    settings = Settings(app="x", inputs=inputs, routing=routing)
    answers = await rehearse([first, second], ("k", value), model=model, settings=settings)
    assert answers.dead_letters == []
    results = {result["agent"]: result for result in answers.results}
    assert results["analysis"]["request_id"] == "t-1"
    assert results["analysis"]["metadata"] == {"a": "b"}
    if not source:
        assert answers.handed_on == [] or answers.handed_on[0].value == json.dumps(value).encode()


@pytest.mark.parametrize("form", FORMS)
def test_a_request_as_plain_value_is_the_same_request(form):
    paths, value, headers = FORMS[form]
    before = read_request(record(value, headers), 1000, fields=paths)
    sent = record({}, (("content-type", REQUEST_TYPE.encode()),))
    sent.value = before.plain_value()
    for at_target in (None, ELSEWHERE, FieldPaths({"text": FieldPath.parse("$.x")})):
        after = read_request(sent, 1000, fields=at_target)
        assert (after.text, after.request_id, after.metadata) == (before.text, "t-1", {"a": "b"})
    assert (sent.value == before.value) == (form == "plain")


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: not text.isspace()),
    st.none() | st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=3),
)
def test_any_text_and_any_tasks_come_through_a_plain_value(text, tasks):
    value = {"payload": {"body": text}} | ({} if tasks is None else {"tasks": tasks})
    before = read_request(record(value), 100_000, fields=ELSEWHERE)
    after = read_request(record(json.loads(before.plain_value())), 100_000)
    assert (after.text, after.tasks, after.request_id) == (before.text, before.tasks, before.request_id)


@pytest.mark.parametrize("form", FORMS)
def test_a_retried_request_is_the_same_request(form):
    paths, value, headers = FORMS[form]
    original = record(value, headers)
    before = read_request(original, 1000, fields=paths)
    retry = Retry("x", Coordinates("in", 2, 41, 5), "a", 1.0, 1)
    waiting = arrived(retry_message(original, retry, "retries", 0))
    again = make_redelivery(
        waiting, Progress(), read_retry(waiting), max_value_bytes=1000, max_hops=None, fields=paths
    ).request
    assert [getattr(again, name) for name in ("text", "request_id", "source", "metadata", "value")] == [
        getattr(before, name) for name in ("text", "request_id", "source", "metadata", "value")
    ]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("target", [ORIGINAL, "elsewhere"])
def test_a_redriven_request_is_the_same_request(form, target):
    paths, value, headers = FORMS[form]
    before = read_request(record(value, headers), 1000, fields=paths)
    made = arrived(
        dead_letter(record(value, headers), RecordError(DeadLetterReason.AGENT_FAILED, "why"), "dead", agent="a")
    )
    rules = Redrive("retries", target, "x", agents={"a"}, fields={} if paths is None else {"in": paths})
    sent = arrived(rules.message(Letter(made, read_letter(made)), 0.0))
    after = read_request(sent, 1000, fields=paths if target == ORIGINAL else None)
    assert (after.text, after.request_id, after.source) == (before.text, "t-1", before.source)
    assert after.metadata == {"a": "b"}
    if target == ORIGINAL:
        assert sent.value == before.value


class Forwarder(Handler):
    """Publishes what it gets."""

    name, topics, outputs = "forwarder", ("first",), ("copies",)

    async def handle(self, record, engine):
        return [Publish("copies", record.value, record.key)]


@pytest.mark.parametrize("form", FORMS)
async def test_what_a_handler_publishes_names_the_request_and_its_format(form):
    paths, value, headers = FORMS[form]
    taken = ConsumerRecord("first", 0, 0, 5, 0, b"k", json.dumps(value).encode(), None, 1, 1, headers)
    attempts = HandlerAttempts(
        Forwarder(),
        None,
        suspending=None,
        retrying=None,
        on_enter=lambda count: None,
        on_truncated=lambda topic: None,
        max_value_bytes=1000,
        max_hops=None,
        tracing=None,
        fields={} if paths is None else {"first": paths},
    )
    ((message, _),) = await attempts._run_once(taken, Outcome())
    assert dict(message.headers)["murmura_request_id"] == b"t-1"
    after = read_request(arrived(message), 1000, fields=paths)
    assert (after.text, after.request_id) == ("my card", "t-1")


@pytest.mark.parametrize(
    ("value", "headers", "found"),
    [
        (b'{"meta": {"id": 7}}', (), "7"),
        (b'{"meta": {"id": [7]}}', (), None),
        (b'{"meta": {}, "id": "top"}', (), None),
        (b'\0\0\0\0\7{"meta": {"id": "framed"}}', (), "framed"),
        (b'{"id": "event", "data": {}}', (("content-type", b"application/cloudevents+json"),), "event"),
        (b"[]", (("content-type", b"application/cloudevents-batch+json"),), None),
        (b'{"id": "top"}', (("content-type", REQUEST_TYPE.encode()),), "top"),
        (b"{", (), None),
        (b"\xff", (), None),
        (None, (), None),
    ],
)
def test_the_id_of_a_record_lies_where_its_request_has_it(value, headers, found):
    sent = record({}, headers)
    sent.value = value
    assert read_id_in_body(sent, 1000, ELSEWHERE) == found

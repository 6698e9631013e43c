"""On a real Kafka: rules of the settings hand records from agent to agent, and a circle ends."""

import json
from dataclasses import replace

import pytest
from serving import Desk, ids, reason

from murmura.agents.analysis import agent as analysis
from murmura.agents.classification import agent as classification
from murmura.runtime.agent.agent import agent
from murmura.runtime.errors import SetupError
from murmura.runtime.model.model import Model
from murmura.runtime.wire.message import Publish

TEXTS = ["my card was lost", "i want a refund", "transfer money to london", "thanks", "why is it bad", "hello london"]
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


@pytest.fixture
async def pipeline(desk: Desk, make_topics) -> Desk:
    """Classification reads the requests; analysis reads what is handed on to it."""
    await make_topics("complaints", "people", prefix=desk.prefix)
    desk.agents = [
        replace(classification, topics=(desk.requests,), output=desk.classified),
        replace(analysis, topics=(f"{desk.prefix}.complaints",), output=desk.analysed),
    ]
    return desk


def rule(desk: Desk, to: str, agent: str = "classification", **conditions) -> dict:
    return {"agent": agent, "topic": f"{desk.prefix}.{to}", **conditions}


async def test_complaints_go_to_the_analysis_and_the_rest_to_people(pipeline: Desk):
    desk = pipeline
    answers = zip(TEXTS, Model.load(desk.model).predict(TEXTS), strict=True)
    unhappy = [text for text, answer in answers if answer["sentiment"]["label"] == "negative"]
    assert 0 < len(unhappy) < len(TEXTS)
    rules = [
        rule(desk, "complaints", task="sentiment", label="negative"),
        rule(desk, "people", otherwise=True),
    ]
    await desk.send(*({"id": text, "text": text} for text in TEXTS), key=b"c", headers=[("traceparent", TRACE)])
    async with desk.serving(routing=rules):
        classified = await desk.read(desk.classified, len(TEXTS))
        analysed = await desk.read(desk.analysed, len(unhappy))
        people = await desk.read(f"{desk.prefix}.people", len(TEXTS) - len(unhappy))
    assert sorted(ids(classified)) == sorted(TEXTS)
    assert sorted(ids(analysed)) == sorted(unhappy)
    assert {dict(record.headers)["murmura_hops"] for record in analysed} == {b"2"}
    assert {record.key for record in [*analysed, *people]} == {b"c"}
    assert sorted(dict(record.headers)["murmura_request_id"].decode() for record in people) == sorted(
        set(TEXTS) - set(unhappy)
    )
    assert {dict(record.headers)["traceparent"] for record in [*classified, *analysed, *people]} == {TRACE}


async def test_a_circle_of_agents_ends_with_one_dead_letter(pipeline: Desk):
    desk = pipeline
    rules = [
        rule(desk, "complaints", otherwise=True),
        rule(desk, "requests", agent="analysis", otherwise=True),
    ]
    await desk.send({"id": "1", "text": "my card was lost"})
    async with desk.serving(routing=rules, limits={"max_hops": 6}):
        (letter,) = await desk.read(desk.dead_letters, 1)
    assert reason(letter) == "hop_limit"
    assert dict(letter.headers)["murmura_hops"] == b"7"
    assert letter.value == b'{"id": "1", "text": "my card was lost"}'


async def test_what_an_agent_publishes_to_a_partition_that_is_not_there_harms_no_other_record(pipeline: Desk):
    desk = pipeline

    @agent(topics=[desk.requests], tasks=["intent"], output=desk.classified)
    def astray(request, prediction):
        if request.text == "astray":
            return Publish(f"{desk.prefix}.people", request.value, partition=99)
        return prediction.outputs

    desk.agents = [astray]
    await desk.send(*({"id": text, "text": text} for text in ("one", "astray", "two", "three")))
    async with desk.serving():
        (letter,) = await desk.read(desk.dead_letters, 1)
        answered = await desk.read(desk.classified, 3)
        await desk.send({"id": "after", "text": "after"})
        await desk.read(desk.classified, 1 + len(answered))
    assert reason(letter) == "agent_failed"
    assert sorted(ids(answered)) == ["one", "three", "two"]


async def test_a_rule_whose_topic_is_not_there_is_refused_at_start(pipeline: Desk):
    with pytest.raises(SetupError, match="nowhere is not on"):
        async with pipeline.serving(routing=[rule(pipeline, "nowhere", otherwise=True)]):
            pass


async def test_requests_of_every_form_are_answered_and_can_be_read_where_they_are_handed_on(pipeline: Desk):
    """A plain one, a CloudEvent in structured mode, one behind a registry's frame, and one at field paths."""
    desk = pipeline
    event = {
        "specversion": "1.0",
        "type": "mail",
        "id": "event",
        "source": "/shop",
        "data": {"text": "my card was lost"},
    }
    plain = {"id": "plain", "text": "my card was lost"}
    await desk.send(plain)
    await desk.send(event, headers=[("content-type", b"application/cloudevents+json")])
    await desk.send(b"\0\0\0\0\7" + json.dumps(plain | {"id": "framed"}).encode())
    async with desk.serving(routing=[rule(desk, "complaints", otherwise=True)]):
        assert sorted(ids(await desk.read(desk.classified, 3))) == ["event", "framed", "plain"]
        analysed = await desk.read(desk.analysed, 3)
        assert await desk.read(desk.dead_letters, 0) == []
    assert sorted(ids(analysed)) == ["event", "framed", "plain"]
    inputs = {desk.requests: {"text": "$.payload.body", "id": "$.meta.id"}}
    await desk.send({"payload": {"body": "my card was lost"}, "meta": {"id": "paths"}})
    async with desk.serving(routing=[rule(desk, "complaints", otherwise=True)], inputs=inputs):
        assert "paths" in ids(await desk.read(desk.analysed, 4))

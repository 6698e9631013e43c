"""Trying a text: what is sent, what is waited for, and who may."""

import asyncio
import json
import time

import pytest
from aiokafka import AIOKafkaConsumer
from screens_by_hand import ByHand, result
from test_live import browse

from murmura.console.trying import asking
from murmura.console.web.people import Refused
from murmura.runtime.kafka.embedded_broker import EmbeddedBroker


async def test_a_text_goes_to_the_topic_and_the_results_of_its_readers_come_back_by_one_producer(monkeypatch):
    with EmbeddedBroker({"in": 1}) as broker:
        made = ByHand(kafka={"bootstrap_servers": broker.bootstrap, "fetch_max_wait_ms": 100})
        trying = asyncio.create_task(made.asking.ask("desk", "to Rome"))
        async with AIOKafkaConsumer("in", bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest") as reader:
            sent = json.loads((await reader.getone()).value)
        assert (sent["text"], sent["metadata"]) == ("to Rome", {"sent_by": "murmura console"})
        now = int(time.time() * 1000)
        made.take(result(1, now, request_id="other"), result(2, now, request_id=sent["id"]))
        tried = await asyncio.wait_for(trying, 5)
        assert [each.source.offset for each in tried.results] == [2]
        assert (tried.missing, tried.waited_ms < 10_000) == ([], True)
        producer = made.asking._sender._producer
        monkeypatch.setattr(asking, "WAIT_S", 0.01)
        assert (await made.asking.ask("desk", "again")).missing == ["desk"]
        assert made.asking._sender._producer is producer
        await made.asking.close()


async def test_an_agent_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setattr(asking, "WAIT_S", 0.05)
    made = ByHand()

    async def send(*_):
        return None

    monkeypatch.setattr(made.asking._sender, "send", send)
    assert (await made.asking.ask("desk", "to Rome")).missing == ["desk"]
    with pytest.raises(Refused, match="no such agent"):
        await made.asking.ask("other", "to Rome")


def test_it_is_said_why_no_answer_can_be_seen():
    made = ByHand()
    made.follower.trouble, made.follower.missing = "the broker is away", frozenset(["out", "other"])
    page = browse(made).get("/try").text
    assert "the broker is away" in page
    assert "Results in <bdi>out</bdi> are not seen here" in page


def test_a_text_is_shown_with_its_answers_and_only_an_operator_sends(monkeypatch):
    made = ByHand()

    async def ask(agent, text):
        made.fill(int(time.time() * 1000))
        found = [made.live.get(f"{0:032x}")]
        return asking.Tried(agent, text, "in", "try-1", found, ["other"], 12.0, 40.0)

    monkeypatch.setattr(made.asking, "ask", ask)
    answer = browse(made).post("/try", data={"agent": "desk", "text": "to Rome <b>"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/try?id=try-1")
    page = browse(made).get("/try?id=try-1").text
    assert "not kept any more" in browse(made).get("/try?id=try-2").text
    assert "<mark>Rome" in page
    assert "&lt;b&gt;" in page
    assert "No answer of <bdi>other</bdi>" in page
    assert browse(made).post("/try", data={"agent": "desk", "text": " "}).status_code == 400
    reader = browse(ByHand(console={"read_only": True}))
    assert reader.post("/try", data={"agent": "desk", "text": "x"}).status_code == 403
    assert "<textarea" not in reader.get("/try").text

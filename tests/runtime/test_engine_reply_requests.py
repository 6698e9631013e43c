"""Requests that name a task that generates: however many there are, few are on their way to their first step."""

import asyncio

import pytest
from tiny_talker import write_talker

from murmura.runtime.batching.engine import Engine
from murmura.runtime.model.inputs import TextPair
from murmura.runtime.model.model import Model

TEXTS = [f"user: {words}" for words in ("refund my order", "open the app", "my card was lost", "hello", "thanks")] * 12


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model.load(write_talker(tmp_path_factory.mktemp("talker") / "desk"), device="cpu")


async def test_many_requests_for_replies_wait_for_places_and_are_answered_as_offline(model: Model) -> None:
    engine, most = Engine(model, token_budget=600, reply_rows=4), 0
    await engine.start()
    try:
        asked = [
            asyncio.create_task(engine.predict("request time", ["reply", "intent"], text_pair=text)) for text in TEXTS
        ]
        while not all(each.done() for each in asked):
            await asyncio.sleep(0)
            most = max(most, engine.queued_rows)
        replies = model.generate([TextPair("request time", text) for text in TEXTS])
        assert [each.result()["reply"]["text"] for each in asked] == [reply.text for reply in replies]
        assert 0 < most <= engine.most_replies - engine.reply_rows
        lost = [asyncio.create_task(engine.predict("request time", ["reply"], text_pair=text)) for text in TEXTS]
        await asyncio.sleep(0.01)
        for each in lost[:-1]:
            each.cancel()
        assert (await asyncio.wait_for(lost[-1], 20))["reply"]["text"] == replies[-1].text
    finally:
        await engine.stop(5)


def test_offline_as_many_replies_are_begun_as_there_are_rows(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting: list[int] = []
    decoder = model.decoders["reply"]
    step = decoder.step
    monkeypatch.setattr(decoder, "step", lambda table, **options: waiting.append(table.count) or step(table, **options))
    assert len(model.generate([TextPair("request time", text) for text in TEXTS], max_rows=4)) == len(TEXTS)
    assert max(waiting) == 4

"""Replies that a model words, on a real Kafka: written down before they are sent, and switched off while a process serves."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest
from dialogue_bank import Bank
from serving import Desk
from tiny_talker import write_talker

from murmura.runtime.release.states import publish_state
from murmura.runtime.release.store import ModelStore
from murmura.runtime.settings.settings import KafkaSettings
from murmura.schemas.dialogue import ConversationState
from murmura.schemas.release import GeneratedReplies, released, switched
from murmura.schemas.serving_event import ServingEvent

POLICY = """
intents:
  transfer: {needs: {place: {generate: true, template: "Where to?"}}, reply: "To {place}."}
  refund: {reply: {generate: true, template: "Yes."}}
"""
SAID = {"by": "ann", "why": "odd wordings", "at": datetime.now(UTC)}


@pytest.fixture
async def bank(kafka, make_topics, unique, tmp_path: Path, monkeypatch) -> Bank:
    prefix = unique("bank")
    monkeypatch.setenv("MURMURA_CACHE", str(tmp_path / "cache"))
    await make_topics("dialogue.turns", "dialogue.replies", "handoffs", "deadletters", "events", prefix=prefix)
    await make_topics("dialogue.state", prefix=prefix, config={"cleanup.policy": "compact"})
    await make_topics("models", prefix=prefix, partitions=1, config={"cleanup.policy": "compact"})
    (tmp_path / "policy.yaml").write_text(POLICY)
    return Bank(Desk(kafka, prefix, write_talker(tmp_path / "tiny")), tmp_path / "policy.yaml")


async def test_a_switch_reaches_a_serving_process_and_loads_nothing(bank: Bank, tmp_path: Path):
    store, desk = ModelStore(str(tmp_path / "store")), bank.desk
    store.push(desk.model)
    state = released(None, "tiny", 1, store.digest("tiny", 1), **SAID)
    kafka, topic = KafkaSettings(bootstrap_servers=desk.bootstrap), f"{desk.prefix}.models"
    await publish_state(kafka, topic, state)
    model = {"cores": 1, "token_budget": 256, "store": store.address, "name": "tiny"}
    async with bank.serving({"generate_within_s": 30}, model=model) as serving:
        await bank.say(*((f"c{number}", "i want a refund please") for number in range(8)))
        worded = await bank.replies(8)
        before = serving.engine.model
        await publish_state(kafka, topic, switched(state, GeneratedReplies(off="all"), **SAID))
        async with asyncio.timeout(30):
            while not (events := await desk.read(f"{desk.prefix}.events", 0)):
                await asyncio.sleep(0.1)
        await bank.say(("late", "i want a refund please"))
        (last,) = [each for each in await bank.replies(9) if each.conversation == "late"]
        assert serving.engine.model is before
    states = [
        ConversationState.model_validate_json(each.value)
        for each in await desk.read(f"{desk.prefix}.dialogue.state", 9)
    ]
    assert {each.wording for each in worded} == {"generated"}
    assert sorted(each.turns[-1].reply for each in states) == sorted(each.text for each in [*worded, last])
    assert (last.text, last.wording_reason) == ("Yes.", "switched_off")
    event = ServingEvent.model_validate_json(events[0].value)
    assert (event.event, event.message) == (
        "replies.switched",
        "generated replies are off for all, by ann: odd wordings",
    )

"""Answers from knowledge, on a real Kafka: by the vectors of the version that serves."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from dialogue_bank import Bank
from serving import Desk
from tiny_model import write_tiny_model

from murmura.runtime.release.states import publish_state
from murmura.runtime.release.store import ModelStore
from murmura.runtime.settings.settings import KafkaSettings
from murmura.schemas.release import released
from murmura.schemas.serving_event import ServingEvent

POLICY = """
min_score: 1
intents:
  refund: {reply: "Yes."}
"""
FAQ = """entries:
  - {question: what is the weather, answer: "Look out of the window."}
  - {question: who are you, answer: "A desk."}
"""
SAID = {"by": "ann", "why": "better", "at": datetime.now(UTC)}


@pytest.fixture
async def bank(kafka, make_topics, unique, tmp_path: Path, monkeypatch) -> Bank:
    prefix = unique("bank")
    monkeypatch.setenv("MURMURA_CACHE", str(tmp_path / "cache"))
    await make_topics("dialogue.turns", "dialogue.replies", "handoffs", "deadletters", prefix=prefix)
    await make_topics("dialogue.state", prefix=prefix, config={"cleanup.policy": "compact"})
    await make_topics("models", prefix=prefix, partitions=1, config={"cleanup.policy": "compact"})
    await make_topics("events", prefix=prefix, partitions=1)
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "faq.yaml").write_text(FAQ)
    return Bank(Desk(kafka, prefix, tmp_path), tmp_path / "policy.yaml")


async def test_a_turn_without_a_rule_is_answered_from_knowledge_before_and_after_a_release(bank: Bank, tmp_path: Path):
    store, desk = ModelStore(str(tmp_path / "store")), bank.desk
    for seed in (1, 2):
        store.push(write_tiny_model(tmp_path / f"model{seed}", seed=seed, pooled=True))
    kafka, topic = KafkaSettings(bootstrap_servers=desk.bootstrap), f"{desk.prefix}.models"
    state = released(None, "tiny", 1, store.digest("tiny", 1), **SAID)
    await publish_state(kafka, topic, state)
    options = {"knowledge": str(tmp_path / "faq.yaml"), "knowledge_threshold": 0.9999}
    model = {"cores": 1, "token_budget": 256, "store": store.address, "name": "tiny"}
    async with bank.serving(options, model=model):
        await bank.say(("before", "what is the weather"), ("unknown", "is a new card great"))
        await bank.replies(2)
        await publish_state(kafka, topic, released(state, "tiny", 2, store.digest("tiny", 2), **SAID))
        (swapped,) = await desk.read(f"{desk.prefix}.events", 1)
        await bank.say(("after", "what is the weather"), ("after", "who are you"))
        replies = await bank.replies(4)
    assert ServingEvent.model_validate_json(swapped.value).event == "model.swapped"
    found = {(each.conversation, each.number): each for each in replies}
    assert {place: (each.text, each.wording, each.model.version) for place, each in found.items() if each.model} == {
        ("before", 1): ("Look out of the window.", "knowledge", 1),
        ("unknown", 1): (found["unknown", 1].text, "template", 1),
        ("after", 1): ("Look out of the window.", "knowledge", 2),
        ("after", 2): ("A desk.", "knowledge", 2),
    }
    assert found["unknown", 1].kind == "not_understood"

"""The conversation beside the demo's messages: each turn after the reply before it, and how it is shown."""

import asyncio
import io
import json

from rich.console import Console

from murmura.agents.dialogue.knowledge.entries import read_knowledge
from murmura.agents.dialogue.options import DialogueOptions
from murmura.agents.dialogue.policy.policy_file import load_policy
from murmura.runtime.model.folders.folder import read_manifest
from murmura.runtime.settings.settings import Settings
from murmura.runtime.testing.fakes import fake_manifest
from murmura.scenarios.stage import talk as talking
from murmura.scenarios.stage.desk import Desk
from murmura.scenarios.stage.screen import Facts, Now, find_shown, screen, talk_line
from murmura.scenarios.stage.talk import (
    AGENT,
    STATE,
    TURNS,
    Exchange,
    Talk,
    find_misfit,
    read_conversations,
    talk_topics,
    with_talk,
)
from murmura.scenarios.support.place import CONVERSATIONS, FAQ, FAQ_THRESHOLD, MODEL, POLICY
from murmura.schemas.manifest import GenerationSpec, TaskSpec

QUEUE = TaskSpec(name="queue", kind="classification", labels=["a", "b"])
SAID = [Exchange("lost my card", "When did you last have it?", "generated"), Exchange("so what", None)]


async def test_each_turn_is_sent_after_the_reply_to_the_one_before(monkeypatch):
    monkeypatch.setattr(talking, "PAUSE_S", 0.0)
    monkeypatch.setattr(talking, "PATIENCE_S", 0.02)
    talk, sent = Talk([["hi", "lost my card", "never sent"], ["hello"]]), asyncio.Queue()

    async def send(topic: str, value: bytes, key: bytes) -> None:
        turn = json.loads(value)
        await sent.put((topic, key, turn["text"]))
        if turn["text"] == "hi":
            for request in ("another", turn["id"]):
                reply = {"request_id": request, "text": f"to {request}", "wording": "generated"}
                talk.read_reply(json.dumps(reply).encode(), 0.0)

    task = asyncio.create_task(talk.keep_talking(send))
    came = [await sent.get() for _ in range(3)]
    task.cancel()
    assert came == [(TURNS, b"talk-1", "hi"), (TURNS, b"talk-1", "lost my card"), (TURNS, b"talk-2", "hello")]
    assert [exchange.reply for exchange in talk.exchanges] == ["to talk-1-1", None, None]


def test_the_demo_talks_where_the_model_has_what_the_policy_needs():
    assert find_misfit(POLICY, read_manifest(MODEL)) is None
    misfit = find_misfit(POLICY, fake_manifest([QUEUE]))
    assert misfit is not None
    assert "fake" in misfit
    assert "\n" not in misfit
    assert {TURNS, STATE, "bank.refunds"} <= set(talk_topics(POLICY))
    assert read_manifest(MODEL).task("reply").thresholds.accept is not None
    assert load_policy(POLICY).value.min_reply_score is None
    assert all(isinstance(turn, str) for turns in read_conversations(CONVERSATIONS) for turn in turns)


def test_the_demo_has_knowledge_and_vectors_that_find_it():
    assert read_manifest(MODEL).pooled_layers
    settings = with_talk(Settings(), POLICY, {"knowledge": str(FAQ), "knowledge_threshold": FAQ_THRESHOLD})
    options = DialogueOptions.model_validate(settings.agents[AGENT].options)
    assert options.knowledge == FAQ
    assert len(read_knowledge(FAQ)) > 40


def test_the_last_of_the_conversation_stands_under_the_messages():
    facts, console = Facts("desk", "cpu", "http://x", (QUEUE,)), Console(file=io.StringIO(), width=100, height=24)
    console.print(screen(facts, Desk(frozenset()), SAID * 3, Now(1.0, 1.0, None), 100, 24))
    lines = console.file.getvalue().rstrip("\n").split("\n")
    assert len(lines) == 24
    text = "\n".join(lines)
    assert text.count("lost my card") == 1
    assert "desk      generated  When did you last have it?" in text
    assert talk_line(SAID[0]) == "lost my card | generated: When did you last have it?"


def test_a_message_has_columns_for_the_tasks_of_its_agents_alone():
    filter_ = TaskSpec(name="filter", kind="multi_label", labels=["insult"], default_for=["dialogue"])
    size = GenerationSpec(context=1, acts=True, layers=1, slots=[])
    reply = TaskSpec(name="reply", kind="generation", labels=["{end}", "x"], generation=size)
    assert find_shown([QUEUE, filter_, reply]) == [QUEUE]

"""The loop of edited replies on a real Kafka: worded, edited, ingested, retrained, judged, released, and worded as people do."""

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from dialogue_bank import Bank
from serving import Desk
from tiny_loop import write_job
from tiny_training import rows
from typer.testing import CliRunner

from murmura.runtime.cli import main as cli
from murmura.runtime.release.states import publish_state
from murmura.runtime.release.store import ModelStore
from murmura.runtime.settings.settings import KafkaSettings
from murmura.runtime.wire.feedback import to_record
from murmura.schemas.dialogue import Reply, Wording
from murmura.schemas.feedback import Feedback
from murmura.schemas.release import released
from murmura.schemas.serving_event import ServingEvent
from murmura.training.retrain.run import retrain

POLICY = """
entity_task: null
constants: {date: Sunday}
intents:
  lost: {reply: {generate: true, template: "There is one on {date}.", acts: [{act: offer, slot: date}]}}
  transfer: {reply: {generate: true, template: "When is it?", acts: [{act: request, slot: date}]}}
"""
CLOSING = " Thank you!"
FIT = {"epochs": 8, "evaluations": 1, "encoder_lr": 1e-3, "head_lr": 5e-3, "dropout": 0.0, "threads": 1}


@pytest.fixture
async def bank(kafka, make_topics, unique, reply_desk: Path, tmp_path: Path, monkeypatch) -> Bank:
    prefix = unique("bank")
    monkeypatch.setenv("MURMURA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MURMURA_PREFIX", prefix)
    await make_topics("dialogue.turns", "dialogue.replies", "handoffs", "deadletters", prefix=prefix)
    for name in ("dialogue.state", "models"):
        count = 1 if name == "models" else 3
        await make_topics(name, prefix=prefix, partitions=count, config={"cleanup.policy": "compact"})
    await make_topics("events", "training", "feedback", "reviews", prefix=prefix, partitions=1)
    (tmp_path / "policy.yaml").write_text(POLICY)
    return Bank(Desk(kafka, prefix, reply_desk / "desk"), tmp_path / "policy.yaml")


def turns(count: int, seed: int) -> list[tuple[str, str]]:
    """Return the first turns of conversations, no two alike, each with an intent of the policy."""
    known = [row["text"] for row in rows(2 * count, seed) if row["label"] != "other"]
    return [(f"c{seed}-{number}", f"{text} {seed}{number:02}") for number, text in enumerate(known[:count])]


def edit(reply: Reply) -> Feedback:
    """Return what a person makes of every reply: the same words and a closing phrase."""
    return Feedback(
        id=f"f{reply.conversation}",
        prediction_id=reply.prediction_id,
        agent=reply.agent,
        task="reply",
        verdict="correction",
        value=reply.text + CLOSING,
        by="ann",
        at=datetime.now(UTC),
        consent=True,
    )


async def test_replies_are_worded_as_people_edit_them_after_a_retraining(
    bank: Bank, reply_desk: Path, tmp_path: Path
) -> None:
    desk, store = bank.desk, ModelStore(str(tmp_path / "store"))
    kafka = KafkaSettings(bootstrap_servers=desk.bootstrap)
    first = store.push(desk.model)
    state = released(None, "desk", first, store.digest("desk", first), by="ann", why="first", at=datetime.now(UTC))
    await publish_state(kafka, f"{desk.prefix}.models", state)
    job = write_job(
        tmp_path,
        reply_desk,
        model={"store": store.address, "name": "desk"},
        feedback={"data": "edits"},
        # Of 18 rows one different reply less is a loss of more than five points.
        gate={"least_corrections": 10, "allowance": 0.15},
        fit=FIT,
        prefix=desk.prefix,
        kafka={"bootstrap_servers": desk.bootstrap},
    )
    model = {"cores": 1, "token_budget": 256, "store": store.address, "name": "desk"}
    async with bank.serving({"generate_within_s": 30}, model=model) as serving:
        await bank.say(*turns(60, 3))
        before = await bank.replies(60)
        # The turns are unlike those that the model has learned from, so many a reply has too low a score.
        assert sum(each.wording is Wording.GENERATED for each in before) >= 15
        assert not any(each.text.endswith(CLOSING) for each in before)
        sent = [to_record(edit(each), f"{desk.prefix}.feedback") for each in before]
        await desk.send(*(each["value"] for each in sent), topic=sent[0]["topic"])

        ingest = ["ingest", "--agent", "dialogue", "--out", str(tmp_path / "edits"), "--heldout", "0.3", "--quiet"]
        policy = {"MURMURA_AGENTS__DIALOGUE__OPTIONS__POLICY": str(bank.policy)}
        done = await asyncio.to_thread(
            CliRunner().invoke, cli.build(), [*ingest, "--bootstrap", desk.bootstrap], env=os.environ | policy
        )
        assert done.exit_code == 0, done.output
        await asyncio.to_thread(retrain, job, tmp_path / "work", quiet=True)

        (swapped,) = await desk.read(f"{desk.prefix}.events", 1)
        assert ServingEvent.model_validate_json(swapped.value).event == "model.swapped"
        assert serving.engine.model.manifest.version == first + 1
        await bank.say(*turns(15, 77))
        after = [each for each in await bank.replies(75) if each.conversation.startswith("c77-")]
    assert len(after) == 15
    worded = [each for each in after if each.wording is Wording.GENERATED and each.text.endswith(CLOSING)]
    assert len(worded) / len(after) >= 0.8

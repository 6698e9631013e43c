"""The agent that answers from knowledge: when it is asked, what it sends and writes down, and how versions change."""

import gc
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from dialogue_process import REPLIES, STATE, TASKS, Log, Process, answers, content, turn

from murmura.agents.dialogue import Dialogue
from murmura.runtime.errors import SetupError
from murmura.runtime.settings.settings import Settings
from murmura.runtime.testing.fakes import FakeModel
from murmura.schemas.dialogue import ConversationState
from murmura.schemas.manifest import GenerationSpec, TaskSpec

POLICY = """
greeting: Hello.
intents:
  transfer:
    needs: {amount: "How much?"}
    reply: "{amount} is on its way."
  complaint:
    reply: We are sorry.
"""
FAQ = """entries:
  - question: when do you open
    answer: At nine {sharp}.
  - question: what does it cost
    answer: Two euros.
    valid_until: 2025-12-31
  - question: what does it cost
    answer: Three euros.
    valid_from: 2026-01-01
"""
NEW_YEAR = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000)


def vectors(text: str) -> np.ndarray:
    """An axis for each question; "nearly" lies between them at 0.8."""
    known = {"when do you open": (1, 0, 0), "what does it cost": (0, 1, 0), "nearly": (0.8, 0, 0.6)}
    return np.array(known.get(text, (0, 0, 1)), np.float32)


def served(version: int = 0) -> FakeModel:
    return FakeModel(TASKS, answers, vectors=vectors, version=version)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    (tmp_path / "faq.yaml").write_text(FAQ)
    (tmp_path / "policy.yaml").write_text(POLICY)
    return tmp_path / "policy.yaml"


async def begin(policy: Path, log: Log | None = None, model: FakeModel | None = None, **options) -> Process:
    options = {"knowledge": str(policy.parent / "faq.yaml"), **options}
    return await Process(policy, [] if log is None else log, served=model or served(), **options).begin()


async def test_a_reviewed_answer_is_sent_as_it_is_where_the_policy_has_no_rule_and_the_state_is_written_first(policy):
    process = await begin(policy)
    await process.hear(turn(1, "angry now"))
    state, reply = await process.hear(turn(2, "when do you open"))
    assert [(message.topic, message.first) for message in (state, reply)] == [(STATE, True), (REPLIES, False)]
    shown = {name: reply.value[name] for name in ("text", "wording", "wording_reason", "kind", "intent", "acts")}
    assert shown == {
        "text": "At nine {sharp}.",
        "wording": "knowledge",
        "wording_reason": None,
        "kind": "answered",
        "intent": None,
        "acts": [{"act": "inform", "slot": None, "intent": None}],
    }
    kept = ConversationState.model_validate_json(state.value)
    assert (kept.turns[-1].reply, kept.wording, kept.misunderstood) == ("At nine {sharp}.", "knowledge", 0)
    assert process.counted("murmura_reply_wordings_total", agent="dialogue", wording="knowledge", reason="none") == 1


async def test_a_first_turn_gets_the_greeting_before_its_answer(policy):
    _, reply = await (await begin(policy)).hear(turn(1, "when do you open"))
    assert (reply.value["text"], reply.value["wording"]) == ("Hello. At nine {sharp}.", "knowledge")


async def test_a_greeting_that_the_model_may_word_is_the_policys_before_an_answer(policy):
    policy.write_text(POLICY.replace("greeting: Hello.", "greeting: {generate: true, template: Hello.}"))
    sizes = GenerationSpec(context=3, acts=True, layers=1, slots=[])
    reply_task = TaskSpec(name="reply", kind="generation", labels=["{end}", "x"], generation=sizes)
    model = FakeModel([*TASKS, reply_task], answers, vectors=vectors)
    _, reply = await (await begin(policy, model=model)).hear(turn(1, "when do you open"))
    assert (reply.value["text"], reply.value["wording"]) == ("Hello. At nine {sharp}.", "knowledge")


async def test_a_rule_of_the_policy_and_an_open_question_come_first(policy):
    model = served()
    process = await begin(policy, model=model)
    for offset, text in enumerate(["send money", "when do you open", "£20", "angry now"], 1):
        _, reply = await process.hear(turn(offset, text))
        assert reply.value["wording"] == "template"
    assert [batch for batch in model.batches if batch == ["when do you open"]] == [["when do you open"]]


async def test_a_text_that_is_not_near_enough_is_not_understood(policy):
    process = await begin(policy)
    await process.hear(turn(1, "angry now"))
    _, reply = await process.hear(turn(2, "nearly"))
    assert (reply.value["kind"], reply.value["wording"]) == ("not_understood", "template")
    process = await begin(policy, knowledge_threshold=0.8)
    await process.hear(turn(1, "angry now"))
    _, reply = await process.hear(turn(2, "nearly"))
    assert reply.value["text"] == "At nine {sharp}."


async def test_a_vector_of_no_numbers_is_near_no_question(policy):
    model = FakeModel(TASKS, answers, vectors=lambda text: vectors(text) * (np.nan if text == "odd" else 1))
    process = await begin(policy, model=model)
    await process.hear(turn(1, "angry now"))
    _, reply = await process.hear(turn(2, "odd"))
    assert (reply.value["kind"], reply.value["wording"]) == ("not_understood", "template")


async def test_knowledge_that_fails_answers_nothing_and_the_policy_does(policy):
    process = await begin(policy)
    process.agent._knowledge._prepared = {}
    _, reply = await process.hear(turn(1, "when do you open"))
    assert (reply.value["kind"], reply.value["text"]) == ("greeted", "Hello.")
    assert process.counted("murmura_failed_parts_total", agent="dialogue", part="knowledge") == 1


async def test_a_turn_that_knowledge_answers_costs_one_pass(policy):
    model = served()
    process = await begin(policy, model=model)
    asked = len(model.batches)
    _, reply = await process.hear(turn(1, "when do you open"))
    assert (reply.value["wording"], model.batches[asked:]) == ("knowledge", [["when do you open"]])


async def test_validity_is_judged_by_the_turns_own_time(policy):
    process = await begin(policy)
    for number, (at, answer) in enumerate([(NEW_YEAR - 1, "Two euros."), (NEW_YEAR, "Three euros.")], 1):
        _, reply = await process.hear(turn(number, "what does it cost", key=f"c-{number}".encode(), at=at))
        assert reply.value["text"] == f"Hello. {answer}"


async def test_a_turn_that_comes_again_gets_the_recorded_answer_whatever_the_file_says_by_then(policy):
    log: Log = []
    first = await (await begin(policy, log)).hear(turn(1, "when do you open"))
    (policy.parent / "faq.yaml").write_text(FAQ.replace("At nine", "At ten"))
    again = await (await begin(policy, log)).hear(turn(1, "when do you open"))
    assert content(again) == content(first)


async def test_a_version_answers_by_its_own_vectors_which_are_ready_before_it_serves(policy):
    process = await begin(policy)
    released = served(version=2)
    process.agent.check(released.manifest)
    process.agent.prepare(released)
    process.engine.swap(released)
    _, reply = await process.hear(turn(1, "when do you open"))
    assert (reply.value["wording"], reply.value["model"]["version"]) == ("knowledge", 2)
    for version in range(3, 9):
        process.agent.prepare(served(version))  # is refused for something else, and freed
    gc.collect()
    process.agent.prepare(staged := served(version=9))
    assert [version for _, version in process.agent._knowledge._prepared] == [2, 9]
    _, reply = await process.hear(turn(2, "when do you open", key=b"c-2"))
    assert (reply.value["wording"], staged.manifest.version) == ("knowledge", 9)


def test_a_model_without_vectors_and_an_answer_that_is_too_long_are_refused(policy):
    with pytest.raises(SetupError, match="knowledge needs vectors of texts, and model fake 0 gives none"):
        Process(policy, [], served=FakeModel(TASKS), knowledge=str(policy.parent / "faq.yaml"))
    (policy.parent / "faq.yaml").write_text(f"entries:\n- {{question: a, answer: {'b' * 1999}}}\n")
    agent = Dialogue(policy)
    agent.options = agent.options.model_copy(update={"knowledge": policy.parent / "faq.yaml"})
    with pytest.raises(SetupError, match="the answer to 'a' is longer than a reply with the greeting may be"):
        agent.configure(Settings())

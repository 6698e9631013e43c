"""The agent whose model words replies: what it sends, what it writes down first, and when the template goes out instead."""

import asyncio
from asyncio import CancelledError
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dialogue_words
import pytest
from dialogue_process import HANDOFFS, REPLIES, STATE, Log, content, turn
from dialogue_words import ASKED, DONE, MODEL_TASKS, POLICY, SIZES, begin, served, write_policy

from murmura.agents.dialogue import Dialogue
from murmura.runtime.agent.prediction import Prediction
from murmura.runtime.errors import Closed, DeviceFailed, Late, ModelFailed, SetupError
from murmura.runtime.generation.facts import is_fact_piece
from murmura.runtime.model.generated import Generated
from murmura.runtime.testing.fakes import FakeModel
from murmura.runtime.testing.rehearsal import rehearse
from murmura.schemas.dialogue import ConversationState
from murmura.schemas.manifest import Thresholds
from murmura.schemas.release import GeneratedReplies
from murmura.schemas.review import Review


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return write_policy(tmp_path)


async def test_the_model_words_replies_with_values_put_in_and_the_state_is_written_first(policy):
    process = await begin(policy, ASKED, DONE)
    asked = await process.hear(turn(1, "send money"))
    assert [(message.topic, message.first) for message in asked] == [(STATE, True), (REPLIES, False)]
    assert (asked[1].value["text"], asked[1].value["wording"]) == (ASKED, "generated")
    state, reply, action = await process.hear(turn(2, "£20"))
    assert reply.value["text"] == "Your £20 is there in five working days."
    assert ConversationState.model_validate_json(state.value).turns[-1].reply == reply.value["text"]
    assert (action.value, [message.first for message in (state, reply, action)]) == (
        {"amount": "£20"},
        [True, False, False],
    )
    assert process.words.asked == [
        (["send money"], ["request"], set(), is_fact_piece),
        (["send money", ASKED, "£20"], ["notify_success", "inform", "inform"], {"soon", "amount"}, is_fact_piece),
    ]
    assert process.counted("murmura_reply_wordings_total", agent="dialogue", wording="generated", reason="none") == 2


async def test_a_text_without_generate_is_sent_as_it_is(policy):
    process = await begin(policy)
    state, reply = await process.hear(turn(1, "angry now"))
    assert (state.first, reply.value["text"], reply.value["wording_reason"]) == (True, "We are sorry.", None)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Your {amount} is there.", "missing_slot"),
        ("Your {amount} is there in {soon}, on Monday.", "fact"),
        ("Your {amount}, you idiots: {soon}.", "stop_word"),
        ("Your {amount}, what an insult: {soon}.", "filtered"),
        (Late("too late"), "late"),
        (ModelFailed("broken"), "failed"),
        (RuntimeError("a session of onnxruntime"), "failed"),
        (KeyError("a bug"), "failed"),
        (TimeoutError("a socket, long before the deadline"), "failed"),
    ],
)
async def test_the_template_is_sent_with_the_reason_where_the_model_words_nothing_to_send(policy, said, reason):
    process = await begin(policy, ASKED, said)
    await process.hear(turn(1, "send money"))
    state, reply, action = await process.hear(turn(2, "£20"))
    assert (reply.value["text"], reply.value["wording"]) == ("£20 arrives in five working days.", "template")
    assert (reply.value["wording_reason"], action.topic) == (reason, "bank.transfers")
    stopped = ConversationState.model_validate_json(state.value).stopped
    assert (stopped is not None) == (reason in {"stop_word", "filtered"})
    assert stopped is None or (stopped.reason, stopped.text[:9]) == ("insult", "Your £20,")
    assert process.counted("murmura_reply_wordings_total", agent="dialogue", wording="template", reason=reason) == 1


async def test_a_reply_says_where_the_model_did_not_read_the_whole_turn(policy):
    log: Log = []
    process = await begin(policy, ASKED, ASKED, log=log)
    long = turn(1, "send " + "please " * 1500)
    state, reply = await process.hear(long)
    assert (reply.value["truncated"], reply.value["text"]) == (True, ASKED)
    assert ConversationState.model_validate_json(state.value).truncated
    assert content(await (await begin(policy, log=log)).hear(long)) == content([state, reply])
    *_, after = await process.hear(turn(2, "angry now"))
    assert after.value["truncated"] is False
    process.words.truncated = process.words.cut = True  # the turn is read whole alone, and cut behind its acts
    *_, worded = await process.hear(turn(3, "send money", key=b"c-2"))
    assert (worded.value["truncated"], worded.value["wording"]) == (True, "generated")


async def test_a_turn_that_is_read_whole_without_the_oldest_before_it_is_not_truncated(policy):
    process = await begin(policy, ASKED)
    process.words.truncated = True
    _, worded = await process.hear(turn(1, "send money"))
    assert (worded.value["truncated"], worded.value["wording"]) == (False, "generated")


async def test_a_low_score_is_below_the_policys(policy):
    process = await begin(policy, ASKED, score=0.49)
    _, reply = await process.hear(turn(1, "send money"))
    assert reply.value["wording_reason"] == "low_score"


async def test_a_reply_that_a_new_version_may_have_worded_passes_its_threshold_too(policy):
    policy.write_text(POLICY.replace("min_reply_score: 0.5\n", ""))
    strict = MODEL_TASKS[-1].model_copy(update={"thresholds": Thresholds(accept=0.95)})
    process = await begin(policy, ASKED)
    generate = process.engine.generate

    async def swaps(*asked, **options) -> Generated:
        process.engine.model = FakeModel([*MODEL_TASKS[:-1], strict], served, version=2)
        return await generate(*asked, **options)

    process.engine.generate = swaps
    _, reply = await process.hear(turn(1, "send money"))
    assert (reply.value["wording"], reply.value["wording_reason"]) == ("template", "low_score")


async def test_people_are_asked_about_low_scores_and_what_was_stopped_within_a_budget(policy):
    process = await begin(policy, ASKED, score=0.4, reviews={"per_minute": 12})
    *_, review = await process.hear(turn(1, "send money", id="t-1"))
    assert (review.topic, review.best_effort, review.first) == ("murmura.reviews", True, False)
    read = Review.model_validate(review.value)
    assert (read.why, read.task, read.score, read.agent, read.predicted) == (
        "low_score",
        "reply",
        0.4,
        "dialogue",
        None,
    )
    *_, reply, review = await process.hear(turn(2, "you idiot"))
    read = Review.model_validate(review.value)
    assert (read.why, read.task, read.predicted, read.prediction_id) == (
        "filtered",
        "harm",
        "insult",
        reply.value["prediction_id"],
    )
    assert [message.topic for message in await process.hear(turn(3, "you idiot"))] == [STATE, REPLIES, HANDOFFS]
    labels = {"agent": "dialogue", "task": "reply", "why": "low_score"}
    assert process.counted("murmura_reviews_total", **labels) == 1


async def test_people_are_asked_about_a_reply_whose_state_lost_its_oldest_turns(policy, monkeypatch):
    process = await begin(policy, ASKED, ASKED, score=0.4, reviews={"per_minute": 12})
    await process.hear(turn(1, "send money"))
    monkeypatch.setattr("murmura.agents.dialogue.turn.changed_steps.STATE_BYTES", 1200)
    state, _, review = await process.hear(turn(2, "send money, " + "please " * 60))
    assert [each.text[:20] for each in ConversationState.model_validate_json(state.value).turns] == [
        "send money, please p"
    ]
    assert (review.value["why"], review.value["score"]) == ("low_score", 0.4)


async def test_a_filter_that_does_not_answer_in_time_means_template(policy):
    process = await begin(policy, ASKED, generate_within_s=0.01)
    predict = process.engine.predict

    async def hangs(text, tasks):
        if tasks == ("harm",):
            await asyncio.Event().wait()
        return await predict(text, tasks)

    process.engine.predict = hangs
    _, reply = await process.hear(turn(1, "send money"))
    assert reply.value["wording_reason"] == "late"


@pytest.mark.parametrize(
    ("room", "said", "text", "reason"),
    [
        (1000, ASKED, ASKED, None),
        (1000, "Your insult?", "How much?", "filtered"),
        (10, ASKED, "How much?", "too_long"),
        (10, "Your insult?", "How much?", "too_long"),
    ],
)
async def test_the_filter_reads_all_words_of_the_model_or_they_are_not_sent(policy, room, said, text, reason):
    greeting = ("Hello. " * 142).strip()
    policy.write_text(f"greeting: {greeting}\n" + POLICY)
    process = await begin(policy, said)
    predict = process.engine.predict

    async def cuts(text, tasks, **options):
        found = await predict(text[:room], tasks, **options)
        return Prediction(found.outputs, len(text) > room, found.model)

    process.engine.predict = cuts
    _, reply = await process.hear(turn(1, "send money"))
    assert (reply.value["text"], reply.value["wording_reason"]) == (f"{greeting} {text}", reason)


@pytest.mark.parametrize("broken", ["predict", "find_harm", "choose_wording", "mask_turns"])
async def test_whatever_fails_after_the_model_is_asked_means_template_and_is_counted(policy, monkeypatch, broken):
    process = await begin(policy, ASKED)
    predict = process.engine.predict

    def fails(*asked):
        raise TimeoutError(f"{broken} is broken")  # long before the deadline

    async def filters(text, tasks):
        return await predict(text, tasks) if tasks != ("harm",) else fails()

    if broken == "predict":
        process.engine.predict = filters
    elif broken == "choose_wording":
        process.agent._answers._writer._find_net = fails
    else:
        monkeypatch.setattr(f"murmura.agents.dialogue.replies.{broken}", fails)
    _, reply = await process.hear(turn(1, "send money"))
    assert (reply.value["text"], reply.value["wording_reason"]) == ("How much?", "failed")
    part = "filter" if broken in {"predict", "find_harm"} else "reply"
    assert process.counted("murmura_failed_parts_total", agent="dialogue", part=part) == 1


@pytest.mark.parametrize(
    ("raised", "seen"),
    [(Closed("stopped"), Closed), (DeviceFailed("lost", lost=True), Closed), (CancelledError(), CancelledError)],
)
async def test_a_process_that_stops_says_nothing(policy, raised, seen):
    process = await begin(policy, raised)
    with pytest.raises(seen):
        await process.hear(turn(1, "send money"))


async def test_generated_replies_that_are_off_are_not_asked_for(policy):
    process = await begin(policy, generated_replies_off="all")
    _, reply = await process.hear(turn(1, "send money"))
    assert (reply.value["text"], reply.value["wording_reason"]) == ("How much?", "switched_off")
    off = GeneratedReplies(off=["transfer"])
    process = await begin(policy, released=lambda: off)
    _, reply = await process.hear(turn(1, "send money"))
    assert (reply.value["wording_reason"], process.words.asked) == ("switched_off", [])


async def test_an_intent_that_the_policy_lacks_cannot_be_off(policy):
    with pytest.raises(SetupError, match=r"generated_replies_off: policy .* has no intent 'transfers'; expected `all`"):
        await begin(policy, generated_replies_off=["complaint", "transfers"])


async def test_a_harmful_turn_gets_the_template_or_a_person(policy):
    process = await begin(policy)
    state, reply = await process.hear(turn(1, "send money, you  idiot"))
    assert (reply.value["text"], reply.value["wording_reason"]) == ("How much?", "stop_word")
    read = ConversationState.model_validate_json(state.value)
    assert (read.stopped.text, read.stopped.reason) == ("send money, you  idiot", "insult")
    state, reply, handed = await process.hear(turn(2, "£20 or a threat"))
    assert (reply.value["kind"], handed.topic, handed.value["reason"]) == ("handed_over", HANDOFFS, "filtered")
    assert ConversationState.model_validate_json(state.value).stopped.reason == "threat"


async def test_others_go_on_while_a_long_turn_is_looked_at(policy):
    process = await begin(policy)
    looking, went_on = asyncio.create_task(process.hear(turn(1, "send " + "you " * 25_000 + "idiot"))), 0
    while not looking.done():
        await asyncio.sleep(0)
        went_on += 1
    state, _ = looking.result()
    assert ConversationState.model_validate_json(state.value).stopped.reason == "insult"
    assert went_on > 12


async def test_the_time_of_a_turn_stands_still_while_it_waits_for_others(policy):
    process, log = await begin(policy, max_conversations=1), []

    @contextmanager
    def untimed():
        log.append("waits")
        yield
        log.append("goes on")

    async def hear(offset: int, text: str, key: bytes) -> list[str]:
        log.clear()
        hearing = asyncio.create_task(process.hear(turn(offset, text, key=key)))
        for _ in range(9):
            await asyncio.sleep(0)
        waits = [*log]
        ends()
        await hearing
        return [*waits, *log[len(waits) :]]

    await process.hear(turn(1, "angry now"))
    other = turn(2, "angry now", key=b"c-2")
    await process.hear(other, acknowledged=False)  # its tombstone of c-1 is on its way
    process.engine.untimed, ends = untimed, lambda: process.agent.finished(other)
    assert await hear(3, "angry now", b"c-1") == ["waits", "goes on"]
    looking = process.agent._answers._looking
    await looking.acquire()
    ends = looking.release
    assert await hear(4, "angry " * 1_500, b"c-3") == ["waits", "goes on", "waits", "goes on"]


@pytest.mark.parametrize("said", ["an insult and a threat", "you idiot, this is a threat"])
async def test_of_several_labels_of_a_turn_one_that_goes_to_a_person_counts(policy, said):
    process = await begin(policy)
    state, _, handed = await process.hear(turn(1, said))
    assert handed.value["reason"] == "filtered"
    assert ConversationState.model_validate_json(state.value).stopped.reason == "threat"


async def test_a_model_that_masks_values_reads_slots_for_them(policy, monkeypatch):
    masking = MODEL_TASKS[-1].model_copy(update={"generation": SIZES.model_copy(update={"mask_values": True})})
    monkeypatch.setattr(dialogue_words, "MODEL_TASKS", [*MODEL_TASKS[:-1], masking])
    process = await begin(policy, ASKED, DONE)
    await process.hear(turn(1, "send money"))
    _, reply, *_ = await process.hear(turn(2, "£20"))
    assert reply.value["text"] == "Your £20 is there in five working days."
    assert [texts for texts, *_ in process.words.asked] == [["send money"], ["send money", ASKED, "{amount}"]]


async def test_a_turn_delivered_again_gets_the_words_that_were_written_down(policy):
    log: Log = []
    first = await begin(policy, ASKED, log=log)
    published = await first.hear(turn(1, "send money"))
    second = await begin(policy, "Something else?", log=log)
    again = await second.hear(turn(1, "send money"))
    assert content(again) == content(published)
    assert second.words.asked == []


async def test_replies_are_worded_through_the_serving_path_too(policy):
    said = [("c-1", {"text": "send money"}), ("c-1", {"text": "£9"})]
    reply = {"kind": "generation", "text": DONE, "score": 0.9, "finish": "end"}

    def words(given: Any) -> dict[str, Any]:
        return served(given) if isinstance(given, str) else {"reply": reply}

    went = await rehearse([Dialogue(policy)], *said, model=FakeModel(MODEL_TASKS, words))
    assert [(each["text"], each["wording_reason"]) for each in went.values(REPLIES)] == [
        ("How much?", "unknown_slot"),
        ("Your £9 is there in five working days.", None),
    ]
    topics = [message.topic for message in went.published if message.topic in {STATE, REPLIES}]
    assert topics == [STATE, REPLIES] * 2

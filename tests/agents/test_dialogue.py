"""The dialogue agent without a broker: what it publishes for a turn, and what a crash in between changes (nothing)."""

import json
from pathlib import Path

import pytest
from aiokafka.structs import ConsumerRecord
from dialogue_process import HANDOFFS, POLICY, REPLIES, STATE, TASKS, TURNS, Log, Process, content, keep, model, turn

from murmura.agents.dialogue import Dialogue
from murmura.runtime.agent.handler import Context
from murmura.runtime.agent.routes import configure_agents
from murmura.runtime.errors import Closed, RecordError, SetupError
from murmura.runtime.observe.metrics import Metrics
from murmura.runtime.settings.settings import Settings
from murmura.runtime.testing.fakes import FakeEngine, FakeModel, classified
from murmura.runtime.testing.rehearsal import rehearse
from murmura.schemas.dialogue import ConversationState, HandOver, Reply
from murmura.schemas.manifest import TaskSpec, Thresholds


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


async def test_a_turn_gives_a_state_on_its_own_partition_and_a_reply_that_names_it(policy):
    process = await Process(policy, []).begin()
    published = await process.hear(turn(7, "send money", id="t-1", metadata={"channel": "web"}))
    state, reply = published
    assert (state.topic, state.key, state.partition) == (STATE, "c-1", 2)
    assert ConversationState.model_validate_json(state.value).asked == "amount"
    read = Reply.model_validate(reply.value)
    assert (read.kind, read.text, read.request_id, read.number) == ("asked", "Hello. How much?", "t-1", 1)
    assert (read.metadata, read.source.offset, read.model.name) == ({"channel": "web"}, 7, "fake")
    headers = dict(reply.headers)
    assert headers["ce_id"] == read.prediction_id.encode()
    assert (headers["ce_type"], headers["ce_subject"]) == (b"murmura.dialogue.reply.v1", b"t-1")
    assert headers["murmura_request_id"] == headers["murmura_cause"] == b"t-1"


async def test_an_action_goes_to_its_topic_under_the_conversations_id(policy):
    process = await Process(policy, []).begin()
    await process.hear(turn(1, "send money"))
    _, reply, action = await process.hear(turn(2, "£20", id="t-2"))
    assert reply.value["text"] == "£20 is on its way."
    assert (action.topic, action.key) == ("bank.transfers", "c-1")
    assert action.value == {"amount": "£20", "conversation": "c-1", "request": "t-2"}
    assert dict(action.headers)["ce_id"] == f"{reply.value['prediction_id']}/0".encode()


async def test_a_hand_over_carries_the_conversation(policy):
    process = await Process(policy, []).begin()
    await process.hear(turn(1, "send money"))
    _, reply, handed = await process.hear(turn(2, "angry now"))
    assert reply.value["kind"] == "handed_over"
    read = HandOver.model_validate(handed.value)
    assert (handed.topic, read.reason, [one.text for one in read.turns]) == (
        HANDOFFS,
        "policy",
        ["send money", "angry now"],
    )
    assert process.counted("murmura_turns_total", agent="dialogue", kind="handed_over") == 1


TALK = [turn(1, "send money"), turn(2, "£20"), turn(3, "hm"), turn(4, "angry now"), turn(5, "hello?")]


@pytest.mark.parametrize("crash", range(len(TALK)))
@pytest.mark.parametrize("state_written", [False, True])
async def test_a_crash_in_mid_turn_changes_neither_replies_nor_states(policy, crash, state_written):
    """The messages of a turn are sent together; any part of them may have been written when the process dies."""
    whole: Log = []
    undisturbed = await Process(policy, whole).begin()
    expected = [await undisturbed.hear(record) for record in TALK]
    log: Log = []
    first = await Process(policy, log).begin()
    for record in TALK[:crash]:
        await first.hear(record)
    lost = await first.hear(TALK[crash], acknowledged=False)
    assert content(lost) == content(expected[crash])
    if state_written:
        keep(log, lost)
    second = await Process(policy, log).begin()
    again = [await second.hear(record) for record in TALK[crash:]]
    assert [content(published) for published in again] == [content(published) for published in expected[crash:]]
    assert log[-1] == whole[-1]
    repeated = second.counted("murmura_turns_total", agent="dialogue", kind="repeated")
    assert repeated == state_written


async def test_the_last_turn_delivered_again_gets_the_same_and_older_ones_nothing(policy):
    log: Log = []
    process = await Process(policy, log).begin()
    published = [await process.hear(record) for record in TALK]
    taken_over = await Process(policy, log).begin()
    for record in TALK[:-1]:
        assert await taken_over.hear(record) == []
    assert content(await taken_over.hear(TALK[-1])) == content(published[-1])
    assert taken_over.counted("murmura_turns_total", agent="dialogue", kind="skipped") == len(TALK) - 1


async def test_a_turn_sent_twice_with_one_id_is_answered_once(policy):
    process = await Process(policy, []).begin()
    first = await process.hear(turn(1, "send money", id="t-1"))
    second = await process.hear(turn(2, "send money", id="t-1"))
    assert [m.value for m in second] == [m.value for m in first]
    await process.hear(turn(3, "£5", id="t-2"))
    assert await process.hear(turn(4, "send money", id="t-1")) == []


async def test_a_state_that_cannot_be_read_starts_its_conversation_anew_and_no_other(policy):
    log: Log = []
    process = await Process(policy, log).begin()
    for key in (b"a", b"b", b"c"):
        await process.hear(turn(1, "send money", key=key))
    peeked = json.dumps({"number": 8, "source": {"timestamp": 5}}).encode()
    log += [(2, b"a", b"{broken"), (2, b"b", peeked)]
    second = await Process(policy, log).begin()
    replies = [(await second.hear(turn(2, "£5", key=key)))[1].value for key in (b"a", b"b", b"c")]
    assert [(reply["kind"], reply["number"]) for reply in replies] == [("greeted", 1), ("greeted", 9), ("answered", 2)]
    assert second.counted("murmura_unreadable_states_total") == 2
    third = await Process(policy, log).begin()
    assert (await third.hear(turn(3, "send money", key=b"b")))[1].value["number"] == 10


async def test_a_turn_whose_partition_is_taken_away_meanwhile_publishes_nothing(policy):
    process = await Process(policy, []).begin()
    predict = process.engine.predict

    async def taken_away(*arguments, **more):
        process.agent.revoked()
        return await predict(*arguments, **more)

    process.engine.predict = taken_away
    with pytest.raises(Closed):
        await process.hear(turn(1, "send money"))
    assert process.log == []


async def test_only_what_was_assigned_is_known_and_what_was_revoked_is_forgotten(policy):
    log: Log = []
    process = await Process(policy, log).begin(1, 2)
    await process.hear(turn(1, "send money", partition=1))
    await process.hear(turn(1, "send money", partition=2))
    assert process.counted("murmura_conversations") == 2
    other = await Process(policy, log).begin(1)
    assert other.counted("murmura_conversations") == 1
    process.agent.revoked()
    assert process.counted("murmura_conversations") == 0


async def test_a_conversation_that_expired_or_is_one_too_many_gets_a_tombstone(policy):
    log: Log = []
    process = await Process(policy, log, max_conversations=2).begin()
    for key in (b"a", b"b", b"c"):
        published = await process.hear(turn(1, "send money", key=key))
    gone = published[-1]
    assert (gone.topic, gone.key, gone.value, gone.partition) == (STATE, b"a", None, 2)
    assert process.counted("murmura_conversations") == 2
    assert (await process.hear(turn(2, "£5", key=b"a")))[1].value["kind"] == "greeted"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (turn(1, "hello", key=None), "invalid"),
        (turn(1, "hello", key=b""), "invalid"),
        (turn(1, "hello", key=b"\xff"), "invalid"),
        (turn(1, "hello", key=b"x" * 257), "invalid"),
        (turn(1, " "), "invalid"),
        (turn(1, "break"), "model_failed"),
        (ConsumerRecord(TURNS, 2, 1, 1, 0, b"c", None, None, 1, -1, ()), "no_value"),
        (ConsumerRecord(TURNS, 2, 1, 1, 0, b"c", b"hello", None, 1, -1, ()), "not_json"),
    ],
)
async def test_what_is_no_turn_is_refused_with_its_reason_and_the_conversation_goes_on(policy, record, reason):
    process = await Process(policy, []).begin()
    with pytest.raises(RecordError) as caught:
        await process.hear(record)
    assert caught.value.reason == reason
    published = await process.hear(turn(2, "send money", key=record.key if record.key == b"c-1" else b"c"))
    assert published[1].value["number"] == 1


async def test_turns_go_through_the_serving_path_too(policy):
    said = [("c-1", {"text": "send money"}), ("c-2", {"text": "angry"}), ("c-1", {"text": "£9"}), {"text": "nobody"}]
    went = await rehearse([Dialogue(policy)], *said, model=model())
    assert sorted((r["conversation"], r["number"], r["kind"]) for r in went.values(REPLIES)) == [
        ("c-1", 1, "asked"),
        ("c-1", 2, "answered"),
        ("c-2", 1, "handed_over"),
    ]
    assert [value["amount"] for value in went.values("bank.transfers")] == ["£9"]
    assert len(went.values(HANDOFFS)) == 1
    assert [dict(letter.headers)["murmura_dl_reason"] for letter in went.dead_letters] == [b"invalid"]


def test_a_set_up_that_cannot_work_is_refused_at_start(policy, tmp_path):
    agent = Dialogue()
    with pytest.raises(SetupError, match="has no policy"):
        agent.configure(Settings())
    agent = Dialogue(policy)
    agent.topics = ("a", "b")
    with pytest.raises(SetupError, match="one topic only"):
        agent.configure(Settings())
    agent = Dialogue()
    configure_agents(Settings(agents={"dialogue": {"options": {"policy": policy, "state": "my.state"}}}), [agent])
    assert agent.tasks == ("intent", "entities")
    assert agent.outputs == (REPLIES, "my.state", HANDOFFS, "bank.transfers")
    assert agent.changelogs == ("my.state",)
    context = Context(Settings(), Metrics(), FakeEngine(model()), (), {TURNS: 12, "my.state": 3})
    with pytest.raises(SetupError, match=r"12 partitions and its changelog my\.state 3"):
        agent.started(context)
    other = [TaskSpec(name="intent", kind="classification", labels=["x", "y"]), TASKS[1]]
    context = Context(Settings(), Metrics(), FakeEngine(FakeModel(other)), ())
    with pytest.raises(SetupError, match=r"policy\.yaml:4: intents\.transfer: not a label of task intent"):
        agent.started(context)


@pytest.mark.parametrize(
    ("written", "accept", "score", "kind"),
    [
        ("", None, 0.29, "not_understood"),
        ("", None, 0.3, "answered"),
        ("", 0.15, 0.15, "answered"),
        ("min_score: 0.6\n", 0.15, 0.59, "not_understood"),
        ("min_score: 0.2\n", None, 0.2, "answered"),
        ("", None, 0.09, "handed_over"),
        ("min_score: 0\n", None, 0.02, "handed_over"),
        ("handover: {below: 0.7}\n", None, 0.69, "handed_over"),
        ("min_score: 0\nhandover: {below: 0}\n", None, 0.02, "answered"),
    ],
)
async def test_a_first_turn_is_answered_from_the_least_score_of_the_policy_the_model_or_the_default(
    tmp_path, written, accept, score, kind
):
    path = tmp_path / "policy.yaml"
    path.write_text("intents: {complaint: {reply: Ok., action: {topic: t.x}}}\nentity_task: null\n" + written)
    agent, engine = _start(path, _scored(score, accept))
    _, reply, *further = await agent.handle(turn(1, "I am angry"), engine)
    assert reply.value["kind"] == kind
    assert [message.topic for message in further] == {"answered": ["t.x"], "handed_over": [HANDOFFS]}.get(kind, [])


async def test_after_a_release_the_accept_threshold_of_the_new_version_holds(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text("intents: {complaint: {reply: Ok.}}\nentity_task: null\n")
    agent, engine = _start(path, _scored(0.2, 0.1))
    _, before = await agent.handle(turn(1, "I am angry"), engine)
    released = _scored(0.2, None)
    released.manifest = released.manifest.model_copy(update={"version": 2})
    agent.check(released.manifest)
    engine.swap(released)
    _, after = await agent.handle(turn(2, "I am angry", key=b"c-2"), engine)
    assert (before.value["kind"], after.value["kind"]) == ("answered", "not_understood")


def _scored(score: float, accept: float | None) -> FakeModel:
    """Return a model that answers every text with one intent at this score."""
    task = TASKS[0].model_copy(update={"thresholds": Thresholds(accept=accept)})
    return FakeModel([task], lambda text: {"intent": classified("complaint", score)})


def _start(policy: Path, model: FakeModel) -> tuple[Dialogue, FakeEngine]:
    agent, engine, settings = Dialogue(policy), FakeEngine(model), Settings()
    configure_agents(settings, [agent])
    agent.started(Context(settings, Metrics(), engine, ("dialogue",), {TURNS: 4, STATE: 4}))
    return agent, engine

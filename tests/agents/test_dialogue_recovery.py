"""What the dialogue agent makes of a changelog out of order, of clocks that differ, and of turns that cannot be finished."""

import asyncio
import json
from pathlib import Path

import pytest
from aiokafka.structs import TopicPartition
from dialogue_process import POLICY, REPLIES, STATE, TASKS, TURNS, Log, Process, content, model, turn
from test_dispatcher import DEAD, Broker

from murmura.agents.dialogue import Dialogue
from murmura.runtime.agent.routes import configure_agents
from murmura.runtime.errors import Closed, MurmuraError, RecordError, SetupError
from murmura.runtime.flow.dispatcher import Dispatcher
from murmura.runtime.kafka.offset_tracker import Tracker
from murmura.runtime.settings.settings import Settings
from murmura.runtime.testing.fakes import FakeModel
from murmura.schemas.dialogue import STATE_BYTES, ConversationState
from murmura.schemas.manifest import TaskSpec


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


def last(log: Log, key: bytes = b"c-1") -> int:
    value = [value for _, name, value in log if name == key][-1]
    return json.loads(value)["number"]


async def test_a_state_that_a_zombie_wrote_late_is_followed_by_the_newest_again(policy):
    log: Log = []
    process = await Process(policy, log).begin()
    for offset in range(1, 4):
        await process.hear(turn(offset, "send money"))
        await process.hear(turn(offset, "send money", key=b"c-2"))
    log += log[:1]  # number 1 again
    second = await Process(policy, log).begin()
    (again,) = second.written_again
    assert (again.topic, again.key, again.partition, again.essential) == (STATE, b"c-1", 2, True)
    assert (last(log), last(log, b"c-2")) == (3, 3)
    assert (await Process(policy, log).begin()).written_again == []
    assert (await second.hear(turn(4, "£5")))[1].value["number"] == 4


async def test_a_log_out_of_order_does_not_lose_the_conversation_to_compaction(policy):
    log: Log = []
    process = await Process(policy, log).begin()
    for offset in range(1, 4):
        await process.hear(turn(offset, "send money"))
    log += log[:1]
    await Process(policy, log).begin()
    compacted = log[-1:]
    third = await Process(policy, compacted).begin()
    assert (await third.hear(turn(4, "£5")))[1].value["number"] == 4


async def test_an_older_turn_is_known_again_when_later_ones_have_earlier_times(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY + "remember_turns: 1\n")
    log: Log = []
    first = await Process(path, log).begin()
    turns = [turn(5, "send money", at=2000), turn(6, "£20", at=1500), turn(7, "hm", at=1200)]
    said = [await first.hear(record) for record in turns]
    second = await Process(path, log).begin()
    again = [await second.hear(record) for record in turns]
    assert [content(published) for published in again] == [[], [], content(said[-1])]
    assert last(log) == 3


async def test_a_topic_that_was_made_anew_goes_on_with_the_conversation(policy):
    log: Log = []
    first = await Process(policy, log).begin()
    await first.hear(turn(500, "send money", at=2000))
    second = await Process(policy, log).begin()
    reply = (await second.hear(turn(0, "£20", at=3000)))[1].value
    assert (reply["number"], reply["kind"]) == (2, "answered")
    assert (await Process(policy, log).begin()).written_again == []


async def test_a_state_from_before_the_newest_time_was_kept_is_read(policy):
    log: Log = []
    first = await Process(policy, log).begin()
    await first.hear(turn(5, "send money", at=2000))
    partition, key, value = log[-1]
    old = json.loads(value)
    del old["newest"]
    log[-1] = partition, key, json.dumps(old).encode()
    second = await Process(policy, log).begin()
    assert await second.hear(turn(4, "hm", at=1000)) == []
    assert (await second.hear(turn(6, "£20", at=3000)))[1].value["number"] == 2


LONG = POLICY + "remember_turns: 50\n"


async def test_a_state_stays_small_enough_for_its_topic_by_letting_the_oldest_turns_go(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(LONG + f'default: "{"x" * 900}"\nhandover: {{after: 100, below: 0}}\n'.replace("x", "\\u0001"))
    process = await Process(path, []).begin()
    for offset in range(1, 61):
        state, reply = await process.hear(turn(offset, "\x01" * 1000))
        assert len(state.value) <= STATE_BYTES
        assert reply.value["number"] == offset
    kept = ConversationState.model_validate_json(state.value).turns
    assert 20 < len(kept) < 50
    assert content(await process.hear(turn(60, "\x01" * 1000))) == content([state, reply])


async def test_a_turn_whose_actions_fit_into_no_state_is_refused_and_the_conversation_goes_on(tmp_path):
    path = tmp_path / "policy.yaml"
    fields = ", ".join(f'f{n}: "{{text}}"' for n in range(30))
    path.write_text(f"intents:\n  transfer:\n    reply: ok\n    action: {{topic: t, fields: {{{fields}}}}}\n")
    process = await Process(path, []).begin()
    with pytest.raises(RecordError, match="its actions are too large") as caught:
        await process.hear(turn(1, "send " + "\x01" * 4000))
    assert caught.value.reason == "too_large"
    _, reply, action = await process.hear(turn(2, "send it"))
    assert (reply.value["number"], action.value["f0"]) == (1, "send it")


async def test_a_state_that_its_topic_refuses_ends_the_process_and_its_turn_is_not_finished(policy):
    process, broker, tracker = Process(policy, []), Broker(), Tracker()
    dispatcher = Dispatcher(
        process.engine,
        broker,
        tracker,
        process.metrics,
        routes={},
        dead_letters=DEAD,
        max_value_bytes=10**6,
        handlers=[process.agent],
    )
    mine = TopicPartition(TURNS, 2)
    broker.refuses.add(STATE)
    await dispatcher.assign([mine])
    dispatcher.receive({mine: [turn(1, "send money"), turn(2, "£20")]})
    with pytest.raises(MurmuraError, match=r"larger than murmura\.dialogue\.state allows.*max\.message\.bytes"):
        await dispatcher.outbox.failure
    async with asyncio.timeout(60):
        while not broker.taken:
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)
    assert [message.topic for message in broker.taken] == [REPLIES]
    assert tracker.progress(mine).committable in {None, 1}


async def test_a_turn_that_was_given_up_leaves_its_conversation_and_those_it_ended_to_the_next_assignment(policy):
    log: Log = []
    process = await Process(policy, log, max_conversations=1).begin()
    await process.hear(turn(1, "send money", key=b"a"))
    record = turn(2, "send money", key=b"b")
    await process.hear(record, acknowledged=False)  # ends conversation a
    waiting = asyncio.create_task(process.hear(turn(3, "£5", key=b"a")))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    process.agent.given_up(record)
    with pytest.raises(Closed):
        await waiting
    with pytest.raises(Closed):
        await process.hear(turn(4, "£5", key=b"b"))
    assert (await process.hear(turn(5, "send money", key=b"c")))[1].value["number"] == 1
    await process.begin()
    assert (await process.hear(turn(3, "£5", key=b"a")))[1].value["number"] == 2


async def test_what_a_turn_cannot_do_without_is_marked(policy):
    process = await Process(policy, [], max_conversations=1).begin()
    await process.hear(turn(1, "send money", key=b"a"))
    published = await process.hear(turn(2, "send money", key=b"b"))
    assert [(m.topic, m.essential) for m in published] == [(STATE, True), (REPLIES, False), (STATE, True)]


@pytest.mark.parametrize(
    ("topic", "what"),
    [(STATE, "states"), (TURNS, "turns"), (REPLIES, "replies"), ("people", "hand-overs")],
)
def test_an_action_to_one_of_the_agents_own_topics_is_refused(tmp_path, topic, what):
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY.replace("bank.transfers", topic))
    with pytest.raises(
        SetupError, match=rf"policy\.yaml:9: intents\.transfer\.action: {topic} is the .*topic of {what}"
    ):
        configure_agents(Settings(agents={"dialogue": {"options": {"handoffs": "people"}}}), [Dialogue(path)])


@pytest.mark.parametrize(
    ("intents", "tags", "says"),
    [
        (["transfer"], ["O", "B-amount"], "intents.complaint: not a label of task intent"),
        (["transfer", "complaint"], ["O", "B-sum"], "no entity amount"),
    ],
)
def test_a_version_without_what_the_policy_needs_is_refused(policy, intents, tags, says):
    agent = Dialogue(policy)
    agent.configure(Settings())
    agent.check(model().manifest)
    intent = TASKS[0].model_copy(update={"labels": [*intents, "other"]})
    version = FakeModel([intent, TaskSpec(name="entities", kind="tagging", labels=tags)])
    with pytest.raises(SetupError, match=says):
        agent.check(version.manifest)

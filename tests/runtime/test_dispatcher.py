"""The way of a record through the process, with a scripted model and a publisher that can be told to refuse."""

import asyncio
import json
from dataclasses import replace

import pytest
from aiokafka.structs import ConsumerRecord, TopicPartition

from murmura.agents.analysis import agent as analysis
from murmura.agents.classification import agent as classification
from murmura.runtime.agent.agent import agent
from murmura.runtime.agent.routes import make_routes
from murmura.runtime.errors import Closed, DeviceFailed, MurmuraError, RecordTooLarge
from murmura.runtime.flow.dispatcher import Dispatcher
from murmura.runtime.kafka.offset_tracker import Tracker
from murmura.runtime.observe.metrics import Metrics
from murmura.runtime.output.dead_letter_gate import DeadLetterGate
from murmura.runtime.output.reviews import Reviews
from murmura.runtime.settings.routing_rules import Rule
from murmura.runtime.testing.fakes import FakeEngine, FakeModel
from murmura.runtime.wire.message import Publish
from murmura.schemas.manifest import TaskSpec, Thresholds

INTENT = TaskSpec(name="intent", kind="classification", labels=["refund", "praise"])
PLACES = TaskSpec(name="places", kind="tagging", labels=["O", "B-place", "I-place"])
DEAD = "murmura.deadletters"
PARTITION = TopicPartition("in", 0)


class Broker:
    """A publisher that keeps what it takes; topics in `refuses` take nothing of any size."""

    def __init__(self) -> None:
        self.taking = asyncio.Event()
        self.taking.set()
        self.gate = asyncio.Event()
        self.gate.set()
        self.taken: list = []
        self.refuses: set[str] = set()
        self.chokes_on: bytes | None = None
        """A value of a kind that the producer cannot send."""

    async def publish(self, messages):
        await self.gate.wait()
        assert not any(message.value == self.chokes_on for message in messages if message.value)
        self.taken += [message for message in messages if message.topic not in self.refuses]
        return [RecordTooLarge("no") if message.topic in self.refuses else None for message in messages]

    async def partitions(self, topic):
        return 0 if topic == "nowhere" else 3


class Line:
    """A dispatcher with everything around it."""

    def __init__(self, model: FakeModel, *agents, **options) -> None:
        self.model = model
        self.broker = Broker()
        self.tracker: Tracker[TopicPartition] = Tracker()
        self.metrics = Metrics()
        self.engine = FakeEngine(model)
        self.agents = agents or (replace(classification, topics=("in",), output="out"),)
        self.dispatcher = Dispatcher(
            self.engine,
            self.broker,
            self.tracker,
            self.metrics,
            routes=make_routes(self.agents, model.manifest, "test"),
            dead_letters=DEAD,
            max_value_bytes=1000,
            **options,
        )
        self.feeding = asyncio.create_task(self.dispatcher.run())
        self.offset = 0

    def receive(self, *texts: str | bytes) -> dict[TopicPartition, int | None]:
        values = [text if isinstance(text, bytes) else json.dumps({"text": text}).encode() for text in texts]
        records = [
            ConsumerRecord("in", 0, self.offset + i, 1000, 0, None, value, None, -1, len(value), ())
            for i, value in enumerate(values)
        ]
        self.offset += len(values)
        return self.dispatcher.receive({PARTITION: records})

    async def settle(self) -> None:
        async with asyncio.timeout(60):
            while self.dispatcher.has_work:
                await asyncio.sleep(0)

    @property
    def committable(self) -> int | None:
        return self.tracker.progress(PARTITION).committable

    def reasons(self) -> list[str]:
        return [dict(m.headers)["murmura_dl_reason"].decode() for m in self.broker.taken if m.topic == DEAD]


async def test_a_record_is_finished_when_its_result_is_acknowledged_and_not_before():
    line = Line(FakeModel([INTENT]))
    line.broker.gate.clear()
    line.receive("one", "two")
    await asyncio.sleep(0.05)
    assert line.committable == 0
    line.broker.gate.set()
    await line.settle()
    assert line.committable == 2


async def test_agents_that_read_the_same_record_share_one_forward_pass():
    model = FakeModel([INTENT, PLACES])
    line = Line(
        model, replace(classification, topics=("in",), output="out"), replace(analysis, topics=("in",), output="more")
    )
    line.receive("one", "two", "three")
    await line.settle()
    assert sum(len(batch) for batch in model.batches) == 3
    assert sorted(m.topic for m in line.broker.taken) == ["more"] * 3 + ["out"] * 3


async def test_a_tokenizer_that_fails_on_every_text_ends_the_process_and_finishes_no_record():
    line = Line(FakeModel([INTENT]))
    line.model.encode = None
    line.receive("one", "two")
    with pytest.raises(DeviceFailed, match="the tokenizer fails on a plain text too"):
        await asyncio.wait_for(line.feeding, 60)
    assert await line.dispatcher.drain(1)
    assert (line.broker.taken, line.committable) == ([], 0)


async def test_a_text_that_breaks_the_model_is_dead_lettered_alone():
    line = Line(FakeModel([INTENT], broken={"poison"}))
    line.receive("fine", "poison", "fine too")
    await line.settle()
    assert line.reasons() == ["model_failed"]
    assert sum(m.topic == "out" for m in line.broker.taken) == 2
    assert line.committable == 3


async def test_while_nothing_can_be_sent_nothing_is_admitted():
    model = FakeModel([INTENT])
    line = Line(model)
    line.broker.taking.clear()
    line.receive("one")
    await asyncio.sleep(0.05)
    assert model.batches == []
    line.broker.taking.set()
    await line.settle()
    assert len(line.broker.taken) == 1


async def test_a_full_partition_is_told_and_reopened_when_there_is_room():
    line = Line(FakeModel([INTENT]), queue_budgets=1.0)
    reopened: list[TopicPartition] = []
    line.dispatcher.on_reopened = reopened.extend
    assert line.receive(*(f"a longer text with number {n}" for n in range(40))) == {PARTITION: None}
    await line.settle()
    assert reopened == [PARTITION]
    assert line.committable == 40


async def test_drain_forgets_what_waits_and_finishes_what_is_under_way():
    line = Line(FakeModel([INTENT]))
    line.broker.gate.clear()
    line.receive("one")
    await asyncio.sleep(0.02)
    line.broker.taking.clear()
    line.receive("two")
    draining = asyncio.create_task(line.dispatcher.drain(5))
    await asyncio.sleep(0.02)
    assert not draining.done()
    line.broker.gate.set()
    assert await draining
    assert line.committable == 1


async def test_drain_gives_up_when_its_time_is_over():
    line = Line(FakeModel([INTENT]))
    line.broker.gate.clear()
    line.receive("one")
    await asyncio.sleep(0.02)
    assert not await line.dispatcher.drain(0.05)
    assert line.committable == 0


async def test_what_can_be_neither_answered_nor_dead_lettered_fails_the_process_and_is_not_committed():
    line = Line(FakeModel([INTENT]), gate=DeadLetterGate(DEAD, first_pause_s=0.05, give_up_s=0.3))
    line.broker.refuses = {"out", DEAD}
    line.receive("one")
    with pytest.raises(MurmuraError, match="takes no dead letters"):
        await asyncio.wait_for(line.dispatcher.outbox.failure, 60)
    assert line.committable == 0


async def test_another_models_tasks_apply_to_records_that_were_waiting():
    line = Line(FakeModel([INTENT], version=1))
    line.broker.taking.clear()
    line.receive("waiting", b'{"text": "a", "tasks": ["intent"]}')
    await asyncio.sleep(0.02)
    mood = TaskSpec(name="mood", kind="classification", labels=["good", "bad"])
    new = FakeModel([mood], version=2)
    line.engine.swap(new)
    line.dispatcher.reroute(make_routes(line.agents, new.manifest, "test"))
    line.broker.taking.set()
    await line.settle()
    results = [json.loads(m.value) for m in line.broker.taken if m.topic == "out"]
    assert [(r["model"]["version"], set(r["outputs"])) for r in results] == [(2, {"mood"})]
    assert line.reasons() == ["unknown_task"]
    assert line.committable == 2


async def test_agents_that_share_a_topic_may_not_differ_in_thresholds():
    one = replace(classification, topics=("in",), output="out", thresholds={"intent": Thresholds(accept=0.5)})
    two = replace(analysis, topics=("in",), output="more", thresholds={"intent": Thresholds(accept=0.6)})
    with pytest.raises(Exception, match="different thresholds for intent"):
        Line(FakeModel([INTENT]), one, two)


def deciding(decide, name="x", rules=()):
    """An agent that decides so about `bad`, and answers everything else."""

    def either(request, prediction):
        return decide(prediction) if request.text == "bad" else prediction.outputs

    return replace(agent(topics=["in"], tasks=["intent"], output="out", name=name)(either), routing=rules)


LABEL_RULE = Rule(agent="x", task="intent", label="refund", topic="t")
SCORE_RULE = Rule(agent="x", task="intent", score_below=0.5, topic="t")


@pytest.mark.parametrize(
    ("decide", "rules"),
    [
        (lambda p: {"intent": {"kind": "classification", "label": object(), "score": 1}}, ()),
        (lambda p: {"intent": {"label": "refund"}}, (LABEL_RULE,)),
        (lambda p: {"intent": {"kind": "classification", "label": "refund", "score": None}}, (SCORE_RULE,)),
        (lambda p: {"intent": "?"}, (LABEL_RULE,)),
        (lambda p: (p.outputs, p.outputs), ()),
        (lambda p: Publish("t", "a str"), ()),
        (lambda p: Publish("t", b"x", headers=(("a", "b"),)), ()),
        (lambda p: Publish("t", b"x", partition=-1), ()),
        (lambda p: Publish("t", b"x", partition=99), ()),
        (lambda p: Publish("t", b"choke"), ()),
        (lambda p: Publish("nowhere", b"x"), ()),
    ],
)
async def test_a_decision_that_nothing_can_be_made_of_is_the_dead_letter_of_its_agent_alone(decide, rules):
    line = Line(FakeModel([INTENT]), deciding(decide, rules=rules), deciding(lambda p: p.outputs, "y"))
    line.broker.chokes_on = b"choke"
    line.receive("one", "bad", "two", "three")
    await line.settle()
    assert line.reasons() == ["agent_failed"]
    assert {dict(m.headers)["murmura_dl_agent"] for m in line.broker.taken if m.topic == DEAD} == {b"x"}
    by = [json.loads(m.value)["agent"] for m in line.broker.taken if m.topic == "out"]
    assert (by.count("x"), by.count("y")) == (3, 4)
    assert line.committable == 4
    assert not line.dispatcher.outbox.failure.done()


async def test_a_model_that_leaves_a_task_out_harms_only_the_records_that_asked_for_it():
    other = TaskSpec(name="other", kind="classification", labels=["a", "b"])
    line = Line(FakeModel([INTENT, other]))
    line.engine.model.decode = lambda *args: [{"intent": {}} for _ in args[2]]
    line.receive("one")
    await line.settle()
    assert line.reasons() == ["model_failed"]
    assert line.committable == 1


async def test_an_agent_that_spoils_what_was_predicted_costs_a_review_and_no_answer():
    def spoil(request, prediction):
        prediction.outputs["intent"].pop("alternatives")
        return prediction.outputs

    reviews = Reviews("reviews", "test", per_minute=60, margin=1.0, band=0.1)
    spoiling = agent(topics=["in"], tasks=["intent"], output="out")(spoil)
    line = Line(FakeModel([INTENT]), spoiling, reviews=reviews)
    line.receive("one", "two")
    await line.settle()
    assert [m.topic for m in line.broker.taken] == ["out", "out"]
    assert line.committable == 2


async def test_no_review_is_asked_of_an_answer_that_is_not_published():
    reviews = Reviews("reviews", "test", per_minute=60, margin=1.0, band=0.1)
    line = Line(FakeModel([INTENT]), replace(deciding(lambda p: 1 / 0), output="out"), reviews=reviews)
    line.receive("bad")
    await line.settle()
    assert [m.topic for m in line.broker.taken] == [DEAD]


async def test_what_nobody_foresaw_ends_the_process_instead_of_waiting_without_end():
    line = Line(FakeModel([INTENT]))
    line.dispatcher.deliver([object()])
    with pytest.raises(AttributeError):
        await asyncio.wait_for(line.dispatcher.outbox.failure, 60)


async def test_a_partition_that_is_there_is_asked_for_once():
    line = Line(FakeModel([INTENT]), deciding(lambda p: Publish("t", b"x", partition=2)))
    asked = []

    async def partitions(topic):
        asked.append(topic)
        return 3

    line.broker.partitions = partitions
    line.receive("bad")
    await line.settle()
    line.receive("bad")
    await line.settle()
    assert [(m.topic, m.partition) for m in line.broker.taken] == [("t", 2)] * 2
    assert asked == ["t"]


class Panic(BaseException):
    """What a panic of a Rust library is in Python."""


async def test_a_text_that_makes_the_tokenizer_panic_is_a_dead_letter_alone(monkeypatch):
    line = Line(FakeModel([INTENT]))
    encode = line.engine.encode

    async def panics(texts, model=None, windows=None):
        if "poison" in texts:
            raise Panic
        return await encode(texts, model)

    monkeypatch.setattr(line.engine, "encode", panics)
    line.receive("fine", "poison", "fine too")
    await line.settle()
    assert line.reasons() == ["invalid"]
    assert sum(m.topic == "out" for m in line.broker.taken) == 2
    assert line.committable == 3


async def test_a_drain_does_not_wait_for_texts_behind_one_with_which_the_process_ends(monkeypatch):
    line = Line(FakeModel([INTENT]))

    async def end(texts, model=None, windows=None):
        raise Panic if len(texts) > 1 else Closed("the engine is not running")

    monkeypatch.setattr(line.engine, "encode", end)
    line.receive("one", "two", "three")
    with pytest.raises(Closed):
        await line.feeding
    assert await line.dispatcher.drain(0.0)

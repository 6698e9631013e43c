"""The one door for agents, and its fake: one list of scenarios against both, then what only the real one can do."""

import asyncio
import threading
import time
import weakref

import pytest

from murmura.runtime.batching.engine import Engine
from murmura.runtime.batching.queues.entry import Entry
from murmura.runtime.errors import Closed, ModelFailed, RecordError, SetupError
from murmura.runtime.testing.fakes import FakeEngine, FakeModel, abstained, classified, labelled, tagged
from murmura.schemas.deadletter import DeadLetterReason
from murmura.schemas.manifest import TaskSpec

TASKS = [
    TaskSpec(name="intent", kind="classification", labels=["card", "other"]),
    TaskSpec(name="topics", kind="multi_label", labels=["x", "y"]),
    TaskSpec(name="entities", kind="tagging", labels=["O", "B-date", "I-date"]),
]
SCRIPT = {
    "lost my card on monday": {
        "intent": classified("card", 0.9, ("other", 0.1)),
        "topics": labelled(x=0.6, y=0.8),
        "entities": tagged("lost my card on monday", date="monday"),
    },
    "hm": {"intent": abstained("card", 0.4)},
}


@pytest.fixture
def model():
    return FakeModel(TASKS, SCRIPT, broken={"bad"}, name="bank", version=3)


@pytest.fixture
async def make():
    """Start engines of either kind and stop them when the test ends."""
    made = []

    async def start(kind, model, **options):
        engine = kind(model, **({"token_budget": 100, **options} if kind is Engine else {}))
        await engine.start()
        model.batches.clear()
        made.append(engine)
        return engine

    yield start
    for engine in made:
        await engine.stop(1)


both = pytest.mark.parametrize("kind", [Engine, FakeEngine])


class Inbox:
    def __init__(self):
        self.entries = []

    def deliver(self, entries):
        self.entries += entries

    async def holds(self, count):
        async with asyncio.timeout(60):
            while len(self.entries) < count:
                await asyncio.sleep(0.001)


@both
async def test_one_text_gets_every_task_unless_some_are_named(kind, model, make):
    engine = await make(kind, model)
    prediction = await engine.predict("lost my card on monday")
    assert prediction.outputs == SCRIPT["lost my card on monday"]
    assert prediction["entities"]["spans"] == [
        {"label": "date", "text": "monday", "start": 16, "end": 22, "score": 1.0}
    ]
    assert prediction.model == ("bank", 3)
    assert not prediction.truncated
    assert set(await engine.predict("hm", ["intent"])) == {"intent"}


@both
async def test_a_text_longer_than_the_model_reads_is_answered_and_says_so(kind, model, make):
    engine = await make(kind, model)
    assert (await engine.predict("word " * 500)).truncated


@both
@pytest.mark.parametrize(
    ("text", "tasks", "reason", "says"),
    [
        (
            "hello",
            ["intent", "mood"],
            DeadLetterReason.UNKNOWN_TASK,
            "task 2 of the 2 asked for is not one of the model's, which are intent, topics",
        ),
        ("", None, DeadLetterReason.INVALID, "empty"),
        ("caf\u00e9 \ud800!", None, DeadLetterReason.INVALID, "lone surrogate at character 5"),
    ],
)
async def test_what_cannot_be_answered_is_refused_with_its_reason(kind, model, make, text, tasks, reason, says):
    engine = await make(kind, model)
    with pytest.raises(RecordError, match=says) as refused:
        await engine.predict(text, tasks)
    assert refused.value.reason is reason


@both
async def test_a_text_that_breaks_the_model_fails_alone(kind, model, make):
    engine = await make(kind, model)
    answers = await asyncio.gather(*map(engine.predict, ("hm", "bad", "ho")), return_exceptions=True)
    assert [type(answer).__name__ for answer in answers] == ["Prediction", "ModelFailed", "Prediction"]


@both
async def test_submitted_entries_come_back_to_their_sink_answered_in_order(kind, model, make):
    engine, inbox = await make(kind, model), Inbox()
    texts = ["lost my card on monday", "hm", "bad", "ho"]
    encoded = await engine.encode(texts)
    entries = [Entry(t, ("intent",), e, inbox, context=n) for n, (t, e) in enumerate(zip(texts, encoded, strict=True))]
    rooms = []
    engine.on_room(lambda: rooms.append(engine.queued_tokens))
    engine.submit(entries)
    assert inbox.entries == [], "never inside submit"
    await inbox.holds(4)
    assert inbox.entries == entries
    assert entries[1].outputs == {"intent": SCRIPT["hm"]["intent"]}
    assert isinstance(entries[2].error, ModelFailed)
    await asyncio.sleep(0)
    assert rooms == [0]


@both
async def test_a_cancelled_entry_is_not_delivered(kind, model, make):
    engine, inbox = await make(kind, model), Inbox()
    encoded = await engine.encode(["hm", "ho"])
    first, second = (Entry(e.text, ("intent",), e, inbox) for e in encoded)
    engine.submit([first, second])
    first.cancelled = True
    await inbox.holds(1)
    await engine.stop(1)
    assert inbox.entries == [second]


@both
async def test_after_stop_everything_is_refused_and_what_was_submitted_is_answered(kind, model, make):
    engine, inbox = await make(kind, model), Inbox()
    encoded = await engine.encode(["hm"])
    engine.submit([Entry("hm", (), encoded[0], inbox)])
    await engine.stop(5)
    assert inbox.entries[0].outputs == {}
    with pytest.raises(Closed):
        engine.submit([])
    with pytest.raises(Closed):
        await engine.encode(["hm"])
    with pytest.raises(Closed):
        await engine.predict("hm")


async def test_a_caller_cancelled_while_the_model_runs_takes_no_answer_from_the_others(make):
    running, gate = threading.Event(), threading.Event()

    class Gated(FakeModel):
        def run(self, batch):
            running.set()
            gate.wait(10)
            return super().run(batch)

    model = Gated(TASKS)
    gate.set()
    engine = await make(Engine, model, max_in_flight=1)
    gate.clear()
    running.clear()
    callers = [asyncio.create_task(engine.predict(f"text {n}")) for n in range(3)]
    await asyncio.to_thread(running.wait, 10)
    callers[0].cancel()
    gate.set()
    answers = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert [answer["intent"]["label"] for answer in answers[1:]] == ["card", "card"]
    assert model.batches == [["text 0", "text 1", "text 2"]]


async def test_single_callers_are_tokenised_and_run_in_chunks(model, make):
    chunks = []
    encode = model.encode

    def noted(texts):
        chunks.append(len(texts))
        time.sleep(0.01)
        return encode(texts)

    engine = await make(Engine, model, max_in_flight=1)
    model.encode = noted
    await asyncio.gather(*(engine.predict(f"text {n}") for n in range(100)))
    assert sum(chunks) == 100
    assert len(chunks) <= 3
    assert sum(map(len, model.batches)) == 100
    assert max(map(len, model.batches)) >= 20


async def test_a_text_that_breaks_the_tokenizer_fails_alone(model, make):
    encode = model.encode

    def fragile(texts):
        if "bad" in texts:
            raise TypeError("no text")
        return encode(texts)

    engine = await make(Engine, model)
    model.encode = fragile
    answers = await asyncio.gather(*map(engine.predict, ("hm", "bad", "ho")), return_exceptions=True)
    assert [type(answer).__name__ for answer in answers] == ["Prediction", "TypeError", "Prediction"]


async def test_callers_beyond_the_most_wait_their_turn(make):
    model = FakeModel(TASKS, run_s=0.002)
    engine = await make(Engine, model, max_callers=4, max_in_flight=1)
    await asyncio.gather(*(engine.predict(f"text {n}") for n in range(40)))
    assert max(map(len, model.batches)) <= 4


async def test_a_stop_in_the_middle_answers_every_caller(make):
    model = FakeModel(TASKS, run_s=0.02)
    engine = await make(Engine, model, max_callers=20, max_in_flight=1)
    callers = [asyncio.create_task(engine.predict(f"text {n}")) for n in range(60)]
    await asyncio.sleep(0.03)
    await engine.stop(10)
    answers = await asyncio.gather(*callers, return_exceptions=True)
    kinds = {type(answer).__name__ for answer in answers}
    assert kinds == {"Prediction", "Closed"}
    assert all(type(answer).__name__ == "Prediction" for answer in answers[:20])


async def test_a_stop_without_budget_answers_with_closed_at_once(make):
    model, ends = FakeModel(TASKS), threading.Event()
    engine = await make(Engine, model)
    run = model.run
    model.run = lambda batch: ends.wait(300) and run(batch)
    callers = [asyncio.create_task(engine.predict(f"text {n}")) for n in range(5)]
    await asyncio.sleep(0.05)
    try:
        async with asyncio.timeout(60):
            await engine.stop(0)
            answers = await asyncio.gather(*callers, return_exceptions=True)
    finally:
        ends.set()
    assert {type(answer) for answer in answers} == {Closed}


async def test_before_start_nothing_is_taken(model):
    engine = Engine(model)
    with pytest.raises(Closed):
        engine.submit([])
    with pytest.raises(Closed):
        await engine.predict("hm")
    await engine.stop(0)


async def test_start_measures_the_budget_and_keeps_the_figures(make):
    engine = await make(Engine, FakeModel(TASKS, run_s=0.002, device="simulated"), token_budget=None)
    assert engine.calibration.token_budget == engine.token_budget >= 128
    assert engine.run_slots == 2


async def test_a_model_that_cannot_run_is_a_set_up_problem():
    class Broken(FakeModel):
        def run(self, batch):
            raise ModelFailed("out of memory")

    engine = Engine(Broken(TASKS, name="bank"))
    with pytest.raises(SetupError, match="model bank: its first forward pass failed: out of memory"):
        await engine.start()
    await engine.stop(0)


@pytest.mark.parametrize(("device", "eager"), [("cpu", 3), ("cuda", 1)])
async def test_a_cpu_starts_a_run_for_each_core_and_an_accelerator_one(make, device, eager):
    running, gate = threading.Semaphore(0), threading.Event()

    class Gated(FakeModel):
        def run(self, batch):
            running.release()
            gate.wait(60)
            return super().run(batch)

    gate.set()
    model = Gated(TASKS, device=device)
    engine = await make(Engine, model, max_in_flight=3)
    gate.clear()
    callers = []
    for n in range(5):
        callers.append(asyncio.create_task(engine.predict(f"text {n}")))
        reached = (min(n + 1, eager), 4 * max(0, n + 1 - eager))
        async with asyncio.timeout(60):
            while (engine.in_flight, engine.queued_tokens) != reached:
                await asyncio.sleep(0.001)
    gate.set()
    await asyncio.gather(*callers)


async def test_a_padded_graph_counts_its_padding(make):
    model = FakeModel(TASKS)
    engine = await make(Engine, model, padded=True, max_in_flight=1, token_budget=30)
    inbox = Inbox()
    encoded = await engine.encode(["one " * 13, "a", "b", "c"])
    engine.submit([Entry(e.text, (), e, inbox) for e in encoded])
    await inbox.holds(4)
    assert [len(batch) for batch in model.batches] == [2, 2]


async def test_after_a_swap_new_texts_go_to_the_new_model_and_waiting_ones_to_the_old(make):
    old = FakeModel(TASKS, run_s=0.05, version=1)
    new = FakeModel(TASKS, version=2)
    engine = await make(Engine, old, max_in_flight=1, token_budget=8)
    before = [asyncio.create_task(engine.predict(f"before {n}")) for n in range(6)]
    while not old.batches:
        await asyncio.sleep(0.001)
    engine.swap(new)
    after = await engine.predict("after")
    assert after.model == ("fake", 2)
    assert {prediction.model for prediction in await asyncio.gather(*before)} == {("fake", 1)}
    assert [text for batch in new.batches for text in batch] == ["after"]


async def test_the_old_model_is_freed_when_its_last_batch_has_ended(make):
    old = FakeModel(TASKS, run_s=0.02)
    gone = weakref.ref(old)
    engine = await make(Engine, old, max_in_flight=1)
    waiting = asyncio.create_task(engine.predict("hm"))
    await asyncio.sleep(0.01)
    engine.swap(FakeModel(TASKS))
    del old
    assert gone() is not None
    await waiting
    del waiting
    async with asyncio.timeout(60):
        while gone() is not None:
            await asyncio.sleep(0.01)

"""The engine on a real graph: what it answers is what the model answers by itself, batch or not, error or not."""

import asyncio
import weakref

import pytest
from tiny_model import INTENT, TASKS, tiny_tokenizer, write_tiny_model

from murmura.runtime.batching.engine import Engine
from murmura.runtime.batching.queues.entry import Entry
from murmura.runtime.model.model import Model
from murmura.runtime.testing.simulated_runner import SimulatedRunner
from murmura.schemas.manifest import Thresholds

TEXTS = [
    "my card was lost in london on monday",
    "hello",
    "please cancel order 12, thanks!",
    "transfer money to london tomorrow",
    "why " * 50,
]
ALL = tuple(task.name for task in TASKS)


@pytest.fixture
async def engine(tiny_model):
    engine = Engine(Model.load(tiny_model, device="cpu"), max_in_flight=2, token_budget=40)
    await engine.start()
    yield engine
    await engine.stop(5)


class Inbox:
    def __init__(self, expected):
        self.entries = []
        self.full = asyncio.Event()
        self.expected = expected

    def deliver(self, entries):
        self.entries += entries
        if len(self.entries) == self.expected:
            self.full.set()


def alike(mine, theirs):
    """Equal but for scores, which may differ by 1e-6: a batch changes the order in which floats are added."""
    if isinstance(mine, dict):
        return mine.keys() == theirs.keys() and all(alike(mine[key], theirs[key]) for key in mine)
    if isinstance(mine, list):
        return len(mine) == len(theirs) and all(map(alike, mine, theirs))
    return mine == (pytest.approx(theirs, abs=1e-6) if isinstance(theirs, float) else theirs)


async def test_callers_at_once_get_what_the_model_answers_each_alone(engine):
    alone = [engine.model.predict([text])[0] for text in TEXTS]
    together = await asyncio.gather(*map(engine.predict, TEXTS * 10))
    assert alike([prediction.outputs for prediction in together], alone * 10)
    assert [prediction.truncated for prediction in together[:5]] == [False, False, False, False, True]


async def test_a_batch_of_different_agents_answers_each_on_its_own_tasks_and_thresholds(engine):
    strict = {"intent": Thresholds(accept=1.0, out_of_scope=1.0)}
    encoded = await engine.encode(TEXTS)
    inbox = Inbox(len(TEXTS))
    asked = [(ALL, None), (("intent",), strict), (("entities", "topics"), None), (("intent",), None), (ALL, strict)]
    engine.submit(
        Entry(text, tasks, each, inbox, None, thresholds)
        for text, each, (tasks, thresholds) in zip(TEXTS, encoded, asked, strict=True)
    )
    await asyncio.wait_for(inbox.full.wait(), 60)
    by_text = {entry.text: entry for entry in inbox.entries}
    for text, (tasks, thresholds) in zip(TEXTS, asked, strict=True):
        entry = by_text[text]
        assert entry.error is None
        logits = engine.model.run([entry.encoded])
        assert alike([entry.outputs], engine.model.decode(logits, [entry.encoded], [text], [tasks], thresholds))
    assert by_text[TEXTS[1]].outputs["intent"]["abstained"]


async def test_a_measured_budget_serves_the_real_graph(tiny_model):
    engine = Engine(Model.load(tiny_model, device="cpu"))
    await engine.start()
    assert engine.calibration.token_budget > 0
    assert (await engine.predict("hello", ["intent"]))["intent"]["kind"] == "classification"
    await engine.stop(5)


@pytest.mark.parametrize("form", ["ragged", "padded"])
async def test_a_simulated_accelerator_answers_a_text_alike_in_any_batch_and_form(tiny_model, form):
    real = Model.load(tiny_model, device="cpu")
    model = Model(real.manifest, tiny_tokenizer(), SimulatedRunner(TASKS, run_s=0, row_s=0), graph=form)
    encoded = model.encode(TEXTS)
    alone = [model.decode(model.run([e]), [e], [t], [ALL])[0] for t, e in zip(TEXTS, encoded, strict=True)]
    assert model.decode(model.run(encoded), encoded, TEXTS, [ALL] * len(TEXTS)) == alone
    assert len({output["intent"]["score"] for output in alone}) > 1


def test_a_simulated_accelerator_takes_so_many_runs_at_once_and_no_more(tiny_model):
    import time
    from concurrent.futures import ThreadPoolExecutor

    real = Model.load(tiny_model, device="cpu")
    model = Model(real.manifest, tiny_tokenizer(), SimulatedRunner([INTENT, *TASKS[1:]], runs_at_once=2, run_s=0.5))
    batch = model.encode(["hello"])
    began = time.perf_counter()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(model.run, [batch] * 4))
    assert 1.0 <= time.perf_counter() - began < 2.0, "two at once: no more, and no fewer"


async def test_a_text_for_all_tasks_is_answered_by_the_model_that_it_was_checked_with(tiny_model, tmp_path):
    """Even if another one, which knows fewer tasks, takes its place before the text is encoded."""
    engine = Engine(Model.load(tiny_model, device="cpu"), token_budget=256, max_in_flight=1)
    await engine.start()
    try:
        before = [asyncio.create_task(engine.predict(text)) for text in TEXTS]
        await asyncio.sleep(0)
        engine.swap(Model.load(write_tiny_model(tmp_path / "fewer", TASKS[:2], version=2), device="cpu"))
        after = [asyncio.create_task(engine.predict(text)) for text in TEXTS]
        answers = await asyncio.gather(*before, *after)
    finally:
        await engine.stop(5)
    assert [(answer.model[1], len(answer)) for answer in answers] == [(0, 4)] * len(TEXTS) + [(2, 2)] * len(TEXTS)


async def test_after_a_swap_nothing_keeps_the_old_model_and_its_weights(tiny_model):
    old = Model.load(tiny_model, device="cpu")
    model, weights = weakref.ref(old), weakref.ref(old.runner)
    engine = Engine(old, token_budget=256, max_in_flight=2)
    await engine.start()
    try:
        await asyncio.gather(*(engine.predict(text) for text in TEXTS))
        engine.swap(Model.load(tiny_model, device="cpu"))
        del old
        async with asyncio.timeout(60):
            while model() or weights():
                await asyncio.sleep(0.01)
    finally:
        await engine.stop(5)

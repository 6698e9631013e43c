"""The engine words replies: the same as offline, beside texts, and whatever else happens."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from step_graph import StepGraph
from tiny_decoder import reply_task
from tiny_model import TASKS, WORDS, tiny_encoder, write_tiny_model

from murmura.runtime.batching.device.breaker import BreakerLimits
from murmura.runtime.batching.engine import Engine
from murmura.runtime.errors import Closed, DeviceFailed, Late, ModelFailed, RecordError
from murmura.runtime.generation.input_format import format_input
from murmura.runtime.model.generated import Generated
from murmura.runtime.model.model import Model
from murmura.runtime.observe.metrics import Metrics
from murmura.runtime.testing.fakes import FakeEngine
from murmura.schemas.acts import Act, ActName, Utterance

LABELS = ["{end}", " {date}", "{date}", " {city}", "{city}", *(f" {number}" for number in range(55))]
TASK = reply_task(max_tokens=24, labels=LABELS)
END_BIAS = np.array([0.7] + [0.0] * 59, np.float32)  # so that replies are of different lengths
ACTS = (Act(act=ActName.REQUEST, slot="date"),)
TURNS = [(Utterance(role="user", text=" ".join(WORDS[(3 * number) % 20 :][: 1 + number % 9])),) for number in range(24)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("generating")
    encoder, added = tiny_encoder(hidden=384, heads=12, layers=1), {"heads.reply.bias": END_BIAS}
    make = partial(write_tiny_model, tasks=[*TASKS, TASK], encoder=encoder, scale=0.05, added=added)
    return [make(root / str(seed), seed=seed, version=seed) for seed in (0, 4)]


@pytest.fixture
def model(folders: list[Path]) -> Model:
    return Model.load(folders[0], device="cpu")


@pytest.fixture
def step(model: Model) -> StepGraph:
    return StepGraph(model)


Make = Callable[..., Awaitable[Engine]]


@pytest.fixture
async def make(model: Model) -> AsyncIterator[Make]:
    engines: list[Engine] = []

    async def start(**options: Any) -> Engine:
        engine = Engine(model, **{"max_in_flight": 2, "token_budget": 60, "reply_rows": 8, **options})
        engines.append(engine)
        await engine.start()
        return engine

    yield start
    for engine in engines:
        await engine.stop(5)


def offline(model: Model, turns: list[tuple[Utterance, ...]], slots: Any = None) -> list[Generated]:
    assert TASK.generation is not None
    pairs = [format_input(each, ACTS, TASK.generation) for each in turns]
    version = model.manifest.name, model.manifest.version
    return [each._replace(model=version) for each in model.generate(pairs, [slots] * len(pairs))]


def is_odd(piece: str) -> bool:
    return not set(piece).isdisjoint("13579")


def word(engine: Engine, turns: tuple[Utterance, ...], **options: Any) -> asyncio.Task[Generated]:
    return asyncio.create_task(engine.generate(turns, ACTS, "reply", **options))


async def test_replies_are_bit_for_bit_those_that_are_worded_offline_beside_texts_of_any_length(
    make: Make, model: Model
) -> None:
    want = offline(model, TURNS)
    assert len({len(reply.tokens) for reply in want}) > 3
    assert len({reply.tokens for reply in want}) > 12
    metrics = Metrics()
    engine = await make(observer=metrics)
    texts = asyncio.gather(*(engine.predict(" ".join(WORDS[: 1 + n % 12]), ["sentiment"]) for n in range(60)))
    assert await asyncio.gather(*(word(engine, turns) for turns in TURNS)) == want
    assert await word(engine, TURNS[3]) == want[3]
    assert len(await texts) == 60
    assert metrics.first_step.totals()[0] == metrics.reply_pieces.totals()[0] == len(TURNS) + 1
    assert metrics.reply_pieces.totals()[1] == sum(len(reply.tokens) for reply in [*want, want[3]])
    assert metrics.step_rows.totals()[1] == pytest.approx(
        sum(len(reply.tokens) + (reply.finish == "end") for reply in [*want, want[3]])
    )
    assert (engine.queued_tokens, engine.queued_rows) == (0, 0)


async def test_a_reply_names_only_the_slots_that_it_may_and_says_when_its_turns_were_cut(
    make: Make, model: Model
) -> None:
    engine = await make()
    found = await asyncio.gather(*(word(engine, turns, slots={"date", "unknown"}) for turns in TURNS))
    assert found == offline(model, TURNS, {"date"})
    odd = [word(engine, turns, slots=(), is_forbidden=is_odd) for turns in TURNS]
    assert not any(number in "13579" for reply in await asyncio.gather(*odd) for number in reply.text)
    long = (Utterance(role="user", text="please help me " * 60),)
    assert (await word(engine, long)).truncated
    with pytest.raises(RecordError, match="none of the model's that generate"):
        await engine.generate(TURNS[0], ACTS, "sentiment")


async def test_late_and_cancelled_replies_leave_at_once_and_the_others_are_as_ever(
    make: Make, model: Model, step: StepGraph
) -> None:
    want = offline(model, TURNS)
    metrics = Metrics()
    engine = await make(observer=metrics, reply_rows=2)
    step.pause_s = 0.02
    now = asyncio.get_running_loop().time()
    late = [word(engine, turns, deadline=now + 0.05) for turns in TURNS[:8]]
    lost, *kept = [word(engine, turns) for turns in TURNS[8:14]]
    await asyncio.sleep(0.03)
    lost.cancel()
    began = asyncio.get_running_loop().time()
    answers = await asyncio.gather(*late, return_exceptions=True)
    assert asyncio.get_running_loop().time() - began < 1
    assert [isinstance(each, Late) for each in answers].count(True) >= 6
    step.pause_s = 0.0
    assert await asyncio.gather(*kept) == want[9:14]
    assert metrics.reply_pieces.totals()[0] == 13 - [isinstance(each, Late) for each in answers].count(True)
    assert (engine.queued_tokens, engine.queued_rows) == (0, 0)


async def test_a_flood_of_replies_that_nobody_can_wait_for_leaves_no_queue(make: Make, step: StepGraph) -> None:
    engine = await make(reply_rows=2)
    step.pause_s = 0.05
    now = asyncio.get_running_loop().time()
    flood = [word(engine, TURNS[number % 24], deadline=now + 0.1) for number in range(400)]
    await asyncio.sleep(0.06)
    assert engine.queued_rows <= 2
    answers = await asyncio.gather(*flood, return_exceptions=True)
    assert sum(isinstance(each, Late) for each in answers) > 380
    step.pause_s = 0.0
    assert (await word(engine, TURNS[0])).text
    assert (engine.queued_tokens, engine.queued_rows) == (0, 0)


def breaks_without_slots(error: Exception) -> Callable[[Mapping[str, Any]], Exception | None]:
    """The step of a reply that may name no slot fails, once it has two pieces."""
    return lambda feeds: error if ((feeds["forbidden"].any(axis=1)) & (feeds["position"] >= 2)).any() else None


async def test_of_a_step_that_fails_only_the_guilty_reply_fails(make: Make, model: Model, step: StepGraph) -> None:
    want = offline(model, TURNS[:6])
    engine = await make()
    step.failure = breaks_without_slots(ModelFailed("broken"))
    sound = [word(engine, turns) for turns in TURNS[:6]]
    guilty = word(engine, TURNS[6], slots=())
    with pytest.raises(ModelFailed, match="broken"):
        await guilty
    assert await asyncio.gather(*sound) == want
    assert engine.trouble is None


async def test_a_reply_that_the_device_cannot_hold_fails_alone_once_the_sample_passes(
    make: Make, model: Model, step: StepGraph
) -> None:
    want = offline(model, TURNS[:6])
    engine = await make(breaker=BreakerLimits(0.01, 0.02, 20))
    step.failure = breaks_without_slots(DeviceFailed("out of memory"))
    sound = [word(engine, turns) for turns in TURNS[:6]]
    with pytest.raises(ModelFailed, match="out of memory"):
        await word(engine, TURNS[6], slots=())
    assert await asyncio.gather(*sound) == want
    assert engine.trouble is None


async def test_replies_wait_while_the_device_fails_and_go_on_where_they_were(
    make: Make, model: Model, step: StepGraph
) -> None:
    want = offline(model, TURNS[:6])
    engine = await make(breaker=BreakerLimits(0.01, 0.02, 20))
    down = threading.Event()
    step.failure = lambda feeds: DeviceFailed("no device") if down.is_set() and (feeds["position"] >= 2).any() else None
    down.set()
    replies = [word(engine, turns) for turns in TURNS[:6]]
    while engine.trouble is None:
        await asyncio.sleep(0.001)
    steps = len(step.rows)
    await asyncio.sleep(0.05)
    assert not any(reply.done() for reply in replies if reply)
    assert len(step.rows) < steps + 300
    down.clear()
    assert await asyncio.gather(*replies) == want
    assert engine.trouble is None


async def test_a_device_that_fails_for_good_ends_all_who_wait(make: Make, step: StepGraph) -> None:
    engine = await make(breaker=BreakerLimits(0.01, 0.02, 0.1))
    step.failure = lambda feeds: DeviceFailed("no device")
    replies = [word(engine, turns) for turns in TURNS[:6]]
    answers = await asyncio.gather(*replies, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Closed] * 6


async def test_what_a_device_has_half_answered_when_it_is_given_up_is_no_answer(
    make: Make, model: Model, step: StepGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await make(breaker=BreakerLimits(0.01, 0.02, 0.1))

    def fails(feeds: Mapping[str, Any]) -> Exception:
        monkeypatch.setattr(model, "check_device", lambda: (_ for _ in ()).throw(DeviceFailed("no device")))
        return ModelFailed("broken")

    step.failure = fails
    with pytest.raises(Closed):
        await engine.predict("request date", ["intent", "reply"], text_pair="user: card lost")


async def test_a_swap_drains_what_has_begun_and_the_next_reply_is_the_new_versions(
    make: Make, model: Model, step: StepGraph, folders: list[Path]
) -> None:
    new = Model.load(folders[1], device="cpu")
    old_want, new_want = offline(model, TURNS[:4]), offline(new, TURNS[:4])
    assert old_want != new_want
    engine = await make(reply_rows=16)
    step.rows.clear()
    step.pause_s = 0.005
    begun = [word(engine, turns) for turns in TURNS[:4]]
    while not step.rows:
        await asyncio.sleep(0.001)
    engine.swap(new)
    assert await asyncio.gather(*(word(engine, turns) for turns in TURNS[:4])) == new_want
    assert await asyncio.gather(*begun) == old_want


async def test_a_version_whose_last_replies_are_cancelled_is_let_go(make: Make, step: StepGraph, folders: list[Path]):
    engine = await make()
    step.rows.clear()
    step.pause_s = 0.05
    begun = word(engine, TURNS[0])
    while not step.rows:
        await asyncio.sleep(0.001)
    engine.swap(Model.load(folders[1], device="cpu"))
    begun.cancel()
    await asyncio.sleep(0.2)
    await engine.predict("card lost", ["intent"])
    assert [*engine._batcher.backlog.lanes._lanes] == []


async def test_of_a_version_that_is_replaced_while_the_device_fails_nothing_is_left(
    make: Make, step: StepGraph, folders: list[Path]
) -> None:
    new = Model.load(folders[1], device="cpu")
    engine = await make(breaker=BreakerLimits(0.01, 0.02, 20))
    step.failure = lambda feeds: DeviceFailed("no device")
    replies = [word(engine, turns) for turns in TURNS[:4]]
    while engine.trouble is None:
        await asyncio.sleep(0.001)
    engine.swap(new)
    async with asyncio.timeout(30):
        assert await asyncio.gather(*replies) == offline(new, TURNS[:4])


async def test_while_texts_wait_at_most_two_steps_come_between_two_passes(
    make: Make, model: Model, step: StepGraph
) -> None:
    engine = await make(max_in_flight=1)
    order: list[str] = []
    run, step.pause_s = model.run, 0.002

    def run_pass(batch: Any) -> Any:
        order.append("pass")
        return run(batch)

    model.run = run_pass  # type: ignore[method-assign]
    step.failure = lambda feeds: order.append("step")
    replies = [word(engine, turns) for turns in TURNS[:6]]
    while order.count("step") < 3:
        await asyncio.sleep(0)
    texts = [asyncio.create_task(engine.predict(" ".join(WORDS[:12]), ["sentiment"])) for _ in range(60)]
    while engine.queued_rows < 40:
        await asyncio.sleep(0)
    begin = len(order)
    while engine.queued_rows > 4 and not any(reply.done() for reply in replies):
        await asyncio.sleep(0)
    end = len(order)
    await asyncio.gather(*replies, *texts)
    passes = "".join(each[0] for each in order[begin:end]).split("p")
    assert len(passes) > 4
    assert {len(steps) for steps in passes[1:-1]} == {2}


async def test_stopping_ends_what_has_begun_and_refuses_the_rest(make: Make, model: Model, step: StepGraph) -> None:
    want = offline(model, TURNS[:4])
    engine = await make(reply_rows=16)
    step.rows.clear()
    step.pause_s = 0.002
    begun = [word(engine, turns) for turns in TURNS[:4]]
    while not step.rows:
        await asyncio.sleep(0.001)
    await engine.stop(10)
    assert await asyncio.gather(*begun) == want
    with pytest.raises(Closed):
        await word(engine, TURNS[0])


async def test_what_a_stop_has_no_time_for_ends_with_closed(make: Make, step: StepGraph) -> None:
    engine = await make(reply_rows=16)
    step.rows.clear()
    step.pause_s = 0.05
    begun = [word(engine, turns) for turns in TURNS[:4]]
    while not step.rows:
        await asyncio.sleep(0.001)
    await engine.stop(0.01)
    assert [type(each) for each in await asyncio.gather(*begun, return_exceptions=True)] == [Closed] * 4


async def test_a_rehearsal_with_a_real_model_gets_its_own_replies(folders: list[Path]) -> None:
    model = Model.load(folders[0], device="cpu")
    (found,) = offline(model, TURNS[3:4], ["city"])
    assert await FakeEngine(model).generate(TURNS[3], ACTS, "reply", slots=["city"]) == found

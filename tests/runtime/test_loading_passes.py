"""A version that is loaded and calibrated beside one that answers: both take turns on the device."""

import asyncio
import itertools
import threading
import time
from contextlib import asynccontextmanager, contextmanager, nullcontext

import pytest
from tiny_model import TASKS, tiny_tokenizer

from murmura.runtime.batching.costs.calibration import measure_passes
from murmura.runtime.batching.device import loading_passes
from murmura.runtime.batching.device.loading_passes import LoadingPasses
from murmura.runtime.batching.engine import Engine
from murmura.runtime.batching.queues.entry import Entry
from murmura.runtime.model.model import Model
from murmura.runtime.testing.simulated_runner import SimulatedRunner

RUN_S = 0.02


class Device(SimulatedRunner):
    """An accelerator whose passes share it and take longer by as much; notes each with its version and what was running."""

    def __init__(self):
        super().__init__(TASKS, runs_at_once=8, run_s=RUN_S, row_s=0.0)
        self.passes, self.running, self.lock = [], [], threading.Lock()

    def of(self, version):
        return View(self, version)


class View:
    def __init__(self, device, version):
        self.runner, self.version, self.device = device, version, device.device

    def run(self, feeds):
        with self.runner.lock:
            self.runner.running.append(self.version)
            beside = len(self.runner.running) - 1
            self.runner.passes.append((self.version, [*self.runner.running]))
        try:
            time.sleep(RUN_S * beside)
            return self.runner.run(feeds)
        finally:
            with self.runner.lock:
                self.runner.running.remove(self.version)

    def terminate(self, thread=None): ...

    def close(self): ...


class Refilling:
    """A sink that keeps a backlog for the version that answers."""

    def __init__(self, engine, model):
        self.engine, self.model, self.going = engine, model, True
        (self.encoded,) = model.encode(["hello"])

    def submit(self, count):
        self.engine.submit([Entry("hello", ("intent",), self.encoded, self, model=self.model) for _ in range(count)])

    def deliver(self, entries):
        if self.going:
            self.submit(len(entries))

    def take_back(self, entries):
        raise AssertionError


async def measure_beside_load(manifest, *, with_turns):
    """Calibrate a version while another one has a backlog; returns what came out, and the passes of both meanwhile."""
    device = Device()
    current, other = (Model(manifest, tiny_tokenizer(), device.of(version)) for version in ("current", "other"))
    engine = Engine(current, token_budget=32, max_rows=8)
    await engine.start()
    sink = Refilling(engine, current)
    try:
        sink.submit(64)
        device.passes.clear()
        turn = engine.turn if with_turns else nullcontext
        passes = await asyncio.to_thread(measure_passes, other, max_rows=64, turn=turn)
    finally:
        sink.going = False
        noted = [*device.passes]
        await engine.stop(5)
    return passes, noted


async def test_a_version_is_calibrated_alone_on_an_accelerator_and_a_pass_of_the_current_one_is_between_two_of_its_own(
    tiny_model,
):
    manifest = Model.load(tiny_model, device="cpu").manifest
    passes, noted = await measure_beside_load(manifest, with_turns=True)
    mixed, _ = await measure_beside_load(manifest, with_turns=False)
    assert all(running == ["other"] for version, running in noted if version == "other")
    versions = [version for version, _ in noted]
    own = [place for place, version in enumerate(versions) if version == "other"]
    assert len(own) >= 6
    assert all("current" in versions[one:next_one] for one, next_one in itertools.pairwise(own))
    alone_s, mixed_s = (each.overhead_s + 32 * each.token_s for each in (passes, mixed))
    assert RUN_S <= alone_s < 1.4 * RUN_S < mixed_s, (alone_s, mixed_s)


@asynccontextmanager
async def pass_that_does_not_end(engine):
    """Hold a turn of a pass in a thread until the block ends."""
    begun, left = threading.Event(), threading.Event()

    def hang():
        with engine.turn():
            begun.set()
            left.wait(60)

    hanging = asyncio.create_task(asyncio.to_thread(hang))
    try:
        await asyncio.to_thread(begun.wait, 60)
        yield
    finally:
        left.set()
        await hanging


async def test_a_pass_that_does_not_end_holds_nothing_back_for_long(monkeypatch, tiny_model):
    monkeypatch.setattr(loading_passes, "MOST_S", 0.05)
    engine = Engine(Model.load(tiny_model, device="cpu"), token_budget=64, max_in_flight=1)
    await engine.start()
    async with pass_that_does_not_end(engine), asyncio.timeout(30):
        assert await engine.predict("hello")
    await engine.stop(5)


async def test_what_is_queued_is_answered_when_the_engine_stops_while_a_pass_has_its_turn(tiny_model):
    engine = Engine(Model.load(tiny_model, device="cpu"), token_budget=64, max_in_flight=1)
    await engine.start()
    async with pass_that_does_not_end(engine):
        asked = [asyncio.create_task(engine.predict(text)) for text in ("hello", "there", "again")]
        await settle()
        await engine.stop(30)
        assert all(await asyncio.gather(*asked))


class Slots:
    """The rest of a batcher: what waits starts as far as `LoadingPasses` lets it."""

    def __init__(self, beside):
        self.waiting = self.in_flight = 0
        self.most = 2
        self.loading = LoadingPasses(beside, self.start)
        self.loading.open()

    def start(self):
        while self.waiting and self.in_flight + self.loading.running < self.most:
            if self.loading.holds_back(self.in_flight):
                break
            self.waiting, self.in_flight = self.waiting - 1, self.in_flight + 1
        self.loading.begin_next(self.in_flight)

    def finish(self):
        self.in_flight -= 1
        self.start()


@contextmanager
def asking(loading):
    """A thread that asks for a turn; yields the events that it has it, and that it may end it."""
    has, may_end = threading.Event(), threading.Event()

    def work():
        with loading.turn():
            has.set()
            may_end.wait(60)

    thread = threading.Thread(target=work)
    thread.start()
    yield has, may_end
    may_end.set()
    thread.join()


async def settle():
    for _ in range(5):
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("beside", [0, 1])
async def test_what_waits_starts_before_the_next_pass_and_only_so_many_run_beside_one(beside):
    slots = Slots(beside)
    slots.waiting = 5
    slots.start()
    assert slots.in_flight == 2
    with asking(slots.loading) as (has, may_end), asking(slots.loading) as (other_has, other_may_end):
        await settle()
        for _ in range(2 - beside):
            assert not (has.is_set())
            assert not (other_has.is_set())
            slots.finish()
            await settle()
        assert [has.is_set(), other_has.is_set()].count(True) == 1
        assert (slots.in_flight, slots.loading.running) == (beside, 1)
        (may_end if has.is_set() else other_may_end).set()
        await settle()
        assert (slots.in_flight, slots.loading.running) == (2, 0), "what waits comes first"
        while slots.in_flight > beside:
            slots.finish()
            await settle()
        assert has.is_set()
        assert other_has.is_set()
        slots.loading.close()


async def test_nothing_waits_while_the_device_fails_or_after_the_end():
    slots = Slots(0)
    slots.in_flight = 1
    with asking(slots.loading) as (has, _):
        await settle()
        assert not has.is_set()
        slots.loading.let_all_run()
        await settle()
        assert has.is_set()
    with asking(slots.loading) as (has, _):
        await settle()
        assert not has.is_set()
        slots.loading.close()
        await settle()
        assert has.is_set()
    with asking(slots.loading) as (has, _):
        await settle()
        assert has.is_set()

"""A device that fails under load, on a real Kafka: nothing is dead-lettered, everything is answered, by this process or another."""

import asyncio
import json
import time
import urllib.error
import urllib.request
from contextlib import asynccontextmanager

import pytest
from serving import Desk, ids

from murmura.runtime import serve as app
from murmura.runtime.errors import DeviceFailed
from murmura.runtime.model.device_faults import model_error
from murmura.runtime.model.model import Model

QUICK = {"probe_pause_s": 0.05, "give_up_s": 20, "cores": 2, "token_budget": 64}


class Device:
    """A runner around the model's session, which fails as a device does while it is `broken`."""

    def __init__(self, session):
        self._session = session
        self.device = session.device
        self.broken = None

    def run(self, feeds):
        if self.broken is not None:
            raise model_error(RuntimeError(self.broken), "onnxruntime")
        return self._session.run(feeds)

    def terminate(self, thread=None):
        self._session.terminate(thread)


@pytest.fixture
async def desk(kafka, make_topics, unique, tiny_model):
    prefix = unique("device")
    await make_topics("requests", "classified", "analysed", "deadletters", "events", prefix=prefix)
    return Desk(kafka, prefix, tiny_model)


@pytest.fixture
def model(tiny_model):
    model = Model.load(tiny_model, device="cpu")
    model.runner = Device(model.runner)
    return model


@asynccontextmanager
async def serving(desk, model, **limits):
    """Serve with a loaded model; yields the parts, and the task that ends when the process would."""
    settings = desk.settings(model={"folder": desk.model, **QUICK, **limits})
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    task = asyncio.create_task(app.serve(settings, desk.agents, stop=stop, ready=ready.set_result, model=model))
    await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    try:
        yield ready.result(), task
    finally:
        stop.set()
        await asyncio.wait([task])


def readiness(url):
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as refused:
        return json.loads(refused.read())


def requests(first, last):
    return [{"text": f"my card was lost {number}", "id": f"r{number}"} for number in range(first, last)]


async def test_a_device_that_fails_for_a_while_under_load_costs_no_record_anything_but_time(desk, model):
    async with serving(desk, model) as (parts, _):
        await desk.send(*requests(0, 200))
        await desk.read(desk.classified, 100)
        model.runner.broken = "CUDA failure 2: out of memory ; GPU=0"
        await desk.send(*requests(200, 800))
        while parts.engine.failed_probes < 3:
            await asyncio.sleep(0.02)
        verdict = await asyncio.to_thread(readiness, parts.url)
        assert not verdict["ready"]
        assert "the device fails" in verdict["reasons"][0]
        assert "out of memory" in verdict["reasons"][0]
        assert parts.metrics.registry.get_sample_value("murmura_breaker_open") == 1
        model.runner.broken = None
        results = await desk.read(desk.classified, 800)
        verdict = await asyncio.to_thread(readiness, parts.url)
        assert verdict["ready"]
    assert sorted(ids(results)) == sorted(f"r{number}" for number in range(800))
    assert await desk.read(desk.dead_letters, 0) == []
    assert await desk.committed() == await desk.ends()
    kinds = [json.loads(event.value)["event"] for event in await desk.read(f"{desk.prefix}.events", 2)]
    assert kinds == ["device.failed", "device.recovered"]


@pytest.mark.parametrize(
    ("error", "give_up_s"),
    [("CUDA failure 2: out of memory ; GPU=0", 0.4), ("CUDA failure 700: an illegal memory access ; GPU=0", 60)],
    ids=["for too long", "for good"],
)
async def test_a_device_that_stays_broken_ends_the_process_and_another_answers_everything(
    desk, model, error, give_up_s
):
    model.runner.broken = None
    async with serving(desk, model, give_up_s=give_up_s) as (_, process):
        model.runner.broken = error
        await desk.send(*requests(0, 300))
        async with asyncio.timeout(60):
            await asyncio.wait([process])
        with pytest.raises(DeviceFailed, match="CUDA failure"):
            process.result()
    assert sum((await desk.committed()).values()) == 0
    assert await desk.read(desk.dead_letters, 0) == []
    model.runner.broken = None
    async with serving(desk, model):
        results = await desk.read(desk.classified, 300)
    assert sorted(ids(results)) == sorted(f"r{number}" for number in range(300))
    assert await desk.committed() == await desk.ends()


async def test_what_waited_for_a_model_that_fails_is_answered_by_the_one_that_takes_its_place(desk, model, tiny_model):
    async with serving(desk, model, probe_pause_s=5) as (parts, _):
        model.runner.broken = "CUDA failure 2: out of memory ; GPU=0"
        await desk.send(*requests(0, 300))
        while parts.engine.trouble is None:
            await asyncio.sleep(0.02)
        other = Model.load(tiny_model, device="cpu")
        other.manifest = other.manifest.model_copy(update={"version": 77})
        parts.engine.swap(other)
        results = await desk.read(desk.classified, 300)
    assert sorted(ids(results)) == sorted(f"r{number}" for number in range(300))
    assert {json.loads(record.value)["model"]["version"] for record in results} == {77}
    assert await desk.read(desk.dead_letters, 0) == []
    assert await desk.committed() == await desk.ends()


async def test_a_process_that_is_asked_to_end_while_its_device_fails_does_so_at_once_and_commits_nothing(desk, model):
    async with serving(desk, model) as (parts, _):
        model.runner.broken = "CUDA failure 2: out of memory ; GPU=0"
        await desk.send(*requests(0, 100))
        while parts.engine.trouble is None:
            await asyncio.sleep(0.02)
        began = time.monotonic()
    assert time.monotonic() - began < 60, "it waited for the device as long as it may"
    assert sum((await desk.committed()).values()) == 0
    assert await desk.read(desk.dead_letters, 0) == []


@pytest.mark.parametrize("broken", ["tokenizer", "decoding"])
async def test_what_fails_on_every_text_ends_the_process_and_another_answers_everything(desk, model, broken):
    async with serving(desk, model, give_up_s=1) as (_, process):
        await desk.send(*requests(0, 50))
        await desk.read(desk.classified, 50)
        if broken == "tokenizer":
            model._encoder._encode = None
        else:
            model._decoders = dict.fromkeys(model._decoders)
        await desk.send(*requests(50, 300))
        async with asyncio.timeout(60):
            await asyncio.wait([process])
        with pytest.raises(DeviceFailed, match="plain text" if broken == "tokenizer" else "reference sample"):
            process.result()
    assert await desk.read(desk.dead_letters, 0) == []
    async with serving(desk, Model.load(desk.model, device="cpu")):
        results = await desk.read(desk.classified, 300)
    assert sorted(set(ids(results))) == sorted(f"r{number}" for number in range(300))
    assert await desk.committed() == await desk.ends()


async def test_records_that_come_while_the_device_fails_and_partitions_move_are_answered_afterwards(desk, model):
    """What waited was let go at the rebalance, so the probe that passes is the only one to tell of it."""
    async with serving(desk, model, probe_pause_s=1) as (parts, _):
        model.runner.broken = "CUDA failure 2: out of memory ; GPU=0"
        await desk.send(*requests(0, 100))
        while parts.engine.trouble is None:
            await asyncio.sleep(0.02)
        async with serving(desk, Model.load(desk.model, device="cpu"), probe_pause_s=1):
            await desk.send(*requests(100, 200))
        await desk.send(*requests(200, 300))
        model.runner.broken = None
        async with asyncio.timeout(60):
            results = await desk.read(desk.classified, 300)
    assert sorted(set(ids(results))) == sorted(f"r{number}" for number in range(300))
    assert await desk.read(desk.dead_letters, 0) == []

"""Several models in one process: settings, engines on one device, and records that go to the model of their topic."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka.structs import ConsumerRecord, TopicPartition

from murmura.agents.analysis import agent as analysis
from murmura.agents.classification import agent as classification
from murmura.runtime.agent.model_choice import assign_models
from murmura.runtime.agent.routes import make_routes
from murmura.runtime.batching.device.breaker import BreakerLimits
from murmura.runtime.batching.engine import Engine
from murmura.runtime.batching.versions import ServedModel
from murmura.runtime.cli import options
from murmura.runtime.errors import SetupError
from murmura.runtime.flow.dispatcher import Dispatcher
from murmura.runtime.kafka.offset_tracker import Tracker
from murmura.runtime.model.memory import check_room, find_free_bytes, find_needed_bytes
from murmura.runtime.observe.metrics import Metrics
from murmura.runtime.output.bounds import Bounds
from murmura.runtime.settings.settings import Settings
from murmura.runtime.testing.fakes import FakeModel, fake_manifest
from murmura.schemas.manifest import FileEntry, TaskSpec

INTENT = TaskSpec(name="intent", kind="classification", labels=["refund", "praise"])
MOOD = TaskSpec(name="mood", kind="classification", labels=["good", "bad"])
TWO = {"desk": {"folder": "models/desk", "weight": 3}, "spam": {"store": "/srv/models", "token_budget": 64}}


def test_the_settings_of_a_model_are_the_common_ones_with_its_own():
    settings = Settings(model={"cores": 3, "token_budget": 512}, models=TWO)
    desk, spam = (settings.for_model(name).model for name in settings.model_names)
    assert (str(desk.folder), desk.cores, desk.token_budget, desk.name) == ("models/desk", 3, 512, None)
    assert (spam.store, spam.cores, spam.token_budget, spam.name) == ("/srv/models", 3, 64, "spam")
    assert (settings.weight("desk"), settings.weight("spam"), settings.has_store) == (3, 1, True)


def test_an_agent_sees_the_settings_of_the_model_that_it_asks():
    settings = Settings(model={"cores": 3}, models=TWO, agents={"analysis": {"model": "spam"}})
    assert [settings.for_agent(name).model.store for name in ("analysis", "other")] == ["/srv/models", None]
    assert settings.stores == ("/srv/models",)


def test_a_model_on_the_command_line_is_asked_instead_of_those_of_the_settings(config, no_settings_environment):
    file = config({"models": TWO, "agents": {"analysis": {"model": "spam", "timeout_s": 5}}})
    settings = options.settings(file, model=Path("models/new"))
    assert (settings.models, settings.model.folder, settings.agents["analysis"].model) == ({}, Path("models/new"), None)
    assert options.settings(file).model_names == ("desk", "spam")
    with pytest.raises(SetupError, match=r"model\.folder is set beside models"):
        options.settings(file, model=Path("models/new"), serving=True)


def test_one_model_is_the_short_form():
    settings = Settings(model={"folder": "models/desk"})
    assert (settings.model_names, settings.for_model("")) == (("",), settings)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"models": TWO, "model": {"folder": "x"}}, "model.folder is set beside models"),
        ({"models": {"desk": {"weight": 1}}}, "neither folder nor store"),
        (
            {"models": TWO, "agents": {"analysis": {"model": "dekc"}}},
            "agents.analysis.model names none of models, which are: desk, spam",
        ),
        ({"agents": {"analysis": {"model": "desk"}}}, "none of models, which are: none"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_with_their_names(given, message):
    with pytest.raises(ValueError, match=message):
        Settings(**given)


def test_an_agent_names_its_model_where_there_are_several():
    agents = [replace(classification, topics=("a",)), replace(analysis, topics=("b",))]
    chosen = {"classification": {"model": "spam"}, "analysis": {"model": "desk"}}
    assert assign_models(Settings(models=TWO, agents=chosen), agents) == {"classification": "spam", "analysis": "desk"}
    with pytest.raises(SetupError, match="must name its model, since there are several: desk, spam"):
        assign_models(Settings(models=TWO), agents)
    shared = [replace(agent, topics=("a",)) for agent in agents]
    with pytest.raises(SetupError, match="both read a and ask different models"):
        assign_models(Settings(models=TWO, agents=chosen), shared)


def test_a_model_that_is_larger_than_the_free_memory_is_refused_in_a_line(tmp_path):
    sizes = {"graph:ragged": 80, "graph:padded": 70, "graph:memory": 4, "graph:step": 6, "training": 200}
    files = [
        FileEntry(path=role.replace(":", "."), role=role, sha256="0" * 64, bytes=mb * 10**6)
        for role, mb in sizes.items()
    ]
    manifest = fake_manifest([INTENT]).model_copy(update={"files": files})
    assert find_needed_bytes(manifest, "padded") == 80_000_000
    check_room("desk", manifest, "ragged", None)
    check_room("desk", manifest, "ragged", 90_000_000)
    with pytest.raises(SetupError, match=r"model desk: its graphs take 90 MB, 40 MB are free"):
        check_room("desk", manifest, "ragged", 40_000_000)


@pytest.mark.parametrize(
    ("names", "total"),
    [
        (["memory.max", "memory.current", "memory.stat"], ""),
        (["memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"], "total_"),
    ],
)
def test_cached_files_of_the_group_count_as_free_memory(tmp_path, names, total):
    (tmp_path / "memory").mkdir()
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 1000 kB\n")
    limit, usage, statistics = (tmp_path / name for name in names)
    assert find_free_bytes(tmp_path / "meminfo", tmp_path) == 1_024_000
    limit.write_text("1000000\n")
    usage.write_text("990000\n")
    assert find_free_bytes(tmp_path / "meminfo", tmp_path) == 10_000
    statistics.write_text(f"anon 390000\n{total}inactive_file 500000\n{total}active_file 100000\n")
    assert find_free_bytes(tmp_path / "meminfo", tmp_path) == 610_000
    limit.write_text("max\n")
    assert find_free_bytes(tmp_path / "meminfo", tmp_path) == 1_024_000


class Broker:
    def __init__(self):
        self.taking = asyncio.Event()
        self.taking.set()
        self.taken = []

    async def publish(self, messages):
        self.taken += messages
        return [None] * len(messages)

    async def partitions(self, topic):
        return 3


@pytest.fixture
async def engines():
    first = Engine(FakeModel([INTENT], name="desk"), token_budget=1000, name="desk", weight=3.0)
    second = Engine(FakeModel([MOOD], name="spam"), token_budget=50, name="spam", beside=first)
    await first.start()
    await second.start()
    yield first, second
    await second.stop(5)
    await first.stop(5)


async def test_engines_on_one_device_answer_their_own_callers_with_their_own_budgets(engines):
    first, second = engines
    answers = await asyncio.gather(*(engine.predict("hello") for engine in engines for _ in range(5)))
    assert [(*answer.outputs, answer.model[0]) for answer in answers] == [("intent", "desk")] * 5 + [
        ("mood", "spam")
    ] * 5
    assert (first.room[0], second.room[0]) == (1000, 50)
    await second.stop(5)
    assert (await first.predict("still there")).model[0] == "desk"


async def test_models_of_different_devices_are_refused(engines):
    with pytest.raises(SetupError, match="the models of a process share one device"):
        await Engine(FakeModel([MOOD], device="cuda"), token_budget=50, beside=engines[0]).start()


def dispatch(first, second, broker, **options):
    """Return a dispatcher of both engines: `tickets` to `labels` by the first model, `mails` to `moods` by the second."""
    agents = {
        "desk": replace(classification, topics=("tickets",), output="labels"),
        "spam": replace(analysis, topics=("mails",), output="moods"),
    }
    other = ServedModel(second, make_routes([agents["spam"]], second.model.manifest, "test"), "spam")
    dispatcher = Dispatcher(
        first,
        broker,
        Tracker(),
        Metrics(),
        routes=make_routes([agents["desk"]], first.model.manifest, "test"),
        name="desk",
        others=[other],
        dead_letters="dead",
        **{"max_value_bytes": 1000, **options},
    )
    return dispatcher, other, agents["spam"]


def a_record(topic, offset, text="hello", partition=0):
    value = json.dumps({"text": text}).encode()
    return ConsumerRecord(topic, partition, offset, 1000, 0, None, value, None, -1, len(value), ())


async def finish(dispatcher):
    async with asyncio.timeout(60):
        while dispatcher.has_work:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(("heavy", "light"), [("tickets", "mails"), ("mails", "tickets")])
async def test_a_model_with_a_backlog_of_large_records_leaves_bytes_to_the_other(engines, heavy, light):
    broker = Broker()
    bounds = Bounds(process_bytes=100_000)
    dispatcher, *_ = dispatch(*engines, broker, max_value_bytes=10**6, bounds=bounds)
    for partition in range(30):
        dispatcher.receive({TopicPartition(heavy, partition): [a_record(heavy, 0, "h" * 50_000, partition)]})
    feeding = asyncio.create_task(dispatcher.run())
    async with asyncio.timeout(60):
        while not broker.taken:
            await asyncio.sleep(0)
    before = len(broker.taken)
    dispatcher.receive({TopicPartition(light, 0): [a_record(light, n) for n in range(3)]})
    await finish(dispatcher)
    last = max(n for n, message in enumerate(broker.taken) if json.loads(message.value)["source"]["topic"] == light)
    assert (len(broker.taken), last - before < 10) == (33, True)
    feeding.cancel()


async def test_failed_probes_are_those_of_the_model_that_was_probed():
    first = Engine(FakeModel([INTENT]), token_budget=100, breaker=BreakerLimits(first_pause_s=0.01))
    second = Engine(FakeModel([MOOD]), token_budget=100, beside=first)
    await first.start()
    await second.start()
    second.model.device_works = False
    waiting = asyncio.create_task(second.predict("hello"))
    async with asyncio.timeout(60):
        while second.failed_probes < 2:
            await asyncio.sleep(0.005)
    assert first.failed_probes == 0
    second.model.device_works = True
    await waiting
    assert second.failed_probes == 0
    await second.stop(5)
    await first.stop(5)


async def test_records_go_to_the_model_of_their_topic_and_a_swap_of_one_leaves_the_other(engines):
    first, second = engines
    broker = Broker()
    dispatcher, other, mood = dispatch(first, second, broker)
    feeding = asyncio.create_task(dispatcher.run())

    async def answer(offset):
        broker.taken.clear()
        for topic in ("tickets", "mails", "mails"):
            dispatcher.receive({TopicPartition(topic, 0): [a_record(topic, offset)]})
            offset += 1
        await finish(dispatcher)
        results = [json.loads(message.value) for message in broker.taken]
        return sorted(
            (message.topic, *result["outputs"], result["model"]["version"])
            for message, result in zip(broker.taken, results, strict=True)
        )

    assert await answer(0) == [("labels", "intent", 0), ("moods", "mood", 0), ("moods", "mood", 0)]
    newer = FakeModel([MOOD], name="spam", version=2)
    second.swap(newer)
    other.reroute(make_routes([mood], newer.manifest, "test"))
    assert await answer(3) == [("labels", "intent", 0), ("moods", "mood", 2), ("moods", "mood", 2)]
    feeding.cancel()

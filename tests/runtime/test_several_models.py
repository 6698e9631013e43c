"""Several models in one process: settings, engines on one device, and records that go to the model of their topic."""

import asyncio
import json
from dataclasses import replace

import pytest
from aiokafka.structs import ConsumerRecord, TopicPartition

from murmura.agents.analysis import agent as analysis
from murmura.agents.classification import agent as classification
from murmura.runtime.agent.model_choice import assign_models
from murmura.runtime.agent.routes import make_routes
from murmura.runtime.batching.engine import Engine
from murmura.runtime.batching.versions import ServedModel
from murmura.runtime.errors import SetupError
from murmura.runtime.flow.dispatcher import Dispatcher
from murmura.runtime.kafka.offset_tracker import Tracker
from murmura.runtime.model.memory import check_room, find_free_bytes
from murmura.runtime.observe.metrics import Metrics
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
    graph = FileEntry(path="model.onnx", role="graph:ragged", sha256="0" * 64, bytes=90_000_000)
    manifest = fake_manifest([INTENT]).model_copy(update={"files": [graph]})
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 1000 kB\n")
    assert find_free_bytes(tmp_path / "meminfo") == 1_024_000
    check_room("desk", manifest, None)
    check_room("desk", manifest, 90_000_000)
    with pytest.raises(SetupError, match=r"model desk: its graphs take 90 MB, 40 MB are free"):
        check_room("desk", manifest, 40_000_000)


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


async def test_records_go_to_the_model_of_their_topic_and_a_swap_of_one_leaves_the_other(engines):
    first, second = engines
    agents = {
        "desk": replace(classification, topics=("tickets",), output="labels"),
        "spam": replace(analysis, topics=("mails",), output="moods"),
    }
    broker, tracker = Broker(), Tracker()
    other = ServedModel(second, make_routes([agents["spam"]], second.model.manifest, "test"), "spam")
    dispatcher = Dispatcher(
        first,
        broker,
        tracker,
        Metrics(),
        routes=make_routes([agents["desk"]], first.model.manifest, "test"),
        name="desk",
        others=[other],
        dead_letters="dead",
        max_value_bytes=1000,
    )
    feeding = asyncio.create_task(dispatcher.run())

    async def answer(offset):
        broker.taken.clear()
        value = json.dumps({"text": "hello"}).encode()
        for topic in ("tickets", "mails", "mails"):
            partition = TopicPartition(topic, 0)
            record = ConsumerRecord(topic, 0, offset, 1000, 0, None, value, None, -1, len(value), ())
            offset += 1
            dispatcher.receive({partition: [record]})
        async with asyncio.timeout(60):
            while dispatcher.has_work:
                await asyncio.sleep(0.001)
        results = [json.loads(message.value) for message in broker.taken]
        return sorted(
            (message.topic, *result["outputs"], result["model"]["version"])
            for message, result in zip(broker.taken, results, strict=True)
        )

    assert await answer(0) == [("labels", "intent", 0), ("moods", "mood", 0), ("moods", "mood", 0)]
    newer = FakeModel([MOOD], name="spam", version=2)
    second.swap(newer)
    other.reroute(make_routes([agents["spam"]], newer.manifest, "test"))
    assert await answer(3) == [("labels", "intent", 0), ("moods", "mood", 2), ("moods", "mood", 2)]
    feeding.cancel()

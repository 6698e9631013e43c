"""The feedback agent: what it takes, what it refuses with which reason, what it counts."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murmura.agents.feedback.agent import REMEMBERED, FeedbackAgent, LiveAccuracy, RecentIds
from murmura.runtime.agent.agent import Agent
from murmura.runtime.agent.discovery import find_agents
from murmura.runtime.agent.handler import Context
from murmura.runtime.agent.routes import configure_agents
from murmura.runtime.errors import RecordError
from murmura.runtime.observe.metrics import Metrics
from murmura.runtime.settings.settings import Settings
from murmura.runtime.testing.fakes import FakeEngine, FakeModel
from murmura.schemas.manifest import TaskSpec

INTENT = TaskSpec(name="intent", kind="classification", labels=["refund", "praise"])
PRODUCT = TaskSpec(name="product", kind="classification", labels=["card"], open=True)
TOPICS = TaskSpec(name="topics", kind="multi_label", labels=["cards", "travel"])
PLACES = TaskSpec(name="places", kind="tagging", labels=["O", "B-place", "I-place"])
VALUE = {
    "id": "f-1",
    "prediction_id": "7525d86cb8d3ad17cc4654843b6d4a50",
    "agent": "classification",
    "task": "intent",
    "model": {"name": "desk", "version": 3},
    "verdict": "correction",
    "value": "refund",
    "by": "ann",
    "at": "2025-01-31T12:00:00Z",
}


class Record:
    headers = ()

    def __init__(self, value: bytes | None) -> None:
        self.value = value


class Process:
    def __init__(self, names=("classification", "feedback"), predicting=(), **options) -> None:
        self.engine = FakeEngine(FakeModel([INTENT, PRODUCT, TOPICS, PLACES], name="desk", version=3))
        self.metrics = Metrics()
        self.agent = FeedbackAgent()
        settings = Settings(agents={"feedback": {"options": options}})
        configure_agents(settings, [self.agent])
        self.agent.started(Context(settings, self.metrics, self.engine, tuple(names), predicting=predicting))
        self.taken = 0

    async def take(self, change: dict | bytes | None) -> None:
        self.taken += 1
        name = {"id": f"f-{self.taken}"}
        value = json.dumps(VALUE | name | change).encode() if isinstance(change, dict) else change
        assert not [*await self.agent.handle(Record(value), self.engine)]

    def count(self, **labels) -> float:
        known = {"agent": "classification", "task": "intent", "version": "3", "verdict": "correction"}
        return self.metrics.registry.get_sample_value("murmura_feedback_total", known | labels) or 0

    def live(self, task="intent", version="3") -> float | None:
        labels = {"task": task, "version": version}
        return self.metrics.registry.get_sample_value("murmura_live_accuracy", labels)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"task": "topics", "value": ["travel", "cards"]},
        {"task": "topics", "value": []},
        {"task": "places", "value": [{"label": "place", "start": 0, "end": 3}]},
        {"task": "places", "value": []},
        {"value": " refund\n"},
        {"task": "topics", "value": ["travel ", "cards"]},
        {"task": "places", "value": [{"label": " place", "start": 0, "end": 3}]},
        {"verdict": "confirmed", "value": None},
        {"verdict": "reward", "value": 1},
        {"model": None},
    ],
)
async def test_feedback_that_fits_is_taken(change):
    await Process().take(change)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (None, "no_value"),
        (b"\xff", "not_utf8"),
        (b"{", "not_json"),
        (b'{"id": "\\ud800"}', "not_json"),
        (b"[]", "invalid"),
        ({"agent": "nobody"}, "invalid"),
        ({"agent": "feedback"}, "invalid"),
        ({"task": "nothing"}, "unknown_task"),
        ({"value": "praised"}, "invalid"),
        ({"task": "topics", "value": ["cards", "trains"]}, "invalid"),
        ({"task": "places", "value": [{"label": "B-place", "start": 0, "end": 3}]}, "invalid"),
        ({"task": "places", "value": [{"label": "place", "start": 3, "end": 3}]}, "invalid"),
        ({"task": "places", "value": "place"}, "invalid"),
        ({"task": "topics", "value": "cards"}, "invalid"),
        ({"value": ["refund"]}, "invalid"),
        ({"value": " "}, "invalid"),
        ({"task": "product", "value": "\t\u3000"}, "invalid"),
        ({"task": "topics", "value": ["cards", " "]}, "invalid"),
        ({"task": "places", "value": [{"label": " ", "start": 0, "end": 3}]}, "invalid"),
        ({"at": "0001-01-01T00:00:00+14:00"}, "invalid"),
        ({"verdict": "sideways"}, "invalid"),
        ({"verdict": "confirmed"}, "invalid"),
    ],
)
async def test_what_does_not_fit_is_refused_with_its_reason(change, reason):
    process = Process()
    with pytest.raises(RecordError) as raised:
        await process.take(change)
    assert raised.value.reason == reason
    assert process.count() == 0


async def test_the_reason_never_quotes_what_was_sent():
    for change in ({"value": "my secret"}, {"agent": "my secret"}, {"task": "my secret"}, {"verdict": "my secret"}):
        with pytest.raises(RecordError) as raised:
            await Process().take(change)
        assert "secret" not in str(raised.value)


async def test_a_new_label_of_an_open_task_is_taken_and_counted():
    process = Process()
    await process.take({"task": "product", "value": "phone"})
    await process.take({"task": "product", "value": "card"})
    assert process.metrics.registry.get_sample_value("murmura_feedback_new_labels_total", {"task": "product"}) == 1


async def test_agreement_is_counted_by_task_and_version():
    process = Process()
    for verdict in ("confirmed", "up", "confirmed", "down"):
        await process.take({"verdict": verdict, "value": None})
    await process.take({"verdict": "reward", "value": 5})
    assert process.count(verdict="confirmed") == 2
    assert process.live() == 0.75
    await process.take({"model": {"name": "desk", "version": 2}})
    assert (process.live(), process.live(version="2")) == (0.75, 0.0)


async def test_feedback_that_is_delivered_again_is_not_counted_again():
    process = Process()
    for _ in range(2):
        await process.take({"id": "same"})
        await process.take({"id": "product", "task": "product", "value": "phone"})
        await process.take({"id": "back", "verdict": "withdrawn", "value": "same"})
    assert (process.count(), process.count(verdict="withdrawn"), process.count(task="product")) == (1, 1, 1)
    assert process.metrics.registry.get_sample_value("murmura_feedback_new_labels_total", {"task": "product"}) == 1


async def test_what_was_refused_is_refused_again_when_it_is_delivered_again():
    process = Process()
    for _ in range(2):
        with pytest.raises(RecordError):
            await process.take({"id": "same", "value": "unknown"})


@given(st.lists(st.integers(0, 9)), st.integers(1, 5))
def test_as_many_ids_are_remembered_as_there_is_room_for(names, size):
    recent = RecentIds(size)
    for name in names:
        recent.add(str(name))
    newest_first = list(dict.fromkeys(reversed(names)))
    assert [name for name in newest_first if str(name) in recent] == newest_first[:size]
    assert REMEMBERED < 100_000


@pytest.mark.parametrize("model", [None, {"name": "elsewhere", "version": 3}, {"name": "desk", "version": 20}])
async def test_a_version_that_cannot_be_told_has_no_series_of_its_own(model):
    process = Process()
    await process.take({"model": model})
    assert process.count(version="other") == 1
    assert process.live(version="other") is None


async def test_taking_back_is_never_refused_and_says_nothing_about_the_model():
    process = Process()
    await process.take({"verdict": "withdrawn", "value": "f-0"})
    await process.take({"verdict": "withdrawn", "value": "f-0", "agent": "nobody", "task": "gone"})
    assert process.count(verdict="withdrawn") == 1
    assert process.count(verdict="withdrawn", agent="other", task="other") == 1
    assert process.live() is None


async def test_the_settings_say_whose_predictions_are_meant():
    process = Process(agents=["triage"])
    await process.take({"agent": "triage"})
    with pytest.raises(RecordError):
        await process.take({})


@pytest.mark.parametrize(
    "agent", [find_agents(["classification"])[0], Agent("classification", ("in",), tasks=("intent",))]
)
async def test_what_an_agent_never_answers_is_refused_where_the_agent_runs(agent):
    spans = {"task": "places", "value": []}
    with pytest.raises(RecordError, match="classification never answers task places") as raised:
        await Process(predicting=(agent,)).take(spans)
    assert raised.value.reason == "invalid"
    await Process(predicting=(agent,)).take({})
    await Process(agents=["classification"]).take(spans)


async def test_running_alone_it_takes_feedback_for_the_built_in_agents():
    await Process(names=("feedback",)).take({"agent": "analysis"})


async def test_after_a_release_the_labels_are_those_of_the_new_model():
    process = Process()
    grown = INTENT.model_copy(update={"labels": [*INTENT.labels, "praised"]})
    process.engine.swap(FakeModel([grown], name="desk", version=4))
    await process.take({"value": "praised"})
    with pytest.raises(RecordError):
        await process.take({"task": "product", "value": "card"})


async def test_the_tasks_of_an_answer_of_a_candidate_are_the_candidates():
    process = Process()
    mood = INTENT.model_copy(update={"name": "mood"})
    candidate = FakeEngine(FakeModel([INTENT, mood], name="desk", version=4))
    process.engine.on_side = lambda variant: candidate if variant == "candidate" else process.engine
    await process.take({"task": "mood", "model": {"name": "desk", "version": 4, "variant": "candidate"}})
    with pytest.raises(RecordError):
        await process.take({"task": "mood", "model": {"name": "desk", "version": 3}})


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(1, 20))
def test_live_accuracy_is_the_share_in_the_last_verdicts(verdicts, window):
    live = LiveAccuracy(window)
    for number, agrees in enumerate(verdicts, 1):
        last = verdicts[max(0, number - window) : number]
        assert live.add("intent", "1", agrees) == sum(last) / len(last)


def test_it_is_found_by_name_anew_each_time_with_its_topic_under_the_prefix():
    first, second = find_agents(["feedback"], "acme"), find_agents(["feedback"], "zeta")
    assert (first[0].topics, second[0].topics) == (("acme.feedback",), ("zeta.feedback",))

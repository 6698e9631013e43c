"""Who reads what is settled at start: what cannot work is refused there, and nobody gets what another asked for."""

import pytest

from murmura.runtime.agent.agent import agent
from murmura.runtime.agent.discovery import find_agents
from murmura.runtime.agent.handler import Handler
from murmura.runtime.agent.routes import configure_agents, make_routes
from murmura.runtime.errors import RecordError, SetupError
from murmura.runtime.kafka.offset_tracker import Progress
from murmura.runtime.output.delivery import Attempt, Delivery
from murmura.runtime.settings.settings import Settings
from murmura.runtime.testing.fakes import FakeModel, fake_manifest
from murmura.runtime.testing.rehearsal import _make_message, _make_record, rehearse
from murmura.runtime.wire.request import read_request
from murmura.schemas.manifest import TaskSpec

INTENT = TaskSpec(name="intent", kind="classification", labels=["refund", "praise"])
MOOD = TaskSpec(name="mood", kind="classification", labels=["good", "bad"])
MODEL = FakeModel([INTENT, MOOD])


class Reader(Handler):
    def __init__(self, name: str, topic: str, tasks: tuple[str, ...] = ()) -> None:
        self.name, self.topics, self.tasks = name, (topic,), tasks

    async def handle(self, record, engine):
        return ()


def answering(name: str, *tasks: str, topic: str = "in"):
    return agent(topics=[topic], tasks=tasks, output=f"{name}.out", name=name)(
        lambda request, prediction: prediction.outputs
    )


@pytest.mark.parametrize(
    "everyone",
    [
        [answering("a", "intent"), Reader("h", "in")],
        [Reader("h", "in"), answering("a", "intent")],
        [Reader("h", "in"), Reader("a", "in")],
    ],
)
def test_a_topic_that_a_handler_shares_is_refused_in_one_line_with_both_names(everyone):
    with pytest.raises(
        SetupError, match=r"^(h and a|a and h) both read in: a handler has its topics for itself[^\n]*$"
    ):
        configure_agents(Settings(), everyone)


def test_topics_are_compared_as_the_settings_have_them():
    settings = Settings(agents={"h": {"topics": ["in"]}})
    with pytest.raises(SetupError, match="both read in"):
        configure_agents(settings, [answering("a", "intent"), Reader("h", "elsewhere")])
    apart = Settings(agents={"h": {"topics": ["elsewhere"]}})
    assert len(configure_agents(apart, [answering("a", "intent"), Reader("h", "in")])) == 2


@pytest.mark.parametrize("other", [answering("a", "intent", topic="other"), Reader("a", "other")])
def test_equal_names_are_refused(other):
    with pytest.raises(SetupError, match="two agents are called a: give each its own name"):
        configure_agents(Settings(), [answering("a", "intent"), other])


async def test_a_handler_whose_tasks_the_first_model_lacks_is_refused_at_start():
    with pytest.raises(SetupError, match=r"handler h: fake 0 has no task colour; its tasks are intent, mood"):
        await rehearse([Reader("h", "in", ("intent", "colour"))], {"text": "a"}, model=MODEL)


async def test_a_task_named_twice_counts_once_and_gives_no_agent_the_answers_of_another():
    answers = await rehearse(
        [answering("a", "intent"), answering("b", "mood")],
        {"text": "one", "tasks": ["intent", "intent", "mood"]},
        model=MODEL,
    )
    assert {result["agent"]: set(result["outputs"]) for result in answers.results} == {"a": {"intent"}, "b": {"mood"}}


async def test_a_dead_letter_does_not_quote_the_task_that_a_request_names():
    answers = await rehearse(
        [answering("a", "intent")], {"text": "one", "tasks": ["intent", "my card number is 4000"]}, model=MODEL
    )
    (letter,) = answers.dead_letters
    message = dict(letter.headers)["murmura_dl_message"].decode()
    assert message == "no agent on in answers task 2 of the 2 named; answered are intent"


def delivery_of(attempt: Attempt, value: dict) -> Delivery:
    record = _make_record(_make_message("in", value), 0)
    return Delivery(record, Progress(), read_request(record, 1000), attempt)


def test_another_attempt_asks_only_the_agent_that_it_names():
    route = make_routes([answering("a", "intent"), answering("b", "mood")], MODEL.manifest, "test")["in"]
    delivery = delivery_of(Attempt(2, only_agent="b"), {"text": "one"})
    delivery.settle(route)
    assert [(bound.agent.name, tasks) for bound, tasks in delivery.asked] == [("b", ("mood",))]
    assert delivery.tasks() == ("mood",)


def test_another_attempt_for_an_agent_that_is_gone_is_a_failure_of_its_record():
    route = make_routes([answering("a", "intent")], MODEL.manifest, "test")["in"]
    with pytest.raises(RecordError, match="agent b answers none of it on in here"):
        delivery_of(Attempt(2, only_agent="b"), {"text": "one"}).settle(route)


def tasks_by_default(name: str, *tasks: TaskSpec) -> tuple[str, ...]:
    (route,) = make_routes(find_agents([name]), fake_manifest(tasks), "app").values()
    return route.tasks


def test_a_task_is_answered_by_default_by_the_agents_that_it_lists():
    urgency = TaskSpec(name="urgency", kind="classification", labels=["low", "high"], default_for=["analysis"])
    places = TaskSpec(name="places", kind="tagging", labels=["O", "B-x", "I-x"], default_for=[])
    parts = TaskSpec(name="parts", kind="tagging", labels=["O", "B-x", "I-x"])
    assert tasks_by_default("analysis", INTENT, urgency, places, parts) == ("urgency", "parts")
    assert tasks_by_default("classification", INTENT, urgency, places, parts) == ("intent",)


def test_of_a_manifest_without_such_lists_spans_and_a_task_called_sentiment_are_analysed():
    sentiment = TaskSpec(name="sentiment", kind="classification", labels=["good", "bad"])
    parts = TaskSpec(name="parts", kind="tagging", labels=["O", "B-x", "I-x"])
    assert tasks_by_default("analysis", INTENT, sentiment, parts) == ("sentiment", "parts")
    assert tasks_by_default("classification", INTENT, sentiment, parts) == ("intent", "sentiment")

"""Routing by rule: what fits is arithmetic, what cannot work is refused at start, what fits travels on as it came."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import ENTITIES, INTENT, SENTIMENT, TOPICS

from murmura.agents.analysis import agent as analysis
from murmura.agents.classification import agent as classification
from murmura.agents.feedback import FeedbackAgent
from murmura.runtime.agent.agent import agent
from murmura.runtime.agent.routes import configure_agents
from murmura.runtime.errors import SetupError
from murmura.runtime.settings.routing_rules import Rule, select_topics
from murmura.runtime.settings.settings import Settings
from murmura.runtime.settings.sources import load
from murmura.runtime.testing.fakes import FakeModel, abstained, classified, labelled, tagged
from murmura.runtime.testing.rehearsal import rehearse

ANALYSIS = "murmura.analysis.requests"


def rule(topic: str = "out", **conditions) -> Rule:
    return Rule(agent="a", task=None if conditions.get("otherwise") else "intent", topic=topic, **conditions)


def to(*rules: Rule, **outputs) -> tuple[str, ...]:
    return select_topics(rules, outputs)


@pytest.mark.parametrize(
    ("conditions", "output", "fits"),
    [
        ({"label": "refund"}, classified("refund", 0.6), True),
        ({"label": ["transfer", "refund"]}, classified("refund", 0.6), True),
        ({"label": "transfer"}, classified("refund", 0.6), False),
        ({"label": "refund", "score_at_least": 0.6}, classified("refund", 0.6), True),
        ({"label": "refund", "score_below": 0.6}, classified("refund", 0.6), False),
        ({"score_at_least": 0.2, "score_below": 0.7}, classified("refund", 0.6), True),
        ({"label": "refund"}, abstained("refund", 0.3), False),
        ({"abstained": True}, abstained("refund", 0.3), True),
        ({"abstained": True, "score_at_least": 0.4}, abstained("refund", 0.3), False),
        ({"abstained": False}, classified("refund", 0.3), True),
        ({"label": "cards", "score_at_least": 0.8}, labelled(travel=0.9, cards=0.7), False),
        ({"label": "cards"}, labelled(travel=0.9, cards=0.7), True),
        ({"abstained": True}, labelled(), True),
        ({"score_below": 1.0}, labelled(), False),
        ({"label": "place"}, tagged("to london", place="london"), True),
        ({"label": "time"}, tagged("to london", place="london"), False),
    ],
)
def test_a_rule_fits_when_one_answer_meets_all_that_it_says(conditions, output, fits):
    assert to(rule(**conditions), intent=output) == (("out",) if fits else ())


def test_every_rule_that_fits_hands_on_and_a_topic_gets_a_record_once():
    rules = (rule("a", label="refund"), rule("b", score_at_least=0.1), rule("a", abstained=False), rule("c", label="x"))
    assert to(*rules, intent=classified("refund", 0.9)) == ("a", "b")


def test_the_rest_is_what_no_other_rule_takes():
    rules = (rule("people", otherwise=True), rule("a", label="refund"))
    assert to(*rules, intent=classified("refund")) == ("a",)
    assert to(*rules, intent=classified("transfer")) == ("people",)
    assert to(*rules) == ("people",), "the task was not asked for"


scores = st.floats(0, 1)


@given(score=scores, limit=scores)
def test_every_score_is_either_below_a_limit_or_at_least_it(score, limit):
    found = to(rule("low", score_below=limit), rule("high", score_at_least=limit), intent=classified("refund", score))
    assert found == (("low",) if score < limit else ("high",))


conditions = st.fixed_dictionaries(
    {"topic": st.sampled_from("abc")},
    optional={"label": st.sampled_from([["x"], ["y"], ["x", "y"]]), "score_at_least": scores},
).filter(lambda given: len(given) > 1)
outputs = st.one_of(
    st.builds(classified, st.sampled_from("xyz"), scores),
    st.builds(abstained, st.sampled_from("xyz"), scores),
    st.dictionaries(st.sampled_from("xyz"), scores).map(lambda found: labelled(**found)),
)


@given(rules=st.lists(conditions, max_size=4), output=outputs)
def test_rules_do_not_depend_on_each_other_or_their_order(rules, output):
    made = [rule(**one) for one in rules]
    together = to(*made, intent=output)
    assert set(together) == {topic for one in made for topic in to(one, intent=output)}
    assert set(to(*reversed(made), intent=output)) == set(together)
    assert bool(to(*made, rule("rest", otherwise=True), intent=output)) is True


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("{agent: a, task: t, lable: x, topic: o}", 2, "routing.0.lable is not a setting; did you mean label?"),
        ("{agent: a, task: t, topic: o}", 2, "a task without a condition"),
        ("{agent: a, label: x, topic: o}", 2, "task is missing"),
        ("{agent: a, task: t, otherwise: true, topic: o}", 2, "otherwise clashes with task"),
        ("{agent: a, task: t, label: x, abstained: true, topic: o}", 2, "clashes with label"),
        ("{agent: a, task: t, score_below: 0.2, score_at_least: 0.5, topic: o}", 2, "must be above"),
        ("{agent: a, task: t, label: [], topic: o}", 2, "routing.0.label"),
        ("{agnet: a, task: t, label: x, topic: o}", 2, "routing.0.agnet is not a setting; did you mean agent?"),
        ("agent: a\n    task: t\n    label: yes\n    topic: o", 4, "YAML reads this as true or false; put it in quotes"),
        ("agent: a\n    task: t\n    label: [a, 3]\n    topic: o", 4, "reads this as 3 (int), not as text: put it in quotes"),
        ("{agent: a, task: t, label: x, label: y, topic: o}", 2, "routing.label: this key is a duplicate"),
        ("{agent: a, task: t, label: x}", 2, "routing.0.topic: field required"),
        ("{agent: a, otherwise: true, topic: o}\n  - agent: b\n    otherwise: true\n    topic: 'o o'", 5, "routing.1.topic"),
    ],
)  # fmt: skip
def test_a_rule_that_is_wrong_is_one_line_with_file_line_and_key(text, line, why, tmp_path: Path):
    (tmp_path / "m.yaml").write_text(f"routing:\n  - {text}\n")
    with pytest.raises(SetupError) as refused:
        load(tmp_path / "m.yaml", environment=False)
    message = str(refused.value)
    assert message.startswith(f"{tmp_path / 'm.yaml'}, line {line}: ")
    assert why in message
    assert "\n" not in message


MODEL = FakeModel(
    [INTENT, SENTIMENT, TOPICS, ENTITIES],
    {"it broke": {"sentiment": classified("negative", 0.9)}, "lovely": {"sentiment": classified("positive", 0.9)}},
)


def settings(tmp_path: Path, rules: str, **more) -> Settings:
    (tmp_path / "m.yaml").write_text(f"app: desk\nrouting:\n{rules}")
    return load(tmp_path / "m.yaml", more, environment=False)


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ("{agent: clasification, otherwise: true, topic: o}", "routing.0.agent: no agent clasification that predicts"),
        ("{agent: feedback, otherwise: true, topic: o}", "routing.0.agent: no agent feedback that predicts"),
        ("{agent: classification, task: mood, label: x, topic: o}", "routing.0.task: classification does not answer mood"),
        ("{agent: classification, task: entities, label: x, topic: o}", "routing.0.task: classification does not answer"),
        ("{agent: classification, task: sentiment, label: angry, topic: o}", "routing.0.label: angry is not a label of"),
        ("{agent: classification, task: intent, label: other, topic: o}", "routing.0.label: other is never answered"),
        ("{agent: classification, otherwise: true, topic: murmura.classification.requests}", "routing.0.topic: "),
        ("{agent: classification, otherwise: true, topic: murmura.classification.results}", "routing.0.topic: murmura.classification.results takes the results of"),
        ("{agent: classification, otherwise: true, topic: murmura.deadletters}", "routing.0.topic: murmura.deadletters holds records of another kind (dead letter)"),
        ("{agent: classification, otherwise: true, topic: murmura.dialogue.state}", "routing.0.topic: murmura.dialogue.state holds records of another kind (conversation state)"),
        ("{agent: classification, otherwise: true, topic: murmura.models}", "routing.0.topic: murmura.models holds records of another kind (release state)"),
    ],
)  # fmt: skip
async def test_a_rule_that_the_agents_or_the_model_do_not_know_is_refused_at_its_line(rule, why, tmp_path):
    with pytest.raises(SetupError) as refused:
        await rehearse(
            [classification, FeedbackAgent()], {"text": "x"}, model=MODEL, settings=settings(tmp_path, f"  - {rule}\n")
        )
    assert str(refused.value).startswith(f"{tmp_path / 'm.yaml'}, line 3: {why}")


@pytest.mark.parametrize(
    ("agent", "task", "line", "why"),
    [
        ("nobody", "intent", 3, "routing.0.agent: no agent nobody that predicts"),
        ("classification", "mood", 4, "routing.0.task: classification does not answer mood"),
        ("classification", "sentiment", 7, "routing.0.label.1: angry is not a label of sentiment"),
    ],
)
async def test_a_rule_over_many_lines_is_refused_at_the_line_of_its_key(agent, task, line, why, tmp_path):
    rules = f"  - agent: {agent}\n    task: {task}\n    label:\n      - negative\n      - angry\n    topic: o\n"
    with pytest.raises(SetupError) as refused:
        await rehearse([classification], {"text": "x"}, model=MODEL, settings=settings(tmp_path, rules))
    assert str(refused.value).startswith(f"{tmp_path / 'm.yaml'}, line {line}: {why}")


def test_settings_of_an_agent_that_is_not_here_are_refused_at_their_line(tmp_path):
    (tmp_path / "m.yaml").write_text("app: desk\nagents:\n  clasification:\n    topics: [x]\n")
    with pytest.raises(SetupError) as refused:
        configure_agents(load(tmp_path / "m.yaml", environment=False), [classification])
    assert str(refused.value) == (
        f"{tmp_path / 'm.yaml'}, line 3: agents.clasification: no such agent runs here; those that do: classification"
    )


async def test_a_span_is_named_by_its_label_as_results_name_it(tmp_path):
    model = FakeModel([SENTIMENT, ENTITIES], {"to london": {"entities": tagged("to london", place="london")}})
    rules = "  - {agent: analysis, task: entities, label: place, topic: travel}\n"
    answers = await rehearse(
        [analysis], {"text": "to london"}, {"text": "no"}, model=model, settings=settings(tmp_path, rules)
    )
    assert [message.topic for message in answers.handed_on] == ["travel"]


async def test_what_fits_travels_on_as_it_came_with_its_id_its_cause_and_one_hop_more(tmp_path):
    rules = (
        "  - {agent: classification, task: sentiment, label: negative, topic: murmura.analysis.requests}\n"
        "  - {agent: classification, otherwise: true, topic: people}\n"
    )
    answers = await rehearse(
        [classification, analysis],
        ("customer", {"id": "1", "text": "it broke", "more": "of it"}),
        ("customer", {"id": "2", "text": "lovely"}),
        model=MODEL,
        settings=settings(tmp_path, rules),
    )
    onward = [message for message in answers.published if message.topic in {ANALYSIS, "people"}]
    assert [message.topic for message in onward] == [ANALYSIS, "people"]
    assert (onward[0].key, onward[0].value) == (b"customer", b'{"id": "1", "text": "it broke", "more": "of it"}')
    assert dict(onward[0].headers) == {
        "content-type": b"application/vnd.murmura.request+json",
        "murmura_request_id": b"1",
        "murmura_cause": b"1",
        "murmura_hops": b"1",
    }
    assert [(r["agent"], r["request_id"]) for r in answers.results] == [
        ("classification", "1"), ("classification", "2"), ("analysis", "1")
    ]  # fmt: skip


async def test_an_agent_that_says_nothing_hands_nothing_on(tmp_path):
    @agent(topics=["in"], tasks=["sentiment"], output="out")
    def silent(request, prediction):
        return None

    rules = "  - {agent: silent, otherwise: true, topic: people}\n"
    answers = await rehearse([silent], {"text": "it broke"}, model=MODEL, settings=settings(tmp_path, rules))
    assert answers.published == []


async def test_agents_that_hand_on_in_a_circle_end_with_a_dead_letter(tmp_path):
    rules = (
        "  - {agent: classification, otherwise: true, topic: murmura.analysis.requests}\n"
        "  - {agent: analysis, otherwise: true, topic: murmura.classification.requests}\n"
    )
    few = settings(tmp_path, rules, limits={"max_hops": 4})
    answers = await rehearse([classification, analysis], {"id": "1", "text": "it broke"}, model=MODEL, settings=few)
    (letter,) = answers.dead_letters
    headers = dict(letter.headers)
    assert (headers["murmura_dl_reason"], headers["murmura_hops"]) == (b"hop_limit", b"5")
    assert letter.value == b'{"id": "1", "text": "it broke"}'
    assert [result["agent"] for result in answers.results] == ["classification", "analysis"] * 2 + ["classification"]

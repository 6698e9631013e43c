"""`murmura dialogue generation` as typed: a step of the model's releases, and one line where there are none."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from murmura.agents.dialogue.commands.dialogue import Switch, change, dialogue_app
from murmura.runtime.agent.discovery import find_commands
from murmura.runtime.cli.models import models_app
from murmura.runtime.cli.until_signalled import run_until_stopped
from murmura.runtime.errors import SetupError
from murmura.runtime.kafka.embedded_broker import EmbeddedBroker
from murmura.runtime.release.states import publish_state
from murmura.runtime.settings.settings import KafkaSettings
from murmura.schemas.release import GeneratedReplies, released


@pytest.fixture
def broker(unique, monkeypatch) -> Iterator[str]:
    prefix = unique("p")
    monkeypatch.setenv("MURMURA_PREFIX", prefix)
    with EmbeddedBroker({f"{prefix}.models": 1}) as embedded:
        state = released(None, "desk", 1, "aa" * 32, by="ann", why="first", at=datetime.now(UTC))
        kafka = KafkaSettings(bootstrap_servers=embedded.bootstrap)
        run_until_stopped(lambda stop: publish_state(kafka, f"{prefix}.models", state))
        yield embedded.bootstrap


def run(app, *arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def test_a_switch_is_a_step_of_the_releases_with_its_author_and_reason(broker):
    at = ("--model", "desk", "--bootstrap", broker)
    off = run(dialogue_app, "generation", "off", "--intent", "fees", "--why", "odd", "--by", "bo", *at)
    assert off == "generated replies of desk are off for fees (generation 2)\n"
    again = run(dialogue_app, "generation", "off", "--intent", "fees", *at)
    assert again == "generated replies of desk are already off for fees (generation 2)\n"
    assert run(dialogue_app, "generation", "on", *at) == "generated replies of desk are on (generation 3)\n"
    history = run(models_app, "history", "desk", "--bootstrap", broker)
    assert "1 (generated replies off for fees)" in history
    assert "bo" in history


def test_an_intent_that_the_policy_lacks_is_refused_with_the_nearest_ones_unless_it_is_off(broker, tmp_path):
    (tmp_path / "policy.yaml").write_text("intents: {feet: {reply: Sorry.}, fees: {reply: Two euros.}}\n")
    config = tmp_path / "murmura.yaml"
    config.write_text("agents: {dialogue: {options: {policy: policy.yaml}}}\n")
    at = ("--model", "desk", "--bootstrap", broker, "--config", str(config))
    with pytest.raises(
        SetupError, match=r"--intent: policy .* has no intent 'fee'; .* did you mean (fees or feet|feet or fees)\?"
    ):
        run(dialogue_app, "generation", "off", "--intent", "fee", *at)
    run(dialogue_app, "generation", "off", "--intent", "fees", *at)
    (tmp_path / "policy.yaml").write_text("intents: {feet: {reply: Sorry.}}\n")
    assert "are on" in run(dialogue_app, "generation", "on", "--intent", "fees", *at)


def test_without_a_policy_it_says_that_the_intent_is_not_checked(broker):
    result = CliRunner().invoke(
        dialogue_app, ["generation", "off", "--intent", "fees", "--model", "desk", "--bootstrap", broker]
    )
    assert "--intent is not checked against the policy: agents.dialogue.options.policy names none" in result.stderr


def test_without_releases_it_says_that_it_is_a_setting(broker):
    with pytest.raises(SetupError, match=r"other has no release to switch; .*`generated_replies_off: all`"):
        run(dialogue_app, "generation", "off", "--model", "other", "--bootstrap", broker)
    with pytest.raises(SetupError, match=r"no released model is named: .* without releases it is a setting"):
        run(dialogue_app, "generation", "off", "--bootstrap", broker)


@pytest.mark.parametrize(
    ("off", "switch", "intents", "then"),
    [
        ([], "off", [], "all"),
        (["a"], "off", ["c", "b", "a"], ["a", "b", "c"]),
        (["a", "b"], "on", ["a", "x"], ["b"]),
        (["a", "b"], "on", [], []),
        ("all", "off", ["a"], "all"),
        ("all", "on", [], []),
    ],
)
def test_intents_are_switched_one_by_one_or_all(off, switch, intents, then):
    assert change(GeneratedReplies(off=off), Switch(switch), intents).off == then


def test_one_intent_among_all_that_are_off_cannot_be_on():
    with pytest.raises(SetupError, match="switch them on without --intent first"):
        change(GeneratedReplies(off="all"), Switch.ON, ["a"])


@pytest.mark.parametrize("name", ["", "x" * 201])
def test_what_cannot_be_an_intents_name_is_one_line(name):
    with pytest.raises(SetupError, match="--intent: expected the name of an intent"):
        change(GeneratedReplies(), Switch.OFF, [name])


def test_the_commands_of_dialogues_are_installed():
    assert {"chat", "dialogue", "knowledge"} <= {point.name for point in find_commands()}

"""Long texts on their way through the agents: cut or read in windows, as the settings say, and counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murmura.runtime.agent.agent import Agent
from murmura.runtime.agent.routes import apply_settings, make_routes
from murmura.runtime.errors import SetupError
from murmura.runtime.model.texts.long_texts import Windows
from murmura.runtime.settings.settings import AgentSettings
from murmura.runtime.testing.fakes import FakeModel, classified
from murmura.runtime.testing.rehearsal import rehearse
from murmura.schemas.manifest import TaskSpec

INTENT = TaskSpec(name="intent", kind="classification", labels=["a", "b"])
LONG = "word " * 300
PLAIN = Agent(name="desk", topics=("in",), output="out")


def in_windows(agent=PLAIN, **given):
    return apply_settings(agent, AgentSettings(long_texts="windows", **given))


async def answered(agent, text):
    answers = await rehearse(
        [agent], {"text": text}, model=FakeModel([INTENT], lambda text: {"intent": classified("b")})
    )
    (result,) = answers.results
    return result


async def test_without_windows_a_long_text_is_cut_and_the_result_says_so():
    assert (await answered(PLAIN, LONG))["truncated"]
    assert not (await answered(PLAIN, "short"))["truncated"]


async def test_with_windows_all_of_it_is_read():
    assert not (await answered(in_windows(), LONG))["truncated"]


async def test_a_text_of_too_many_windows_is_truncated():
    assert (await answered(in_windows(max_windows=2), LONG))["truncated"]


def test_settings_replace_what_the_agent_declares_one_by_one():
    declared = Agent(name="desk", topics=("in",), output="out", windows=Windows(most=8, merge="mean"))
    assert apply_settings(declared, AgentSettings(max_windows=3)).windows == Windows(most=3, merge="mean")
    assert apply_settings(declared, AgentSettings(long_texts="cut")).windows is None
    assert apply_settings(PLAIN, AgentSettings(max_windows=3)).windows is None
    assert in_windows(window_tokens=32, window_overlap=4, window_scores="mean").windows == Windows(64, 32, 4, "mean")


def test_agents_of_a_topic_read_long_texts_alike():
    other = Agent(name="other", topics=("in",), output="out2")
    with pytest.raises(SetupError, match="desk and other both read in and read long texts differently"):
        make_routes([in_windows(), other], FakeModel([INTENT]).manifest, "app")


@given(st.sampled_from(["max_windows", "window_tokens", "window_overlap"]), st.integers(8, 100))
def test_windows_that_are_set_and_not_wanted_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} clashes with long_texts cut"):
        AgentSettings(long_texts="cut", **{name: value})

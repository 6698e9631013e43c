"""Release states and the steps between them: newer by generation, back by one more step, and bounded."""

import json
from contextlib import suppress
from datetime import UTC, datetime

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from murmura.schemas.generate import schema_of
from murmura.schemas.release import (
    HISTORY,
    Candidate,
    GeneratedReplies,
    ReleaseState,
    is_switch_only,
    released,
    rolled_back,
    switched,
)

NOON = datetime(2025, 1, 31, 12, tzinfo=UTC)
SAID = {"by": "ann", "why": "fewer errors", "at": NOON}

# A state of the first version with every field spelled out. Only added to, never edited.
FIRST = {
    "name": "desk",
    "generation": 3,
    "current": {"version": 1, "digest": "aa" * 32},
    "candidate": {"version": 2, "digest": "bb" * 32, "share": 0.1},
    "history": [
        {"version": 1, "generation": 1, "by": "ann", "why": "first", "at": "2025-01-31T12:00:00Z"},
        {
            "version": 2,
            "generation": 2,
            "by": "ann",
            "why": "second",
            "at": "2025-01-31T13:00:00Z",
            "digest": "bb" * 32,
            "restores": None,
        },
        {"version": 1, "generation": 3, "by": "bo", "why": "worse", "at": "2025-01-31T14:00:00Z", "restores": 1},
    ],
}


def digest(version: int) -> str:
    return f"{version:064x}"


def release(state: ReleaseState | None, version: int) -> ReleaseState:
    return released(state, "desk", version, digest(version), **SAID)


def after(*steps: int | str) -> ReleaseState:
    state = None
    for step in steps:
        state = release(state, step) if isinstance(step, int) else rolled_back(state, **SAID)
    return state


def test_a_state_of_the_first_version_stays_readable():
    state = ReleaseState.model_validate(FIRST)
    assert json.loads(state.model_dump_json())["current"] == FIRST["current"]
    assert (state.candidate.share, state.candidate.shadow) == (0.1, None)
    assert state.history[1].at == datetime(2025, 1, 31, 13, tzinfo=UTC)
    jsonschema.validate(FIRST, schema_of("release.v1"))


def test_the_shape_on_the_wire_is_that_of_the_contract():
    wire = json.loads(after(4).model_dump_json())
    assert list(wire) == ["name", "generation", "current", "candidate", "generated_replies", "history"]
    assert wire["current"] == {"version": 4, "digest": digest(4)}
    assert wire["candidate"] is None
    assert (
        wire["history"][0].items()
        >= {
            "version": 4,
            "generation": 1,
            "by": "ann",
            "why": "fewer errors",
            "at": "2025-01-31T12:00:00Z",
        }.items()
    )


BACK = "back"


@pytest.mark.parametrize(
    ("steps", "current"),
    [
        ([1, 2, BACK], 1),
        ([1, 2, 3, BACK], 2),
        ([1, 2, 3, BACK, BACK], 1),
        ([1, 2, BACK, 3, BACK], 1),
        ([1, 2, 3, 1, BACK], 3),
        ([1, 2, 2, 2, BACK], 1),
        ([1, 2, 3, BACK, 4, BACK, BACK], 1),
    ],
)
def test_back_is_to_the_version_before(steps, current):
    state = after(*steps)
    assert state.current.version == state.history[-1].version == current
    assert state.current.digest == digest(current)
    assert state.generation == len(steps)


@pytest.mark.parametrize("steps", [[1], [1, 1], [1, 2, BACK]])
def test_before_the_first_version_there_is_nothing(steps):
    with pytest.raises(LookupError, match="desk has no version before 1"):
        rolled_back(after(*steps), **SAID)


versions = st.integers(1, 9)


@given(st.lists(st.one_of(versions, st.just(BACK)), max_size=120))
def test_every_step_is_newer_and_the_history_stays_bounded(steps):
    state = release(None, 1)
    for step in steps:
        try:
            new = release(state, step) if isinstance(step, int) else rolled_back(state, **SAID)
        except LookupError:
            continue
        assert new.generation == state.generation + 1
        assert len(new.history) <= HISTORY
        assert new.history[-1].generation == new.generation
        assert new.history[-1].version == new.current.version
        assert new.history[:-1] == state.history[-(HISTORY - 1) :]
        assert ReleaseState.model_validate_json(new.model_dump_json()) == new
        state = new


def test_many_switches_leave_a_version_to_go_back_to():
    state = after(1, 2)
    for number in range(2 * HISTORY):
        state = switched(state, GeneratedReplies(off="all" if number % 2 else []), **SAID)
    assert len(state.history) == HISTORY
    assert rolled_back(state, **SAID).current.version == 1


@given(st.lists(versions, min_size=1, max_size=60), versions)
def test_going_back_undoes_a_release(before, version):
    state = after(*before)
    if version != state.current.version:
        assert rolled_back(release(state, version), **SAID).current == state.current


@given(st.lists(versions, min_size=1, max_size=HISTORY // 2))
def test_going_back_again_and_again_ends_at_the_first_release(before):
    states = [after(*before)]
    with suppress(LookupError):
        while True:
            states.append(rolled_back(states[-1], **SAID))
    assert len(states) <= HISTORY
    way = [version for i, version in enumerate(before) if i == 0 or before[i - 1] != version]
    assert [state.current.version for state in states] == way[::-1]


def test_a_candidate_does_not_outlive_the_version_it_was_measured_against():
    state = after(1, 2).model_copy(update={"candidate": Candidate(version=3, digest=digest(3), shadow=1.0)})
    assert release(state, 3).candidate is None
    assert rolled_back(state, **SAID).candidate is None


def test_a_state_of_another_model_is_not_built_on():
    with pytest.raises(ValueError, match="a state of desk cannot become one of shop"):
        released(after(1), "shop", 2, digest(2), **SAID)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../desk"},
        {"generation": 0},
        {"current": {"version": 0, "digest": digest(1)}},
        {"current": {"version": 1, "digest": "short"}},
        {"candidate": {"version": 2, "digest": digest(2)}},
        {"candidate": {"version": 2, "digest": digest(2), "share": 0.5, "shadow": 0.5}},
        {"candidate": {"version": 2, "digest": digest(2), "share": 1.5}},
    ],
)
def test_what_is_no_state_is_refused(change):
    with pytest.raises(ValidationError):
        ReleaseState.model_validate({**FIRST, **change})


def test_a_switch_keeps_the_versions_and_is_kept_by_releases_and_rollbacks():
    off = GeneratedReplies(off=["card_arrival"])
    state = switched(after(1, 2, "back"), off, **SAID)
    assert (state.generation, state.current.version, state.generated_replies) == (4, 1, off)
    assert (state.history[-1].generated_replies, state.history[-1].restores) == (off, 1)
    later = rolled_back(release(state, 3), **SAID)
    assert (later.current.version, later.generated_replies) == (1, off)
    on = switched(later, GeneratedReplies(), **SAID)
    assert ReleaseState.model_validate_json(on.model_dump_json()) == on
    tried = state.model_copy(update={"candidate": Candidate(version=3, digest=digest(3), share=0.1)})
    assert switched(tried, GeneratedReplies(), **SAID).candidate == tried.candidate


def test_after_a_switch_a_rollback_goes_where_it_would_have_gone():
    off = GeneratedReplies(off="all")
    assert rolled_back(switched(after(1, 2), off, **SAID), **SAID).current.version == 1
    back = switched(after(1, 2, 3, "back"), off, **SAID)
    assert (back.current.version, rolled_back(back, **SAID).current.version) == (2, 1)


def test_a_switch_alone_is_nothing_to_load_and_a_release_between_is():
    before, off = after(1, 2), GeneratedReplies(off="all")
    twice = switched(switched(before, off, **SAID), GeneratedReplies(), **SAID)
    assert is_switch_only(before, twice)
    assert not is_switch_only(before, before)
    assert not is_switch_only(before, switched(release(before, 2), off, **SAID))
    assert not is_switch_only(before, switched(release(before, 3), off, **SAID))


@pytest.mark.parametrize(
    ("off", "intent", "allowed", "said"),
    [
        ([], "a", True, "on"),
        ([], None, True, "on"),
        (["a"], "a", False, "off for a"),
        (["a", "b"], None, True, "off for a, b"),
        ("all", None, False, "off for all"),
    ],
)
def test_replies_are_allowed_by_intent(off, intent, allowed, said):
    replies = GeneratedReplies(off=off)
    assert (replies.allows(intent), str(replies)) == (allowed, said)

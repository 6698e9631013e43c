"""Steps of an experiment from one release state to the next: one at a time, shares that only grow, and the way back."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from murmura.schemas.experiment import Experiment, Rules
from murmura.schemas.release import (
    HISTORY,
    GeneratedReplies,
    ReleaseState,
    completed,
    is_switch_only,
    keeps_current,
    promoted,
    raised,
    released,
    rolled_back,
    shadowed,
    started,
    stopped,
    switched,
)

NOON = datetime(2025, 1, 31, 12, tzinfo=UTC)
BY = {"by": "ann", "why": "fewer errors", "at": NOON}
LATER = {**BY, "at": NOON + timedelta(hours=1)}


def digest(version: int) -> str:
    return f"{version:064x}"


def experiment(share: float = 0.05, **fields: object) -> Experiment:
    return Experiment(id="desk-3", share=share, started=NOON, **fields)


def release(version: int, state: ReleaseState | None = None) -> ReleaseState:
    return released(state, "desk", version, digest(version), **BY)


def begin(share: float = 0.05, **fields: object) -> ReleaseState:
    return started(release(2, release(1)), 3, digest(3), experiment(share, **fields), **BY)


def test_an_experiment_from_its_start_to_its_end():
    state = begin()
    assert (state.generation, state.current.version, state.candidate.version) == (3, 2, 3)
    assert (state.candidate.share, state.candidate.experiment.unit) == (0.05, "key")
    state = raised(state, 0.5, **LATER)
    assert (state.candidate.share, state.candidate.experiment.share) == (0.5, 0.05)
    assert [(step.share, step.at) for step in state.candidate.experiment.raises] == [(0.5, LATER["at"])]
    state = promoted(state, **LATER)
    assert (state.candidate.share, state.candidate.experiment.promoted) == (0.95, LATER["at"])
    state = completed(state, **LATER)
    assert (state.current.version, state.current.digest, state.candidate) == (3, digest(3), None)
    steps = [(s.experiment, s.version, s.candidate, s.share) for s in state.history[2:]]
    assert steps == [
        ("started", 2, 3, 0.05),
        ("raised", 2, 3, 0.5),
        ("promoted", 2, 3, 0.95),
        ("completed", 3, 3, None),
    ]
    assert rolled_back(state, **LATER).current.version == 2
    assert rolled_back(rolled_back(state, **LATER), **LATER).current.version == 1


def test_what_runs_is_stopped_also_after_the_promotion_and_the_current_version_stays():
    for state in (begin(), promoted(begin(), **BY), shadowed(release(2), 3, digest(3), 0.1, **BY)):
        after = stopped(state, **LATER)
        assert (after.candidate, after.current, after.generation) == (None, state.current, state.generation + 1)
        assert (after.history[-1].experiment, after.history[-1].candidate) == ("stopped", 3)


def test_a_shadow_has_no_experiment_and_since_when_it_runs():
    state = shadowed(release(2), 3, digest(3), 0.1, **BY)
    assert (state.candidate.shadow, state.candidate.since, state.candidate.experiment) == (0.1, NOON, None)
    assert state.history[-1].experiment == "shadow"
    assert started(stopped(state, **BY), 3, digest(3), experiment(), **BY).candidate.share == 0.05


def test_one_experiment_or_shadow_at_a_time():
    for state in (begin(), shadowed(release(2), 3, digest(3), 0.1, **BY)):
        with pytest.raises(ValueError, match=r"desk has .* 3 already: one at a time, stop it first"):
            started(state, 4, digest(4), experiment(), **BY)
        with pytest.raises(ValueError, match="one at a time"):
            shadowed(state, 4, digest(4), 0.1, **BY)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda: started(release(2), 2, digest(2), experiment(), **BY), "desk 2 is current"),
        (
            lambda: raised(begin(0.5), 0.5, **BY),
            "a share only grows: expected more than 0.5 and less than 1, found 0.5",
        ),
        (lambda: raised(begin(0.5), 0.05, **BY), "found 0.05"),
        (lambda: raised(begin(0.5), 1.0, **BY), "less than 1, found 1"),
        (lambda: raised(promoted(begin(), **BY), 0.97, **BY), "desk-3 of desk is promoted already"),
        (lambda: promoted(promoted(begin(), **BY), **BY), "desk-3 of desk is promoted already"),
        (lambda: raised(release(2), 0.5, **BY), "desk has no experiment"),
        (lambda: promoted(shadowed(release(2), 3, digest(3), 0.1, **BY), **BY), "no experiment, only a shadow"),
        (lambda: completed(release(2), **BY), "desk has no experiment"),
        (lambda: stopped(release(2), **BY), "desk has no candidate: nothing to stop"),
    ],
)
def test_a_step_that_does_not_follow_is_refused_in_one_line(step, message):
    with pytest.raises(ValueError, match=message):
        step()


def test_a_share_above_what_is_held_back_stays_at_the_promotion():
    state = promoted(begin(0.97), **BY)
    assert (state.candidate.share, state.candidate.experiment.raises) == (0.97, [])
    assert promoted(begin(rules=Rules(hold_back=0.2)), **BY).candidate.share == 0.8


def test_a_clock_that_is_behind_does_not_turn_the_raises_round():
    behind = {**BY, "at": NOON - timedelta(hours=1)}
    state = promoted(raised(raised(begin(), 0.2, **LATER), 0.3, **behind), **behind)
    assert {step.at for step in state.candidate.experiment.raises} == {LATER["at"]}
    assert state.candidate.experiment.promoted == LATER["at"]


def test_a_release_or_a_rollback_in_the_middle_ends_the_experiment_and_a_switch_does_not():
    for state in (begin(), promoted(begin(), **BY)):
        assert release(4, state).candidate is None
        back = rolled_back(state, **LATER)
        assert (back.current.version, back.candidate) == (1, None)
        assert switched(state, GeneratedReplies(off="all"), **LATER).candidate == state.candidate


def test_the_current_version_is_not_loaded_again_for_a_candidate():
    before = release(2, release(1))
    running = begin()
    assert keeps_current(before, running)
    assert keeps_current(before, switched(raised(running, 0.5, **BY), GeneratedReplies(off="all"), **BY))
    assert not is_switch_only(before, running)
    assert keeps_current(running, stopped(running, **BY))
    assert not keeps_current(before, before)
    assert not keeps_current(before, release(2, before))
    assert not keeps_current(running, completed(running, **BY))
    assert not keeps_current(before, release(2, stopped(running, **BY)))


def test_an_older_reader_finds_in_the_history_where_to_go_back_to():
    wire = json.loads(begin().model_dump_json())
    added = {"experiment", "candidate", "share"}
    older = {**wire, "history": [{k: v for k, v in s.items() if k not in added} for s in wire["history"]]}
    state = ReleaseState.model_validate({**older, "candidate": None})
    assert rolled_back(state, **LATER).current.version == 1


def test_a_field_of_a_later_version_does_not_make_the_state_unreadable():
    wire = json.loads(begin().model_dump_json())
    wire["candidate"]["experiment"]["later"] = wire["candidate"]["experiment"]["rules"]["later"] = 1
    assert ReleaseState.model_validate(wire) == begin()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": 0.2}, "the candidate's share is 0.2, its experiment's is 0.05"),
        ({"share": None, "shadow": 0.05}, "the candidate's share is None"),
    ],
)
def test_a_candidate_has_the_share_of_its_experiment(change, message):
    wire = begin().model_dump()
    with pytest.raises(ValidationError, match=message):
        ReleaseState.model_validate({**wire, "candidate": {**wire["candidate"], **change}})


def test_raises_that_do_not_grow_are_no_experiment():
    raises = [{"at": LATER["at"], "share": 0.5}, {"at": LATER["at"], "share": 0.4}]
    with pytest.raises(ValidationError, match=r"a share only grows, one raise after the other: 0.4 at .* after 0.5 at"):
        experiment(raises=raises)


shares = st.floats(0.001, 0.999)
STEPS = {
    "start": lambda state, share: started(state, 9, digest(9), experiment(share), **BY),
    "shadow": lambda state, share: shadowed(state, 8, digest(8), share, **BY),
    "raise": lambda state, share: raised(state, share, **BY),
    "promote": lambda state, share: promoted(state, **BY),
    "complete": lambda state, share: completed(state, **BY),
    "stop": lambda state, share: stopped(state, **BY),
    "switch": lambda state, share: switched(state, GeneratedReplies(off="all"), **BY),
    "release": lambda state, share: release(1 + round(5 * share), state),
    "back": lambda state, share: rolled_back(state, **BY),
}


@given(st.lists(st.tuples(st.sampled_from(sorted(STEPS)), shares), max_size=25))
def test_whatever_is_done_each_state_is_one_newer_and_shares_only_grow(steps):
    state = release(1)
    for name, share in steps:
        try:
            new = STEPS[name](state, share)
        except (ValueError, LookupError):
            continue
        assert new.generation == state.generation + 1 == new.history[-1].generation
        assert ReleaseState.model_validate_json(new.model_dump_json()) == new
        assert len(new.history) <= HISTORY
        if name in ("release", "back", "complete", "stop"):
            assert new.candidate is None
        elif state.candidate is not None:
            assert new.candidate.version == state.candidate.version
            assert (new.candidate.share or 1.0) >= (state.candidate.share or 0.0)
        if new.history[-1].leaves_version:
            assert new.current == state.current
            assert keeps_current(state, new)
        state = new


def test_many_experiments_leave_a_version_to_go_back_to():
    state = release(2, release(1))
    for _ in range(HISTORY):
        state = stopped(started(state, 3, digest(3), experiment(), **BY), **BY)
    assert len(state.history) == HISTORY
    assert rolled_back(state, **BY).current.version == 1

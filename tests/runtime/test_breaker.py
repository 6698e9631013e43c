"""The rule of the breaker, by arithmetic alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murmura.runtime.batching.device.breaker import Breaker, BreakerLimits

LIMITS = BreakerLimits(first_pause_s=0.5, longest_pause_s=4.0, give_up_s=60.0)


def failed_probes(breaker, now, count):
    """Let so many probes fail, each as soon as it is due; returns the pauses before them."""
    pauses = []
    for _ in range(count):
        due = breaker.wake_at()
        pauses.append(due - now)
        now = due
        assert breaker.start_probe(now)
        breaker.record_probe(False, "still broken", now)
    return pauses


def test_while_nothing_fails_batches_run_and_nothing_is_due():
    breaker = Breaker(LIMITS)
    assert breaker.allows_runs
    assert breaker.wake_at() is None
    assert not breaker.is_over(1e9)
    assert not breaker.start_probe(1e9)


def test_pauses_between_probes_double_up_to_the_longest():
    breaker = Breaker(LIMITS)
    breaker.record_failure("broken", 100.0)
    assert failed_probes(breaker, 100.0, 6) == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]
    assert breaker.why == "still broken"


def test_a_probe_that_passes_lets_batches_run_and_the_first_answer_closes_it():
    breaker = Breaker(LIMITS)
    breaker.record_failure("broken", 0.0)
    assert not breaker.allows_runs
    assert breaker.start_probe(0.5)
    breaker.record_probe(True, "", 0.6)
    assert breaker.allows_runs
    assert breaker.since == 0.0
    assert breaker.record_answer()
    assert breaker.since is None
    breaker.record_failure("again", 10.0)
    assert failed_probes(breaker, 10.0, 2) == [0.5, 1.0], "after an answer the pauses begin anew"


def test_a_device_that_answers_probes_and_no_batch_is_given_up_in_the_end():
    breaker, now = Breaker(LIMITS), 0.0
    while not breaker.is_over(now):
        breaker.record_failure("a batch failed", now)
        now = breaker.wake_at()
        if breaker.start_probe(now):
            breaker.record_probe(True, "", now)
    assert now == 60.0


def test_a_batch_that_was_started_before_the_failure_closes_nothing():
    breaker = Breaker(LIMITS)
    breaker.record_failure("broken", 0.0)
    assert not breaker.record_answer()
    assert not breaker.allows_runs


def test_a_model_that_was_exchanged_is_probed_at_once():
    breaker = Breaker(LIMITS)
    breaker.record_failure("broken", 0.0)
    failed_probes(breaker, 0.0, 4)
    breaker.probe_soon(8.0)
    assert breaker.wake_at() == 8.0
    assert breaker.start_probe(8.0)


@pytest.mark.parametrize("limits", [(0, 1, 1), (2, 1, 1), (1, 1, 0)])
def test_limits_that_cannot_be_are_refused(limits):
    with pytest.raises(ValueError, match="pauses"):
        BreakerLimits(*limits)


@given(steps=st.lists(st.tuples(st.floats(0, 20), st.sampled_from(["fail", "answer", "look", "pass", "miss"]))))
def test_whatever_happens_one_probe_runs_at_a_time_and_never_before_it_is_due(steps):
    breaker, now, due = Breaker(LIMITS), 0.0, None
    for wait, step in steps:
        now += wait
        before = breaker.state
        if step == "fail":
            breaker.record_failure("broken", now)
            if before in {"closed", "trial"}:
                due = breaker.wake_at()
                assert now < due <= now + LIMITS.longest_pause_s or due == breaker.since + LIMITS.give_up_s
        elif step == "answer":
            assert breaker.record_answer() == (before == "trial")
        elif step == "look":
            if breaker.start_probe(now):
                assert before == "open"
                assert now >= due
        else:
            breaker.record_probe(step == "pass", "still", now)
            if before == "probing" and step == "miss":
                due = breaker.wake_at()
            assert (before == "probing") or breaker.state == before
        assert (breaker.since is None) == (breaker.state == "closed")
        assert breaker.is_over(now) == (breaker.since is not None and now - breaker.since >= LIMITS.give_up_s)

"""Batches of several loaded versions: what leaves next, and what must hold whatever arrives."""

import weakref
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from murmura.runtime.batching.queues.entry import Entry
from murmura.runtime.batching.queues.policy import BatchLimits, BatchPolicy
from murmura.runtime.batching.queues.version_queue import VersionTerms

HOLD_S = 0.02


class Text:
    def __init__(self, tokens):
        self.tokens = tokens


def entries(model, *sizes):
    return [Entry("", (), Text(size), None, model=model) for size in sizes]


def policy(*versions, budget=100, **limits):
    """Versions are (model, terms by name); without terms they cost a millisecond a token and share one name."""
    made = BatchPolicy(BatchLimits(token_budget=budget, max_hold_s=HOLD_S, **limits))
    for model, terms in versions:
        given = {
            "token_budget": budget,
            "max_rows": 256,
            "max_cells": 4 * budget,
            "name": "m",
            "token_s": 0.001,
            **terms,
        }
        made.load(model, VersionTerms(**given))
    return made


def pair(**limits):
    return policy(("current", {}), ("candidate", {}), **limits)


def models(batch):
    return "".join(sorted({entry.model[0:2] for entry in batch.entries}))


def test_a_few_entries_of_one_version_do_not_cut_the_batches_of_the_other():
    queue = pair()
    for model in ("current", "candidate", "current", "current", "candidate", "current"):
        queue.push(entries(model, 25), 0.0)
    batch = queue.take(0.0, 0)
    assert [entry.model for entry in batch.entries] == ["current"] * 4
    assert queue.take(0.0, 0).tokens == 50, "alone with a free slot, what is left is not held"


def test_a_batch_that_is_not_full_leaves_beside_another_version_when_its_oldest_entry_was_held_long_enough():
    queue = pair()
    queue.push(entries("candidate", 10), 0.0)
    queue.push(entries("current", 100, 100, 100), 0.001)
    assert [queue.take(0.019, 0).entries[0].model for _ in range(2)] == ["current", "current"]
    assert queue.take(HOLD_S, 0).entries[0].model == "candidate"


def test_a_held_batch_leaves_beside_a_running_one_too_and_says_when():
    queue = pair()
    queue.push(entries("candidate", 10), 0.0)
    queue.push(entries("current", 10), 0.01)
    assert (queue.take(0.01, 1), queue.wake_at(1)) == (None, HOLD_S)
    assert queue.take(HOLD_S, 1).entries[0].model == "candidate"
    assert queue.take(HOLD_S, 1) is None, "alone it waits for a full batch or the device, as one version does"


def test_an_idle_device_takes_the_fullest_batch_rather_than_none():
    queue = pair()
    queue.push(entries("candidate", 10), 0.0)
    queue.push(entries("current", 30), 0.0)
    assert [models(queue.take(0.0, 0)) for _ in range(2)] == ["cu", "ca"]


def test_a_version_that_was_replaced_is_served_first_and_then_forgotten():
    queue = pair()
    queue.push(entries("current", 10), 0.0)
    queue.load("next", VersionTerms(100, 256, 400, name="m"))
    queue.retire("current")
    queue.push(entries("next", 100, 100), 0.0)
    assert [queue.take(0.0, 1).entries[0].model for _ in range(2)] == ["current", "next"]
    assert not queue.is_loaded("current")
    assert queue.queued("current") == (0, 0)


def test_a_replaced_version_is_freed_when_all_that_waited_for_it_was_cancelled():
    class Version:
        pass

    old = Version()
    queue, freed = policy((old, {}), ("next", {})), weakref.ref(old)
    left = entries(old, 10, 10)
    queue.push(left, 0.0)
    queue.retire(old)
    for entry in left:
        entry.cancelled = True
    assert queue.take(0.0, 0) is None
    del old, left, entry
    assert freed() is None


def test_what_arrives_late_for_a_replaced_version_leaves_first_with_the_terms_and_the_weight_of_its_name():
    queue = policy(("old", {"name": "m", "weight": 2.0, "token_budget": 30}), ("other", {"name": "o"}))
    queue.load("next", VersionTerms(100, 256, 400, name="m", weight=2.0))
    queue.retire("old")
    queue.push(entries("next", *[10] * 3), 0.0)
    queue.push(entries("other", *[10] * 3), 0.0)
    queue.push(entries("old", *[10] * 4), 0.001)
    batch = queue.take(0.001, 0)
    assert (models(batch), batch.tokens) == ("ol", 30), "of its own budget"
    assert models(queue.take(0.001, 0)) == "ol", "not held, as it is drained"
    queue.load("old", VersionTerms(100, 256, 400, name="m"))
    queue.push(entries("old", *[10] * 4), 0.002)
    assert queue.is_loaded("old")
    assert sum(queue.take(0.002 + HOLD_S, 0).tokens for _ in range(3)) == 100


def test_each_version_has_the_limits_of_its_own():
    queue = policy(("large", {"token_budget": 40}), ("small", {"token_budget": 90, "name": "s"}))
    queue.push(entries("large", *[20] * 4), 0.0)
    queue.push(entries("small", *[30] * 3), 0.0)
    assert sorted(queue.take(0.0, 0).tokens for _ in range(3)) == [40, 40, 90]


@pytest.mark.parametrize(("weights", "share"), [((1, 1), 0.5), ((3, 1), 0.75), ((1, 4), 0.2)])
def test_two_models_share_the_device_time_by_weight_however_much_a_batch_of_theirs_costs(weights, share):
    queue = policy(
        ("small", {"name": "small", "weight": weights[0], "overhead_s": 0.001, "token_s": 0.00002}),
        ("large", {"name": "large", "weight": weights[1], "overhead_s": 0.004, "token_s": 0.0004, "token_budget": 60}),
    )
    costs = {"small": lambda tokens: 0.001 + tokens * 0.00002, "large": lambda tokens: 0.004 + tokens * 0.0004}
    now, used = 0.0, Counter()
    while now < 5.0:
        for model in costs:  # each has a backlog, of which one batch is queued
            while queue.queued(model)[0] < 100:
                queue.push(entries(model, 10, 10), now)
        batch = queue.take(now, 0)
        seconds = costs[batch.entries[0].model](batch.tokens)
        used[batch.entries[0].model] += seconds
        now += seconds
    assert used["small"] / now == pytest.approx(share, rel=0.05)


def test_versions_of_one_name_share_its_weight():
    queue = policy(("a1", {"name": "a"}), ("a2", {"name": "a"}), ("b1", {"name": "b"}))
    used = Counter()
    for step in range(400):
        for model in ("a1", "a2", "b1"):
            while queue.queued(model)[0] < 100:
                queue.push(entries(model, 20), step)
        batch = queue.take(step, 0)
        used[batch.entries[0].model] += batch.tokens
    assert used["b1"] == pytest.approx(used["a1"] + used["a2"], rel=0.05)
    assert used["a1"] == pytest.approx(used["a2"], rel=0.05)


def test_a_name_that_was_idle_has_no_claim_on_what_others_used_meanwhile():
    queue = policy(("a", {"name": "a"}), ("b", {"name": "b"}))
    for step in range(100):
        queue.push(entries("a", 100), step)
        queue.take(step, 0)
    queue.push(entries("a", *[100] * 10), 100.0)
    queue.push(entries("b", *[100] * 10), 100.0)
    first = Counter(queue.take(100.0, 0).entries[0].model for _ in range(10))
    assert abs(first["a"] - first["b"]) <= 2


class SeveralVersions(RuleBasedStateMachine):
    """Any arrivals of three versions, two of one name, while the device works at its speed."""

    VERSIONS = ("a1", "a2", "b1")

    @initialize(weights=st.tuples(*[st.floats(0.25, 4.0)] * 2), eager=st.integers(1, 2))
    def load(self, weights, eager):
        self.limits = {"eager_in_flight": eager, "max_in_flight": 2, "max_rows": 8}
        terms = {"overhead_s": 0.001, "token_s": 0.0001, "max_rows": 8}
        self.policy = policy(
            *(((model, {"name": model[0], "weight": weights[model[0] == "b"], **terms})) for model in self.VERSIONS),
            budget=50,
            **self.limits,
        )
        self.waiting = {model: [] for model in self.VERSIONS}
        self.now, self.in_flight = 0.0, 0

    @rule(model=st.sampled_from(VERSIONS), sizes=st.lists(st.integers(1, 60), max_size=12))
    def arrive(self, model, sizes):
        new = entries(model, *sizes)
        self.policy.push(new, self.now)
        self.waiting[model] += new

    @rule(model=st.sampled_from(VERSIONS), data=st.data())
    def cancel(self, model, data):
        if self.waiting[model]:
            data.draw(st.sampled_from(self.waiting[model])).cancelled = True

    @rule(seconds=st.floats(0.0, 0.05))
    def work(self, seconds):
        self.now += seconds
        self.in_flight = max(self.in_flight - 1, 0)
        while (batch := self.policy.take(self.now, self.in_flight)) is not None:
            self.check(batch)
            self.in_flight += 1
        alive = [self.alive(model) for model in self.VERSIONS]
        assert self.in_flight >= self.limits["eager_in_flight"] or not any(alive), "something waits beside a free slot"
        if self.in_flight < 2 and sum(map(bool, alive)) > 1:
            oldest = min(each[0].arrived for each in alive if each)
            assert self.now < oldest + HOLD_S == self.policy.wake_at(self.in_flight)

    def alive(self, model):
        return [entry for entry in self.waiting[model] if not entry.cancelled]

    def check(self, batch):
        (model,) = {entry.model for entry in batch.entries}
        alive = self.alive(model)
        assert batch.entries == alive[: len(batch.entries)], "a version's entries leave in order"
        assert len(batch.entries) <= 8
        assert batch.tokens <= 50 or len(batch.entries) == 1
        others = any(self.alive(other) for other in self.VERSIONS if other != model)
        eager = self.in_flight < self.limits["eager_in_flight"]
        assert batch.full or eager or (others and self.now >= batch.entries[0].arrived + HOLD_S)
        self.waiting[model] = self.waiting[model][self.waiting[model].index(batch.entries[-1]) + 1 :]

    def teardown(self):
        """Nothing starves: with enough time all that waits leaves, and no version waits for ever behind the others."""
        if not hasattr(self, "policy"):
            return
        left = sum(len(self.alive(model)) for model in self.VERSIONS)
        while left:
            batch = self.policy.take(self.now, 0)
            left -= len(batch.entries)
            self.now += 0.01
        assert self.policy.queued_tokens == 0


TestSeveralVersions = SeveralVersions.TestCase
TestSeveralVersions.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)


@given(light=st.integers(1, 30))
@settings(max_examples=20, deadline=None)
def test_beside_a_backlog_an_entry_waits_no_longer_than_the_hold_and_the_batches_before(light):
    queue = policy(("heavy", {"name": "h"}), ("light", {"name": "l"}))
    now, sent, waits = 0.0, 0.0, []
    while now < 1.0:
        while queue.queued("heavy")[0] < 200:
            queue.push(entries("heavy", 20), now)
        if now >= sent + 0.1:
            sent = now
            queue.push(entries("light", light), now)
        batch = queue.take(now, 0)
        if batch.entries[0].model == "light":
            waits += [now - entry.arrived for entry in batch.entries]
        now += batch.tokens * 0.001
    assert waits
    assert max(waits) <= HOLD_S + 2 * 0.1

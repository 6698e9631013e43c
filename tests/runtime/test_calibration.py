"""Measuring the token budget: the fit, the choice, and what comes out on machines of known speed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murmura.runtime.batching.costs.calibration import (
    CEILING_TOKENS,
    FLOOR_TOKENS,
    SLOW_RUN_S,
    calibrate,
    choose_budget,
    fit,
    measure_passes,
    warm_up,
)
from murmura.runtime.batching.costs.pass_costs import PassCosts
from murmura.runtime.model.pass_time import PassTime
from murmura.runtime.testing.fakes import FakeModel, ManualClock
from murmura.schemas.manifest import TaskSpec

INTENT = TaskSpec(name="intent", kind="classification", labels=["a", "b"])


class Machine(FakeModel):
    """Takes `run_s + row_s * rows + token_s * tokens` of a manual clock."""

    def __init__(self, run_s=0.0, row_s=0.0, token_s=0.0, first_run_s=0.0):
        super().__init__([INTENT])
        self.clock = ManualClock()
        self.speed = run_s, row_s, token_s
        self.first_run_s = first_run_s
        self.tokens = []

    def run(self, batch):
        run_s, row_s, token_s = self.speed
        tokens = sum(encoded.tokens for encoded in batch)
        self.clock.advance(run_s + row_s * len(batch) + token_s * tokens)
        if not self.tokens:
            self.clock.advance(self.first_run_s)
        self.tokens.append(tokens)
        return super().run(batch)

    def calibrate(self, **options):
        return calibrate(self, clock=self.clock, timer=self.clock, **options)


@given(
    overhead=st.floats(0, 0.1),
    token=st.floats(1e-7, 1e-2),
    sizes=st.lists(st.integers(8, 4096), min_size=3, max_size=8, unique=True),
)
def test_the_fit_finds_the_line_that_the_points_lie_on(overhead, token, sizes):
    a, b = fit([(n, overhead + token * n) for n in sizes])
    assert a == pytest.approx(overhead, rel=1e-4, abs=1e-3 * token * min(sizes))
    assert b == pytest.approx(token, rel=1e-3)


@pytest.mark.parametrize(
    "points", [[(10, 0.01)], [(10, 0.01), (20, 0.01)], [(10, 0.02), (20, 0.01)], [(10, 0.01), (20, 0.03)]]
)
def test_the_fit_of_odd_points_still_has_an_overhead_and_a_slope_that_can_be_used(points):
    a, b = fit(points)
    assert a >= 0
    assert b > 0
    assert FLOOR_TOKENS <= choose_budget(a, b) <= CEILING_TOKENS


@given(overhead=st.floats(1e-5, 0.02), token=st.floats(1e-7, 1e-3))
def test_the_budget_is_the_smallest_within_five_percent_of_the_best_in_reasonable_time(overhead, token):
    def rate(n):
        return n / (overhead + token * n)

    best = rate(min(max((SLOW_RUN_S - overhead) / token, FLOOR_TOKENS), CEILING_TOKENS))
    budget = choose_budget(overhead, token)
    assert rate(budget) >= 0.9499 * best
    assert budget == FLOOR_TOKENS or rate(budget - 33) < 0.95 * best


def test_a_cpu_gets_a_small_budget():
    found = Machine(run_s=0.0023, token_s=0.00024).calibrate()
    assert 128 <= found.token_budget <= 256
    assert found.tokens_per_s == pytest.approx(4000, rel=0.05)


def test_an_accelerator_gets_a_budget_that_leaves_the_limit_to_the_rows():
    found = Machine(run_s=0.002, row_s=30e-6).calibrate(max_rows=256)
    assert found.token_budget >= 256 * 20


def test_the_first_run_may_be_slow_without_changing_the_budget():
    cold, warm = (Machine(run_s=0.002, token_s=0.0002, first_run_s=s).calibrate() for s in (0.5, 0.0))
    assert cold.token_budget == warm.token_budget


@pytest.mark.parametrize("token_s", [0.00025, 0.002, 0.02, 0.2])
def test_a_slow_model_is_measured_with_fewer_and_smaller_batches(token_s):
    machine = Machine(run_s=0.002, token_s=token_s)
    found = machine.calibrate(limit_s=1.2)
    assert found.took_s == pytest.approx(machine.clock.now)
    assert found.took_s <= max(1.2, 1.4 * sum(seconds for _, seconds in found.points))
    assert len(found.points) >= (3 if token_s < 0.01 else 1)
    assert found.token_budget <= 256


def test_a_padded_graph_is_charged_for_its_padding():
    ragged = Machine(run_s=0.002, token_s=0.0002).calibrate()
    padded = Machine(run_s=0.002, token_s=0.0002).calibrate(padded=True)
    assert all(p > r for (p, _), (r, _) in zip(padded.points[1:], ragged.points[1:], strict=True))


def test_the_figures_for_the_log_are_plain_numbers():
    figures = Machine(run_s=0.002, token_s=0.0002).calibrate().figures()
    assert figures["overhead_ms"] == pytest.approx(2.0, rel=0.01)
    assert figures["token_us"] == pytest.approx(200, rel=0.01)


def test_warming_up_runs_batches_within_the_row_limit():
    machine = Machine()
    warm_up(machine, max_rows=3)
    assert [len(batch) <= 3 for batch in machine.batches] == [True, True]


@pytest.mark.parametrize(("run_s", "token_s"), [(0.002, 1e-6), (0.002, 0.0004), (0.0001, 0.01)])
def test_the_passes_of_a_version_beside_a_measured_one_cost_what_the_calibration_says(run_s, token_s):
    machine = Machine(run_s=run_s, token_s=token_s, first_run_s=0.5)
    found = measure_passes(machine, clock=machine.clock, timer=machine.clock)
    assert (found.overhead_s, found.token_s) == pytest.approx((run_s, token_s), rel=0.01)
    assert machine.clock.now < 0.5 + 0.1 + 4 * 200 * token_s + 10 * run_s


def test_passes_that_the_timer_does_not_see_are_bounded_by_the_clock():
    machine = Machine(run_s=0.2)
    measure_passes(machine, clock=machine.clock, timer=lambda: 0.0)
    assert machine.clock.now == pytest.approx(6 * 0.2), "two to warm up, and two of each of two sizes"


def test_a_swap_keeps_what_a_pass_costs_apart_from_what_a_token_costs():
    machine = Machine(run_s=0.002, token_s=1e-6)
    costs = PassCosts(8192, 4096, padded=False, deadline_s=1.0)
    costs.replace(machine, PassTime(0.002, 1e-6, 3e-5))
    assert costs.terms.seconds(8192) == pytest.approx(0.0102, rel=0.01)
    assert costs.deadline_s == pytest.approx(20 * 8192 * 3e-5), "a deadline allows for a cold pass"
    terms = costs.estimate(machine, PassTime(0.001, 2e-6, 6e-5))
    assert (terms.overhead_s, terms.token_s, terms.deadline_s) == (0.001, 2e-6, 20 * 8192 * 6e-5)
    costs.replace(machine, PassTime(0.001, 1e-6, 1e-6))
    assert costs.terms.deadline_s == 1.0, "a slow version leaves no longer deadline behind"

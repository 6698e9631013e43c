"""Sums, intervals and decisions, against known answers and against simulated experiments."""

import math
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from murmura.runtime.experiments.decision import decide
from murmura.runtime.experiments.intervals import estimate_effect, find_mismatch
from murmura.runtime.experiments.power import estimate_power
from murmura.runtime.experiments.simulation import Setup, simulate
from murmura.runtime.experiments.sums import RatioSums, sum_units
from murmura.schemas.experiment import Experiment, Measure, Rules


def _binary(right: int, wrong: int) -> RatioSums:
    return sum_units([(1.0, 1.0)] * right + [(0.0, 1.0)] * wrong)


def test_single_chances_give_the_error_of_a_proportion() -> None:
    sums = _binary(80, 20)
    assert sums.ratio == 0.8
    assert sums.variance == pytest.approx(0.8 * 0.2 / 99)


def test_the_error_of_a_ratio_is_that_of_resampled_units() -> None:
    random = np.random.default_rng(0)
    weight = random.geometric(0.25, 2000)
    value = random.binomial(weight, random.beta(2, 1, 2000))
    draws = random.integers(0, 2000, (2000, 2000))
    resampled = value[draws].sum(1) / weight[draws].sum(1)
    sums = sum_units(zip(value, weight, strict=True))
    assert math.sqrt(sums.variance) == pytest.approx(resampled.std(), rel=0.06)
    naive = math.sqrt(sums.ratio * (1 - sums.ratio) / weight.sum())  # as if chances of a unit were independent
    assert math.sqrt(sums.variance) > 1.3 * naive


def test_sums_add_up() -> None:
    units = [(1.0, 2.0), (0.0, 1.0), (3.0, 3.0), (2.0, 7.0), (0.0, 0.0)]
    assert sum_units(units[:2]) + sum_units(units[2:]) == sum_units(units)
    assert sum_units(units).units == 4  # a unit without a chance says nothing
    assert (sum_units(units).with_event, sum_units(units).without_event) == (3, 3)


def test_the_interval_is_the_formula_of_its_source() -> None:
    effect = estimate_effect(_binary(900, 100), _binary(850, 150), alpha=0.05, tuning=5000)
    log_alpha = -2 * math.log(0.05)
    rho_squared = (log_alpha + math.log(log_alpha) + 1) / 5000
    n = 2000
    pooled = 0.875 * 0.125 * 2000 / 1999 * 2 / 1000  # the larger variance of the two
    width = math.sqrt(
        pooled * n * 2 * (n * rho_squared + 1) / (n**2 * rho_squared) * math.log(math.sqrt(n * rho_squared + 1) / 0.05)
    )
    assert effect.difference == pytest.approx(0.05)
    assert effect.high - effect.low == pytest.approx(2 * width)
    assert (effect.high - effect.low) / 2 > 1.5 * 1.96 * math.sqrt(pooled)  # the price of looking at any time


def test_there_is_no_interval_before_enough_events() -> None:
    known = estimate_effect(_binary(20, 20), _binary(20, 20), 0.05, 5000)
    assert not math.isnan(known.low)
    for few in (_binary(19, 100), _binary(100, 19), RatioSums()):
        assert math.isnan(estimate_effect(few, _binary(100, 100), 0.05, 5000).low)
        assert math.isnan(estimate_effect(_binary(100, 100), few, 0.05, 5000).high)


def test_a_guardrail_stops_a_candidate_that_has_no_event_at_all() -> None:
    right, wrong = _binary(900, 100), _binary(0, 1000)
    assert _decide(wrong, right).action == "stop"
    assert _decide(right, wrong).action == "wait"  # a goal needs events of both kinds on both sides
    errors = {"errors": (_binary(300, 700), _binary(0, 1000))}
    assert decide(Rules(), errors, (1000, 1000), 1.0, 1.0).action == "stop"
    assert _decide(_binary(0, 20), _binary(20, 0)).action == "wait"  # ten of each were to come on a side
    assert math.isnan(estimate_effect(wrong, right, 0.05, 5000).low)


def test_a_mismatch_is_a_chi_squared_test() -> None:
    assert find_mismatch(500.0, 250.0, 500.0) == 1.0
    assert find_mismatch(500.0, 250.0, 500.0 + 1.96 * math.sqrt(250.0)) == pytest.approx(0.05, abs=0.001)
    assert find_mismatch(500.0, 250.0, 600.0) < 1e-9
    assert find_mismatch(0.0, 0.0, 0.0) == 1.0


def _decide(candidate: RatioSums, control: RatioSums, **changes: object):
    given = {"units": (5000, 5000), "hours": 100.0, "mismatch": 1.0, "rules": Rules()} | changes
    return decide(
        given["rules"], {"agreement": (candidate, control)}, given["units"], given["hours"], given["mismatch"]
    )


def test_decisions() -> None:
    better, same, worse = _binary(4800, 200), _binary(4500, 500), _binary(4200, 800)
    assert _decide(better, same).action == "promote"
    assert _decide(worse, same).action == "stop"
    assert _decide(same, same).action == "wait"
    assert _decide(better, same, units=(999, 5000)).action == "wait"
    assert _decide(better, same, hours=23.9).action == "wait"
    assert _decide(worse, same, units=(999, 5000), hours=0.1).action == "stop"  # a guardrail needs no minimum
    for sides in ((better, same), (worse, same)):
        uneven = _decide(*sides, mismatch=0.0004)
        assert uneven.action == "wait"
        assert "unevenly" in uneven.why
    assert "no interval before 20" in _decide(RatioSums(), same).why


def test_less_is_better_for_errors() -> None:
    rules = Rules(goals=[Measure(measure="errors")], guardrails=[])
    few, many = _binary(100, 4900), _binary(400, 4600)
    sums = {"errors": (few, many)}
    assert decide(rules, sums, (5000, 5000), 100.0, 1.0).action == "promote"
    guarded = Rules(guardrails=[Measure(measure="errors")])
    assert decide(guarded, {"errors": (many, few)}, (5000, 5000), 100.0, 1.0).action == "stop"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"goals": []}, "at least 1 item"),
        ({"goals": [{"measure": "ratio"}]}, "has a name"),
        ({"goals": [{"measure": "ratio", "name": "orders"}]}, "which way is better"),
        ({"goals": [{"measure": "errors", "better": "higher"}]}, "is known for errors"),
        ({"guardrails": [{"measure": "errors"}, {"measure": "errors"}]}, "stands there twice"),
        ({"hold_back": 0}, "greater than 0"),
    ],
)
def test_wrong_rules_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Rules.model_validate(wrong)


@pytest.mark.parametrize("unit", ["key", "conversation", "request", "metadata.customer_id"])
def test_units(unit: str) -> None:
    wanted = {"id": "spring", "unit": unit, "share": 0.05, "started": "2026-01-01T00:00:00Z"}
    assert Experiment.model_validate(wanted).unit == unit
    for other in ("metadata.", "customer", "key\n"):
        with pytest.raises(ValidationError):
            Experiment.model_validate(wanted | {"unit": other})


@pytest.mark.parametrize("share", [0.5, 0.05])
@pytest.mark.parametrize("rate", [0.5, 0.9])
def test_equal_versions_rarely_end_by_themselves(share: float, rate: float) -> None:
    simulated = simulate(Setup(share, rate, units=20_000, looks=200), runs=400)
    assert simulated.promoted + simulated.stopped <= 0.05
    assert simulated.coverage >= 0.95


def test_different_versions_end_rightly() -> None:
    better, worse = estimate_power(Setup(0.5, 0.85, units=20_000, looks=100), (0.05, -0.05), runs=100)
    assert better.promoted > 0.95
    assert worse.stopped > 0.95
    assert better.stopped == worse.promoted == 0.0
    assert better.median_units is not None
    assert 500 < better.median_units < 10_000


def test_more_measures_take_longer_and_what_is_no_guardrail_stops_nothing() -> None:
    better = Setup(0.5, 0.8, improvement=0.06, units=4000, looks=20)
    one, three = simulate(better, 200), simulate(replace(better, goals=3, goal_margin=0.02), 200)
    assert one.promoted > three.promoted > 0.0
    worse = replace(better, improvement=-0.2)
    assert simulate(worse, 50).stopped == 1.0
    assert simulate(replace(worse, guardrails=0), 50).stopped == 0.0
    assert simulate(replace(worse, guardrail_margin=-0.5), 50).stopped == 0.0

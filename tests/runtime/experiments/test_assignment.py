"""Units keep their side in every process, and a larger share moves them one way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murmura.runtime.experiments.assignment import Shares, choose_side, draw_review, place_unit

GOLDEN = {
    ("", ""): 0.6848974799809221,
    ("spring", "customer-1"): 0.5644957836266422,
    ("spring", "customer-2"): 0.46389454040659805,
    ("autumn", "customer-1"): 0.8767192509837367,
    ("spring", "Zoë 🙂"): 0.09733899609078456,
}
GOLDEN_DRAW = (0.16216437171991627, 4305721924241633828)


@pytest.mark.parametrize(("experiment", "unit"), GOLDEN)
def test_places_are_the_same_in_every_process(experiment: str, unit: str) -> None:
    assert place_unit(experiment, unit) == GOLDEN[experiment, unit]


def test_a_name_and_a_unit_do_not_run_into_each_other() -> None:
    assert place_unit("a", "bc") != place_unit("ab", "c")


@given(st.text(), st.text(), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_a_larger_share_only_adds_units(experiment: str, unit: str, share: float, other: float) -> None:
    place = place_unit(experiment, unit)
    assert 0.0 <= place < 1.0
    less, more = sorted((share, other))
    assert not (choose_side(place, less) == "candidate" and choose_side(place, more) == "control")
    moved = choose_side(place, less) != choose_side(place, more)
    assert Shares(less).raised(60, more).is_moved(place, until=61) == moved
    assert not Shares(less).raised(60, more).is_moved(place, until=60)


def test_shares_are_met() -> None:
    places = [place_unit("spring", f"customer-{number}") for number in range(20_000)]
    assert sum(place < 0.05 for place in places) / len(places) == pytest.approx(0.05, abs=0.005)
    other = [place_unit("autumn", f"customer-{number}") for number in range(20_000)]
    both = sum(first < 0.5 and second < 0.5 for first, second in zip(places, other, strict=True))
    assert both / len(places) == pytest.approx(0.25, abs=0.015)  # experiments divide independently


def test_a_smaller_share_is_refused() -> None:
    with pytest.raises(ValueError, match="only grows"):
        Shares(0.5).raised(0, 0.2)
    with pytest.raises(ValueError, match="before that of the last raise"):
        Shares(0.1).raised(60, 0.2).raised(59, 0.3)


def test_units_that_moved_leave_the_expected_share() -> None:
    shares = Shares(0.05).raised(60, 0.95)
    assert shares.expected_until(60) == pytest.approx(0.05)
    assert shares.expected_until(61) == pytest.approx(0.5)


def test_who_is_asked_is_the_same_in_every_process_and_on_both_sides() -> None:
    assert draw_review("spring", "customer-1") == GOLDEN_DRAW
    units = [f"customer-{number}" for number in range(4_000)]
    drawn = [unit for unit in units if draw_review("spring", unit)[0] < 0.5]
    assert len(drawn) / len(units) == pytest.approx(0.5, abs=0.03)
    assert sum(place_unit("spring", unit) < 0.5 for unit in drawn) / len(drawn) == pytest.approx(0.5, abs=0.04)
    assert sum(draw_review("spring", unit)[1] % 2 for unit in drawn) / len(drawn) == pytest.approx(0.5, abs=0.04)

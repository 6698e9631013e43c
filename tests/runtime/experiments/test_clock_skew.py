"""Records whose time is ahead of the clock are in no sum, however many there are and whenever they are read again."""

import random
from datetime import UTC, datetime

import pytest

from murmura.runtime.experiments.assignment import place_unit
from murmura.runtime.experiments.clock_skew import AHEAD_MINUTES, ClockSkew
from murmura.runtime.experiments.kept_state import read_state, write_state
from murmura.runtime.experiments.run import Answer, ExperimentRun
from murmura.runtime.experiments.units import Place
from murmura.schemas.experiment import Experiment, Rules
from murmura.schemas.experiment_state import ExperimentState

START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = int(START.timestamp()) // 60
SKEWED = 1000


def _make_run() -> ExperimentRun:
    rules = Rules(attribution_hours=24)
    return ExperimentRun("desk", (1, 2), Experiment(id="spring", share=0.5, rules=rules, started=START))


def _answer(number: int) -> Answer:
    unit = str(number)
    by_candidate = place_unit("spring", unit) < 0.5
    version = 2 if by_candidate else 1
    return Answer(unit.encode(), unit, {}, f"{number:032x}", {"errors": (0.0, 1.0)}, version, by_candidate)


def _restart(run: ExperimentRun) -> ExperimentRun:
    return read_state(ExperimentState.model_validate_json(write_state(run).model_dump_json()), {})


@pytest.mark.parametrize("ahead_minutes", [125, 600])
def test_many_records_ahead_of_the_clock_are_counted_once_and_in_no_sum_after_restarts(ahead_minutes: int) -> None:
    """Every second record is of a producer whose clock is ahead; after a restart the clock has passed its times."""
    records = [(NOW + number % 2 * ahead_minutes, _answer(number)) for number in range(2 * SKEWED)]
    run = _make_run()
    for offset, (minute, answer) in enumerate(records):
        run.read(Place("a", offset, minute), answer, NOW)
    for later in (60, 700):
        run = _restart(run)
        assert run.positions["a"] == 0, "the units are open: all is read again"
        for offset, (minute, answer) in enumerate(records):
            run.read(Place("a", offset, minute), answer, NOW + later)
        assert run.ledger.open_units == SKEWED
        assert run.ledger.tally.skipped == {"clock_skew": SKEWED}
    run.look(NOW + 3000)
    assert run.ledger.tally.units.total() == SKEWED


def test_what_is_kept_is_a_span_an_hour_and_only_of_what_is_read_again() -> None:
    skew, offset = ClockSkew(24 * 60), 0
    for minute in range(NOW, NOW + 600):
        for _ in range(20):
            assert skew.skip(Place("a", offset, minute + 180), minute)
            assert not skew.skip(Place("a", offset + 1, minute + AHEAD_MINUTES), minute)
            offset += 2
    assert len(skew.keep_from({"a": 0})["a"]) == 10
    assert len(skew.keep_from({"a": offset - 3000})["a"]) == 2
    assert not skew.keep_from({"a": offset})


@pytest.mark.parametrize("open_minutes", [1, 24 * 60, 60 * 24 * 60])
def test_of_records_that_are_read_again_the_same_ones_are_skipped_in_few_spans(open_minutes: int) -> None:
    draw, skipped, places = random.Random(1), [], []
    skew = ClockSkew(open_minutes)
    for offset in range(20_000):
        minute = NOW + offset * open_minutes // 20_000
        places.append(Place("a", offset, minute + draw.choice((0, 30, 100, 3000))))
        skipped.append(skew.skip(places[-1], minute))
    again = ClockSkew(open_minutes, skew.keep_from({}))
    assert [again.was_skipped(place) for place in places] == skipped
    assert len(skew.keep_from({})["a"]) <= 98


@pytest.mark.parametrize("restarts", [False, True], ids=["one holder", "successors"])
@pytest.mark.parametrize("seed", range(5))
def test_what_was_skipped_is_known_also_where_the_clock_went_back(seed: int, restarts: bool) -> None:
    draw, skipped, places = random.Random(seed), [], []
    skew = ClockSkew(24 * 60)
    for offset in range(300):
        if restarts and draw.random() < 0.2:
            skew = ClockSkew(24 * 60, skew.keep_from({}))
        minute = NOW - 1 + draw.choice((0, 2))  # on either side of a full hour
        places.append(Place("a", offset, NOW + draw.choice((0, 59, 90, 119, 121, 500))))
        skipped.append(skew.skip(places[-1], minute))
    again = ClockSkew(24 * 60, skew.keep_from({}))
    assert [again.was_skipped(place) for place in places] == skipped


def test_a_state_with_offsets_of_skipped_records_is_read() -> None:
    run = _make_run()
    run.read(Place("a", 0, NOW), _answer(0), NOW)
    run.read(Place("a", 1, NOW + 600), _answer(1), NOW)
    state = write_state(run).model_copy(update={"skipped_spans": {}, "skipped_offsets": {"a": [1]}})
    run = read_state(state, {})
    for number, minute in enumerate((NOW, NOW + 600)):
        run.read(Place("a", number, minute), _answer(number), NOW + 700)
    assert run.ledger.open_units == 1

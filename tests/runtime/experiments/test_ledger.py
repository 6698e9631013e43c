"""Units enter the sums once, and the same whatever the order of reading and wherever it is interrupted."""

import copy
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from murmura.runtime.experiments.assignment import PLACES, Shares, choose_side, hash_unit
from murmura.runtime.experiments.entered import CHUNK, EnteredUnits
from murmura.runtime.experiments.ledger import GRACE_MINUTES, MAX_MEASURES, Ledger, Tally
from murmura.runtime.experiments.observations import OTHER_AGREEMENT
from murmura.runtime.experiments.units import MAX_REFERENCES, Place
from murmura.schemas.feedback import Feedback

HOUR = 60


@dataclass(frozen=True)
class _Record:
    place: Place
    unit: int | None
    """None: an event."""
    reference: str
    right: float


def _ledger(tally: Tally | None = None, entered: EnteredUnits | None = None, **changes: object) -> Ledger:
    options = {"shares": Shares(0.5), "attribution_minutes": HOUR, "max_units": 1000} | changes
    return Ledger(tally=tally, entered=entered, **options)  # type: ignore[arg-type]


def _tell(ledger: Ledger, record: _Record) -> None:
    if record.unit is None:
        ledger.count_event(record.place, record.reference, {"agreement": (record.right, 1.0)})
        return
    side = choose_side(record.unit / PLACES, ledger.shares.share_until(record.place.minute + 1))
    ledger.count_answer(record.place, record.unit, side, [record.reference], {"withheld": (record.right, 1.0)})


def _summed(ledger: Ledger) -> object:
    tally = ledger.tally
    return tally.sums, tally.units, tally.moved, tally.skipped, round(tally.expected, 9), ledger.entered.tail


def _make_records(seed: int) -> list[_Record]:
    """Answers of 30 units in two logs over some hours, and events on some of them in a third log."""
    draw = random.Random(seed)
    offsets = dict.fromkeys(("a", "b", "events"), 0)
    records = []
    for number, minute in enumerate(sorted(draw.randrange(5 * HOUR) for _ in range(120))):
        log = draw.choice(["a", "b"])
        unit = hash_unit("spring", f"customer-{draw.randrange(30)}")
        records.append(_Record(Place(log, offsets[log], minute), unit, f"answer-{number}", draw.randrange(2)))
        offsets[log] += 1
        if draw.random() < 0.5:
            later = Place("events", 0, minute + draw.randrange(40))
            records.append(_Record(later, None, f"answer-{number}", draw.randrange(2)))
    events = sorted((record for record in records if record.unit is None), key=lambda record: record.place.minute)
    numbered = [
        _Record(Place("events", offset, event.place.minute), None, event.reference, event.right)
        for offset, event in enumerate(events)
    ]
    return [record for record in records if record.unit is not None] + numbered


def _interleave(records: Iterable[_Record], draw: random.Random) -> list[_Record]:
    """Return the records of each log in their order, the logs in any."""
    logs: dict[str, list[_Record]] = {}
    for record in sorted(records, key=lambda record: record.place.offset):
        logs.setdefault(record.place.log, []).append(record)
    order = [log for log, own in logs.items() for _ in own]
    draw.shuffle(order)
    return [logs[log].pop(0) for log in order]


def _read(ledger: Ledger, records: list[_Record], every: list[_Record], positions: dict[str, int]) -> None:
    """Tell records, and let units enter up to the lowest minute that all logs have been read to."""
    ends = {log: 1 + max(r.place.offset for r in every if r.place.log == log) for log in ("a", "b", "events")}
    for record in records:
        _tell(ledger, record)
        positions[record.place.log] = record.place.offset + 1
        nexts = [
            min(r.place.minute for r in every if r.place.log == log and r.place.offset >= positions.get(log, 0))
            for log, end in ends.items()
            if positions.get(log, 0) < end
        ]
        ledger.close_until(min(nexts, default=10 * HOUR))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_any_order_and_any_kill_give_the_same_sums(seed: int) -> None:
    draw = random.Random(seed)
    records = _make_records(seed)
    shares = Shares(0.3).raised(3 * HOUR, 0.8)
    expected = _ledger(shares=shares)
    _read(expected, _interleave(records, draw), records, {})
    assert expected.open_units == 0
    assert sum(expected.tally.units.values()) + expected.tally.moved == len(
        {r.unit for r in records if r.unit is not None}
    )

    ledger, positions = _ledger(shares=shares), dict[str, int]()
    read_until: dict[str, int] = {}
    order = _interleave(records, draw)
    for _ in range(3):  # killed three times
        _read(ledger, order[: draw.randrange(len(order))], records, positions)
        kept, safe = copy.deepcopy((ledger.tally, ledger.entered)), ledger.find_safe_offsets(positions)
        read_until = {log: max(offset, read_until.get(log, 0)) for log, offset in positions.items()}
        ledger, positions = _ledger(*kept, shares=shares, positions=read_until), dict(safe)
        order = _interleave([r for r in records if r.place.offset >= safe.get(r.place.log, 0)], draw)
    _read(ledger, order, records, positions)
    assert sorted(ledger.entered.tail) == sorted(expected.entered.tail)
    assert _summed(ledger) == _summed(expected)


def _place(minute: int, offset: int = 0, log: str = "a") -> Place:
    return Place(log, offset, minute)


def test_a_unit_enters_once() -> None:
    ledger = _ledger()
    for offset, minute in enumerate((0, 30, 59, 60, 61)):
        ledger.count_answer(_place(minute, offset), 7, "candidate", [f"p{offset}"], {"withheld": (1.0, 1.0)})
    ledger.close_until(HOUR)
    assert ledger.tally.units == {}  # within the grace
    ledger.close_until(HOUR + GRACE_MINUTES)
    ledger.count_answer(_place(500, 9), 7, "candidate", ["p9"], {"withheld": (1.0, 1.0)})
    ledger.close_until(1000)
    sums = ledger.tally.sums["withheld"]["candidate"]
    assert (sums.units, sums.weight) == (1, 3)  # of the first hour, and one unit is one unit
    assert ledger.tally.units == {"candidate": 1}


def test_an_answer_that_comes_twice_counts_once() -> None:
    ledger = _ledger()
    for offset in range(2):
        ledger.count_answer(_place(0, offset), 7, "control", ["p"], {"withheld": (1.0, 1.0)})
    ledger.close_until(1000)
    assert ledger.tally.sums["withheld"]["control"].weight == 1


def test_events_find_their_answer_by_any_id_before_or_after_it() -> None:
    ledger = _ledger()
    ledger.count_event(_place(3, log="feedback"), "request-1", {"agreement": (1.0, 1.0)})
    ledger.count_answer(_place(2), 7, "control", ["prediction-1", "request-1"], {})
    ledger.count_event(_place(4, 1, "feedback"), "prediction-1", {"agreement": (0.0, 1.0)})
    ledger.count_event(_place(4, 2, "feedback"), "prediction-2", {"agreement": (0.0, 1.0)})
    ledger.close_until(1000)
    sums = ledger.tally.sums["agreement"]["control"]
    assert (sums.value, sums.weight, ledger.tally.unexposed) == (1, 2, 1)
    ledger.count_event(_place(70, 3, "feedback"), "prediction-1", {"agreement": (0.0, 1.0)})  # too late
    ledger.close_until(2000)
    assert ledger.tally.unexposed == 2
    assert ledger.tally.sums["agreement"]["control"].weight == 2


def _feedback(
    number: str, second: int, verdict: str, value: str | None = None, by: str = "anna", *, blind: bool = True
) -> Feedback:
    at = datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC)
    shared = {"prediction_id": "0" * 32, "agent": "a", "task": "intent", "by": by, "at": at, "blind": blind}
    return Feedback.model_validate(shared | {"id": number, "verdict": verdict, "value": value})


def test_of_verdicts_the_latest_of_each_person_counts_once_and_none_that_was_taken_back() -> None:
    ledger = _ledger()
    ledger.count_answer(_place(0), 7, "control", ["p"], {})
    events = [
        _feedback("2", 2, "confirmed"),
        _feedback("1", 1, "correction", "refund"),
        _feedback("2", 2, "confirmed"),
        _feedback("3", 3, "correction", "refund"),
        _feedback("5", 5, "withdrawn", "3"),
        _feedback("4", 4, "correction", "refund", by="ben"),
        ("0" * 32, "intent"),
        ("0" * 32, "intent"),
    ]
    for offset, event in enumerate(events):
        ledger.count_event(_place(1, offset, "feedback"), "p", event)
    ledger.close_until(1000)
    sums = ledger.tally.sums["agreement"]["control"]
    assert (sums.value, sums.weight) == (1, 2)
    assert OTHER_AGREEMENT not in ledger.tally.sums


def test_a_verdict_after_the_answer_was_seen_takes_no_blind_one_away() -> None:
    ledger = _ledger()
    ledger.count_answer(_place(0), 7, "control", ["p"], {})
    seen = _feedback("2", 2, "correction", "refund", blind=False)
    for offset, event in enumerate([("0" * 32, "intent"), _feedback("1", 1, "confirmed"), seen]):
        ledger.count_event(_place(1, offset, "feedback"), "p", event)
    ledger.close_until(1000)
    found = {
        key: (ledger.tally.sums[key]["control"].value, ledger.tally.sums[key]["control"].weight)
        for key in ("agreement", OTHER_AGREEMENT)
    }
    assert found == {"agreement": (1, 1), OTHER_AGREEMENT: (0, 1)}


def test_reading_begins_again_before_the_oldest_open_unit_and_the_oldest_waiting_event() -> None:
    ledger = _ledger()
    ledger.count_event(_place(5, 3, "feedback"), "late", {"agreement": (1.0, 1.0)})
    ledger.count_answer(_place(0, 4), 7, "control", ["p"], {})
    ledger.count_answer(_place(30, 6), 8, "control", ["q"], {})
    ledger.count_event(_place(31, 9, "feedback"), "q", {"agreement": (1.0, 1.0)})
    assert ledger.find_safe_offsets({"a": 10, "feedback": 10, "b": 2}) == {"a": 4, "feedback": 3, "b": 2}
    ledger.close_until(61)
    assert ledger.find_safe_offsets({"a": 10, "feedback": 10}) == {"a": 6, "feedback": 9}
    ledger.close_until(1000)
    assert ledger.find_safe_offsets({"a": 10, "feedback": 10}) == {"a": 10, "feedback": 10}


def test_a_unit_on_both_sides_is_in_no_sum() -> None:
    ledger = _ledger()
    ledger.count_answer(_place(0, 0), 7, "control", ["p0"], {"withheld": (1.0, 1.0)})
    ledger.count_answer(_place(1, 1), 7, "candidate", ["p1"], {"withheld": (1.0, 1.0)})
    ledger.close_until(1000)
    assert (ledger.tally.moved, ledger.tally.sums) == (1, {})


def test_open_units_are_bounded_by_sampling() -> None:
    ledger = _ledger(max_units=100)
    for number in range(1000):
        unit = hash_unit("spring", str(number))
        ledger.count_answer(_place(0, number), unit, "control", [str(number)], {"withheld": (1.0, 1.0)})
    assert ledger.open_units <= 100
    ledger.close_until(1000)
    assert ledger.tally.sampled == pytest.approx(ledger.tally.units["control"] / 1000, abs=0.05)


def test_a_unit_of_many_records_keeps_a_bounded_number_of_ids() -> None:
    ledger = _ledger(max_units=10**6)
    for number in range(MAX_REFERENCES + 50):
        ledger.count_answer(_place(number % 50, number), 7, "control", [str(number)], {"withheld": (0.0, 1.0)})
    ledger.count_event(_place(50), str(MAX_REFERENCES + 1), {"agreement": (1.0, 1.0)})
    ledger.count_answer(_place(49, 1), 7, "control", [str(MAX_REFERENCES + 1)], {"withheld": (1.0, 1.0)})
    ledger.close_until(1000)
    assert ledger.tally.units == {"control": 1}
    assert ledger.tally.sums["withheld"]["control"].weight == MAX_REFERENCES, (
        "one that comes again beyond them counts for nothing"
    )
    assert ledger.tally.unexposed == 1


def test_entered_units_are_kept_in_chunks() -> None:
    mixed = [hash_unit("spring", str(number)) for number in range(5 * CHUNK)]
    many = EnteredUnits(mixed)
    assert [many.chunk(number) for number in range(5)] == [mixed[at : at + CHUNK] for at in range(0, 5 * CHUNK, CHUNK)]
    assert all(unit in many for unit in mixed)
    assert 1 not in many
    entered = EnteredUnits(range(CHUNK + 3))
    assert (entered.full_chunks, entered.chunk(0), entered.tail) == (
        1,
        list(range(CHUNK)),
        [CHUNK, CHUNK + 1, CHUNK + 2],
    )
    again = EnteredUnits([*entered.chunk(0), *entered.tail])
    assert len(again) == CHUNK + 3
    assert 5 in again
    assert CHUNK + 3 not in again
    with pytest.raises(ValueError, match="entered before"):
        again.add(5)
    with pytest.raises(IndexError):
        entered.chunk(1)


def test_many_events_that_name_one_unknown_answer_go_in_linear_time() -> None:
    ledger = _ledger(max_units=1_000_000)
    for offset in range(20_000):
        ledger.count_event(Place("orders", offset, offset % 2), "null", {"ratio/orders": (1.0, 0.0)})
    started = time.perf_counter()
    ledger.close_until(2)
    assert ledger.find_safe_offsets({"orders": 20_000}) == {"orders": 1}
    assert time.perf_counter() - started < 3.0
    assert ledger.tally.skipped == {"unexposed": 10_000}
    assert ledger.enter_some(3, 1)
    assert not ledger.enter_some(3, 1)
    assert ledger.tally.skipped == {"unexposed": 20_000}


def test_feedback_that_names_ever_new_tasks_fills_no_memory() -> None:
    tally = Tally()
    for number in range(MAX_MEASURES + 5):
        tally.enter("control", 0.5, {f"{OTHER_AGREEMENT}/task-{number}": (1.0, 1.0)})
    tally.enter("control", 0.5, {"agreement": (1.0, 1.0), f"{OTHER_AGREEMENT}/task-0": (1.0, 1.0)})
    assert len(tally.sums) == MAX_MEASURES + 1
    assert tally.sums[f"{OTHER_AGREEMENT}/task-0"]["control"].units == 2

"""A running experiment comes to the same sums and the same decision, wherever its holder is killed and whatever it reads first."""

import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from murmura.runtime.experiments.assignment import place_unit
from murmura.runtime.experiments.clock_skew import AHEAD_MINUTES
from murmura.runtime.experiments.conversation_side import choose_conversation_side
from murmura.runtime.experiments.kept_state import read_state, write_chunk, write_state
from murmura.runtime.experiments.log_times import LogTimes
from murmura.runtime.experiments.observations import count_ratio
from murmura.runtime.experiments.pass_ratios import FEWEST_RESULTS, PassRatios
from murmura.runtime.experiments.run import Answer, Content, ExperimentRun, Reference, Skipped
from murmura.runtime.experiments.unit_assignment import Assignment, RunningExperiment
from murmura.runtime.experiments.units import Place
from murmura.schemas.dialogue import ConversationSide
from murmura.schemas.experiment import Experiment, Raise, Rules
from murmura.schemas.experiment_state import EnteredChunk, ExperimentState
from murmura.schemas.feedback import Feedback

START = datetime(2026, 1, 1, tzinfo=UTC)
START_MINUTE = int(START.timestamp()) // 60
VERSIONS = (1, 2)


def _experiment(share: float = 0.5, raises: tuple[Raise, ...] = (), **rules: object) -> Experiment:
    chosen = {
        "min_units": 50,
        "min_hours": 0.5,
        "attribution_hours": 0.25,
        "hold_back_hours": 1.0,
        "tuning": 300,
    } | rules
    return Experiment(
        id="spring",
        unit="metadata.shop",
        share=share,
        rules=Rules.model_validate(chosen),
        started=START,
        raises=list(raises),
    )


def _answer(number: int, unit: str | None, experiment: Experiment, **changes: object) -> Answer:
    on_candidate = unit is not None and place_unit(experiment.id, unit) < experiment.share
    fields: dict[str, object] = {
        "key": None,
        "request_id": f"request-{number}",
        "metadata": {} if unit is None else {"shop": unit},
        "prediction_id": f"{number:032x}",
        "counts": {"errors": (0.0, 1.0), "withheld": (0.0, 1.0)},
        "version": 2 if on_candidate else 1,
        "by_candidate": on_candidate,
        "scores": {"intent": number % 101 / 100},
        "latency_ms": number * 7.0,
    }
    return Answer(**fields | changes)  # type: ignore[arg-type]


def _verdict(number: int, right: bool) -> Feedback:
    return Feedback.model_validate(
        {
            "id": f"verdict-{number}",
            "prediction_id": f"{number:032x}",
            "agent": "desk",
            "task": "intent",
            "verdict": "confirmed" if right else "correction",
            "value": None if right else "refund",
            "by": "anna",
            "blind": True,
            "at": START,
        }
    )


@dataclass(frozen=True)
class _World:
    """Logs of records, each in the order of its time."""

    logs: dict[str, list[tuple[int, Content]]]

    def place(self, log: str, offset: int) -> tuple[Place, Content]:
        minute, content = self.logs[log][offset]
        return Place(log, offset, minute), content


def _make_world(seed: int, experiment: Experiment, candidate: float, control: float, units: int = 500) -> _World:
    """Answers to units over two hours, some repeated, of which all are drawn and judged; and records that count nothing."""
    draw = random.Random(seed)
    logs: dict[str, list[tuple[int, Content]]] = {name: [] for name in ("a", "b", "feedback", "reviews")}
    for number in range(units):
        minute = START_MINUTE + draw.randrange(120)
        unit = f"customer-{number % (units - 30)}"
        answer = _answer(number, unit, experiment)
        log = draw.choice("ab")
        logs[log] += [(minute, answer)] * draw.choice((1, 1, 1, 2))
        right = draw.random() < (candidate if answer.by_candidate else control)
        logs["reviews"].append((minute, Reference(answer.prediction_id, (answer.prediction_id, "intent"))))
        judged = (minute + draw.randrange(9), Reference(answer.prediction_id, _verdict(number, right)))
        logs["feedback"] += [judged] * draw.choice((1, 1, 2))
    for number in range(20):
        minute = START_MINUTE + draw.randrange(120)
        logs["feedback"].append((minute, Reference("f" * 32, _verdict(units + number, right=False))))
        logs["a"].append((minute, Skipped("unreadable")))
        logs["b"].append((minute, _answer(units + number, None, experiment)))
    ahead = Reference(f"{1:032x}", _verdict(1, right=True))
    logs["feedback"].append((START_MINUTE + 130, ahead))
    for records in logs.values():
        records.sort(key=lambda pair: pair[0])
    logs["feedback"].insert(100, (START_MINUTE + 100_000, ahead))
    return _World(logs)


class _Holder:
    """Reads a world as a holder does, and keeps what it writes as the broker would."""

    def __init__(self, world: _World, experiment: Experiment, draw: random.Random) -> None:
        self.world, self.draw = world, draw
        self.run = ExperimentRun("desk", VERSIONS, experiment)
        self.state: str | None = None
        self.chunks: dict[int, EnteredChunk] = {}
        self.times = LogTimes()
        self.experiment = experiment

    def write(self) -> None:
        for number in range(len(self.chunks), self.run.ledger.entered.full_chunks):
            self.chunks[number] = write_chunk(self.run, number)
        self.state = write_state(self.run).model_dump_json()

    def be_killed(self) -> None:
        self.times = LogTimes()
        self.run = (
            ExperimentRun("desk", VERSIONS, self.experiment)
            if self.state is None
            else read_state(ExperimentState.model_validate_json(self.state), self.chunks)
        )

    def step(self) -> bool:
        """Read a few records of one log, or look; return whether something is left to do."""
        ends = {log: len(records) for log, records in self.world.logs.items()}
        behind = [log for log, end in ends.items() if self.run.positions.get(log, 0) < end]
        if behind and self.draw.random() < 0.6:
            log = self.draw.choice(behind)
            first = self.run.positions.get(log, 0)
            for offset in range(first, min(first + self.draw.randrange(1, 150), ends[log])):
                place, content = self.world.place(log, offset)
                self.run.read(place, content, now_minute=START_MINUTE + 200)
                if place.minute <= START_MINUTE + 200 + AHEAD_MINUTES:
                    self.times.note(log, place.minute)
            return True
        until = self.times.find_minute(self.run.positions, ends, START_MINUTE + 400)
        minute = None if until is None else self.run.next_look(until)
        if minute is not None:
            self.run.look(minute)
        return bool(behind) or minute is not None


def _hold(world: _World, experiment: Experiment, seed: int, kills: float) -> _Holder:
    draw = random.Random(seed)
    holder = _Holder(world, experiment, draw)
    while holder.step():
        if draw.random() < 0.1:
            holder.write()
        if draw.random() < kills:
            holder.be_killed()
    return holder


def _describe(holder: _Holder) -> dict[str, object]:
    state = write_state(holder.run).model_dump()
    return {name: value for name, value in state.items() if name not in ("begin_at", "skipped_spans")}


def test_a_state_from_before_distributions_were_kept_is_read_and_counted_on() -> None:
    run = ExperimentRun("desk", VERSIONS, _experiment())
    old = {name: value for name, value in write_state(run).model_dump().items() if name not in ("scores", "latency")}
    run = read_state(ExperimentState.model_validate(old), {})
    for offset in range(150):
        answer = _answer(offset, "shop", run.experiment, by_candidate=False, scores={f"task-{offset}": 0.5})
        run.read(Place("a", offset, START_MINUTE), answer, START_MINUTE)
    state = write_state(run)
    assert (len(state.scores), state.scores["task-7"]) == (100, {"control": {"10": 1}})
    assert sum(state.latency["control"].values()) == 150


@pytest.mark.parametrize("seed", range(2))
def test_kills_between_any_steps_change_neither_sums_nor_decision(seed: int) -> None:
    experiment = _experiment(raises=(Raise(at=START + timedelta(minutes=70), share=0.6),) if seed % 2 else ())
    world = _make_world(seed, experiment, candidate=0.9, control=0.6)
    expected = _hold(world, experiment, seed, kills=0.0)
    killed = _hold(world, experiment, seed + 1, kills=0.05)
    assert _describe(killed) == _describe(expected)
    skipped = dict(expected.run.ledger.tally.skipped)
    assert skipped.pop("unexposed") >= 20
    assert skipped == {"unreadable": 20, "no_unit": 20, "clock_skew": 1}
    assert [each.action for each in expected.run.decided] == ["promote"]


def test_a_worse_candidate_is_stopped() -> None:
    experiment = _experiment()
    world = _make_world(5, experiment, candidate=0.5, control=0.9)
    run = _hold(world, experiment, 5, kills=0.02).run
    assert run.due is not None
    assert (run.due.action, run.due.why.split()[0]) == ("stop", "agreement")


def test_a_promoted_candidate_is_completed_after_the_hold_back() -> None:
    experiment = _experiment()
    world = _make_world(6, experiment, candidate=0.9, control=0.6)
    holder = _hold(world, experiment, 6, kills=0.0)
    promoted = experiment.raised(0.95, START + timedelta(hours=3)).model_copy(
        update={"promoted": START + timedelta(hours=3)}
    )
    holder.run.update(promoted)
    assert holder.run.due is None
    assert holder.run.next_look(10**9) == START_MINUTE + 400
    holder.run.look(START_MINUTE + 400)
    assert holder.run.due is not None
    assert holder.run.due.action == "complete"


def test_answers_of_other_versions_and_in_place_of_the_candidate_are_told_apart() -> None:
    experiment = _experiment(share=0.9)
    run = ExperimentRun("desk", VERSIONS, experiment)
    units = [unit for unit in map(str, range(30)) if place_unit("spring", unit) < 0.9]
    for number, changes in enumerate(({}, {"version": 1, "by_candidate": False}, {"version": 7})):
        run.read(Place("a", number, START_MINUTE), _answer(number, units[number], experiment, **changes), START_MINUTE)
    assert run.answers == {"candidate": 1, "fallback": 1}
    assert run.ledger.tally.skipped == {"other_version": 1}
    assert run.ledger.open_units == 2


def test_events_of_a_ratio_that_no_rule_names_are_in_no_sum() -> None:
    orders = [{"measure": "ratio", "name": "orders", "better": "higher"}]
    run = ExperimentRun("desk", VERSIONS, _experiment(goals=orders))
    run.read(Place("a", 0, START_MINUTE), _answer(0, "shop", run.experiment), START_MINUTE)
    for offset, name in enumerate(("orders", "other")):
        event = Reference("request-0", count_ratio(name, 1.0))
        run.read(Place("ratios", offset, START_MINUTE), event, START_MINUTE)
    run.look(START_MINUTE + 20)
    assert "ratio/orders" in run.ledger.tally.sums
    assert "ratio/other" not in run.ledger.tally.sums
    assert run.ledger.tally.skipped == {"unknown_ratio": 1}


def test_a_run_goes_on_within_what_is_left_of_a_log_and_counts_what_is_gone() -> None:
    run = ExperimentRun("desk", VERSIONS, _experiment())
    run.positions = {"a": 5, "b": 5, "c": 5, "d": 5}
    gone = [run.keep_within(log, *ends) for log, ends in {"a": (0, 9), "b": (8, 9), "c": (0, 2), "d": (5, 5)}.items()]
    assert (gone, run.positions) == ([0, 3, 3, 0], {"a": 5, "b": 8, "c": 2, "d": 5})
    assert run.ledger.tally.skipped == {"deleted": 3}


def test_the_turns_of_a_conversation_are_one_unit_also_where_each_request_is_one() -> None:
    experiment = _experiment().model_copy(update={"unit": "request"})
    assignment = Assignment(experiment.id, experiment.unit, experiment.share)
    for number in range(20):
        name, run = f"talk-{number}", ExperimentRun("desk", VERSIONS, experiment)
        side = choose_conversation_side(None, RunningExperiment(assignment, True), name, {})
        assert side is not None
        for turn in range(3):
            by = {"by_candidate": side.variant == "candidate", "version": 2 if side.variant == "candidate" else 1}
            reply = _answer(turn, None, experiment, conversation=name, **by)
            run.read(Place("a", turn, START_MINUTE), reply, START_MINUTE)
        assert run.ledger.open_units == 1
        run.look(START_MINUTE + 20)
        assert dict(run.ledger.tally.units) == {"candidate" if by["by_candidate"] else "control": 1}
        assert "fallback" not in run.answers


def test_a_conversation_whose_metadata_names_another_unit_is_on_the_side_of_that_one_from_then_on() -> None:
    experiment = _experiment().model_copy(update={"unit": "metadata.customer"})
    assignment = Assignment(experiment.id, experiment.unit, experiment.share)
    run, sides = ExperimentRun("desk", VERSIONS, experiment), dict[str, set[bool]]()
    turns = [*({"customer": f"c{number // 2}"} for number in range(20)), {}]
    kept: ConversationSide | None = None
    for turn, metadata in enumerate(turns):
        kept = choose_conversation_side(kept, RunningExperiment(assignment, True), "talk", metadata)
        assert kept is not None
        by_candidate = kept.variant == "candidate"
        sides.setdefault(metadata.get("customer", "c9"), set()).add(by_candidate)
        by = {"by_candidate": by_candidate, "version": 2 if by_candidate else 1}
        reply = replace(_answer(turn, None, experiment, conversation="talk", **by), metadata=metadata)
        run.read(Place("a", turn, START_MINUTE), reply, START_MINUTE)
    assert {len(found) for found in sides.values()} == {1}
    run.look(START_MINUTE + 20)
    candidates = sum(found == {True} for found in sides.values())
    assert dict(run.ledger.tally.units) == {"candidate": candidates, "control": 10 - candidates}
    assert dict(run.ledger.tally.skipped) == {"no_unit": 1}
    assert "fallback" not in run.answers


def test_a_state_lacks_no_chunk() -> None:
    run = ExperimentRun("desk", VERSIONS, _experiment())
    for unit in range(5000):
        run.ledger.entered.add(unit)
    state = write_state(run)
    assert (state.chunks, len(state.model_dump_json()) < 100_000) == (1, True)
    with pytest.raises(ValueError, match="chunk 0 of 1 is missing"):
        read_state(state, {})
    assert 4999 in read_state(state, {0: write_chunk(run, 0)}).ledger.entered


def _fill(ratios: PassRatios, window: int, candidate: float, results: int = FEWEST_RESULTS) -> None:
    for _ in range(results):
        ratios.count(window * 10, "candidate", candidate)
        ratios.count(window * 10 + 9, "control", 1.0)
    ratios.close_until((window + 1) * 10)


@pytest.mark.parametrize(
    ("windows", "broken"),
    [
        ([2.1, 2.1, 2.1], True),
        ([2.1, 1.5, 2.1, 2.1], False),
        ([2.1, 2.1, None, 2.1], False),
        ([1.5, 1.5, 1.5], False),
    ],
)
def test_passes_that_take_twice_as_long_in_three_windows_in_a_row(windows: list[float | None], broken: bool) -> None:
    ratios = PassRatios()
    for window, ratio in enumerate(windows):
        _fill(ratios, window, ratio or 2.1, FEWEST_RESULTS if ratio else FEWEST_RESULTS - 1)
    assert ratios.is_broken == broken


def test_a_window_without_a_result_ends_a_row_of_slow_ones() -> None:
    ratios = PassRatios()
    for window in (0, 1, 3):
        ratios.close_until(window * 10)
        _fill(ratios, window, 3.0)
    assert (ratios.in_row, ratios.is_broken) == (1, False)


def test_slow_passes_stop_an_experiment() -> None:
    run = ExperimentRun("desk", VERSIONS, _experiment())
    for window in range(START_MINUTE // 10, START_MINUTE // 10 + 3):
        _fill(run.pass_ratios, window, 3.0)
    run.look(START_MINUTE + 31)
    assert run.due is not None
    assert run.due.action == "stop"
    assert "calibrated time" in run.due.why

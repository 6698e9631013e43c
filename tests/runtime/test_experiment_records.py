"""What the holder of experiments reads of records, and which experiments it holds by the release states."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from aiokafka.structs import ConsumerRecord

from murmura.runtime.errors import RecordError
from murmura.runtime.experiment_holder.held import HeldExperiments
from murmura.runtime.experiment_holder.records import (
    Read,
    read_dead_letter,
    read_feedback,
    read_ratio,
    read_result,
    read_review,
)
from murmura.runtime.experiments.run import Answer, Reference, Skipped
from murmura.runtime.experiments.units import Place
from murmura.runtime.wire.dead_letter import dead_letter
from murmura.schemas.deadletter import DeadLetterReason
from murmura.schemas.experiment import Experiment
from murmura.schemas.release import ReleaseState, completed, raised, released, rolled_back, started, stopped
from murmura.schemas.request import TRIED

NOW = datetime(2026, 1, 2, tzinfo=UTC)
EXPERIMENT = Experiment(id="spring", share=0.5, started=NOW)


def _record(
    value: object, key: bytes | None = b"customer", headers: tuple[tuple[str, bytes], ...] = (), topic: str = "t"
) -> ConsumerRecord:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return ConsumerRecord(topic, 0, 7, 1_000_000, 0, key, raw, None, 0, 0, headers)


def _result(**changes: object) -> dict[str, object]:
    intent = {"kind": "classification", "label": None, "abstained": True, "reason": "below_threshold", "score": 0.1}
    spans = {"kind": "tagging", "spans": [], "reason": [1]}
    fields = {"request_id": "r", "prediction_id": "0" * 32, "outputs": {"intent": intent, "spans": spans}}
    return fields | {"model": {"name": "desk", "version": 2, "variant": "candidate"}, "pass_ratio": 1.5} | changes


def test_a_result_is_an_answer_of_a_version() -> None:
    read = read_result(_record(_result()))
    assert read is not None
    assert isinstance(read.content, Answer)
    answer = read.content
    assert (read.model, answer.key, answer.version, answer.by_candidate) == ("desk", b"customer", 2, True)
    assert (answer.pass_ratio, answer.counts["withheld/intent"], "withheld/spans" in answer.counts) == (
        1.5,
        (1, 1),
        False,
    )


def test_a_result_says_how_sure_and_how_late_it_was() -> None:
    cases = [
        ({"source": {"topic": "t", "partition": 0, "offset": 1, "timestamp": 999_880}}, {"intent": 0.1}, 120),
        ({"source": {"timestamp": -1}, "outputs": {"intent": {"abstained": False, "score": 7}}}, {}, None),
        ({}, {"intent": 0.1}, None),
    ]
    for changes, scores, latency_ms in cases:
        read = read_result(_record(_result(**changes)))
        assert read is not None
        assert isinstance(read.content, Answer)
        assert (read.content.scores, read.content.latency_ms) == (scores, latency_ms)


def test_a_text_that_was_tried_in_the_console_is_no_unit() -> None:
    read = read_result(_record(_result(metadata=TRIED | {"channel": "mail"})))
    assert read == Read(Skipped("tried"), "desk")


def test_an_answer_in_place_of_a_candidate_that_failed_is_an_error() -> None:
    errors = []
    for failed in ({}, {"candidate_failed": True}):
        read = read_result(_record(_result(model={"name": "desk", "version": 1}, **failed)))
        assert read is not None
        assert isinstance(read.content, Answer)
        errors.append(read.content.counts["errors"])
    assert errors == [(0, 1), (1, 1)]


def test_what_is_no_answer_of_a_version_counts_nothing() -> None:
    assert read_result(_record({"turn": 1})) is None
    assert read_result(_record(_result(model=None))) is None
    assert read_result(_record(b"{")) == Read(Skipped("unreadable"))
    assert read_result(_record(_result(status="expired"))) == Read(Skipped("expired"), "desk")


def _letter(reason: DeadLetterReason, value: Mapping[str, object]) -> ConsumerRecord:
    failed = _record(value, topic="requests")
    message = dead_letter(failed, RecordError(reason, "no"), "letters", agent="desk-agent")
    return _record(message.value, message.key, tuple(message.headers), topic="letters")


def test_a_dead_letter_is_an_error_of_a_version_only_where_it_failed() -> None:
    models = {"requests": "desk"}
    read = read_dead_letter(_letter(DeadLetterReason.MODEL_FAILED, {"text": "hello", "id": "r"}), models, {}, {})
    assert read is not None
    assert isinstance(read.content, Answer)
    assert (read.model, read.content.request_id, read.content.counts) == ("desk", "r", {"errors": (1, 1)})
    assert read_dead_letter(_letter(DeadLetterReason.INVALID, {"text": 1}), models, {}, {}) is None
    assert read_dead_letter(_letter(DeadLetterReason.MODEL_FAILED, {"text": "hello"}), {}, {}, {}) is None


def test_a_dead_letter_is_one_of_the_model_that_its_agent_asks() -> None:
    letter = _letter(DeadLetterReason.MODEL_FAILED, {"text": "hello", "id": "r"})
    read = read_dead_letter(letter, {"requests": "other"}, {"desk-agent": "desk", "second": "other"}, {})
    assert read is not None
    assert read.model == "desk"


def test_feedback_draws_and_ratios_refer_to_answers() -> None:
    feedback = {"id": "f", "prediction_id": "0" * 32, "agent": "a", "task": "intent", "verdict": "up", "by": "anna"}
    feedback |= {"at": NOW.isoformat(), "model": {"name": "desk", "version": 1}}
    read = read_feedback(_record(feedback))
    assert isinstance(read.content, Reference)
    assert (read.model, read.content.to, read.content.version) == ("desk", "0" * 32, 1)
    review = {"why": "random", "task": "intent", "prediction_id": "0" * 32, "experiment": "spring"}
    assert read_review(_record(review)) == Read(Reference("0" * 32, ("0" * 32, "intent")), experiment="spring")
    assert read_review(_record(review | {"why": "margin"})) is None
    expected = Read(Reference("r", {"ratio/orders": (2.0, 0.0)}))
    assert read_ratio(_record({"name": "orders", "request_id": "r", "value": 2})) == expected
    assert read_ratio(_record({"name": "orders", "value": 2}, headers=(("murmura_cause", b"r"),))) == expected
    event = {"name": "orders", "request_id": "r"}
    for wrong in ({"name": "orders"}, {"request_id": "r"}, event | {"value": -1}, event | {"value": 1e200}):
        assert read_ratio(_record(wrong)) == Read(Skipped("unreadable"))
    assert read_ratio(_record(event | {"request_id": "r" * 513})) == Read(Skipped("unreadable"))


def _start() -> ReleaseState:
    first = released(None, "desk", 1, "0" * 64, by="a", why="", at=NOW)
    return started(first, 2, "1" * 64, EXPERIMENT, by="a", why="", at=NOW)


def _hold(*states: ReleaseState, held: HeldExperiments | None = None) -> HeldExperiments:
    held = held or HeldExperiments(("desk",), keep_days=30)
    for state in states:
        for key, value in held.follow({"desk": state}, NOW):
            held.restore(key.encode(), value)
    return held


def test_experiments_start_are_raised_and_end_by_the_release_states() -> None:
    held = _hold(_start())
    run = held.running["desk"]
    assert (run.versions, run.ledger.shares.raises) == ((1, 2), ())
    larger = raised(_start(), 0.8, by="a", why="", at=NOW + timedelta(minutes=5))
    _hold(larger, held=held)
    assert held.running["desk"] is run
    assert [share for _, share in run.ledger.shares.raises] == [0.8]
    ends = {
        "stopped": stopped(larger, by="a", why="", at=NOW),
        "completed": completed(larger, by="a", why="", at=NOW),
        "released": released(larger, "desk", 3, "3" * 64, by="a", why="", at=NOW),
    }
    for by, state in ends.items():
        other = _hold(_start())
        run = other.running["desk"]
        assert [json.loads(value)["ended"]["by"] for _, value in other.follow({"desk": state}, NOW) if value] == [by]
        assert other.running == {}


def test_an_experiment_that_ended_while_nobody_held_it_is_closed_and_forgotten_after_its_days() -> None:
    before = _hold(_start())
    records = list(before.write(before.running["desk"]))
    held = HeldExperiments(("desk",), keep_days=30)
    for key, value in records:
        held.restore(key.encode(), value)
    gone = rolled_back(released(_start(), "desk", 3, "3" * 64, by="a", why="", at=NOW), by="a", why="", at=NOW)
    ((key, value),) = held.follow({"desk": gone}, NOW)
    assert (key, json.loads(value or b"")["ended"]["by"]) == ("spring#state", "released")
    assert list(held.follow({"desk": gone}, NOW)) == []
    assert list(held.follow({"desk": gone}, NOW + timedelta(days=31))) == [("spring#state", None)]


def test_a_holder_goes_on_from_what_was_kept_and_from_the_start_where_a_chunk_is_missing() -> None:
    before = _hold(_start())
    run = before.running["desk"]
    for unit in range(5000):
        run.ledger.entered.add(unit)
    run.read(Place("t/0", 41, run.start_minute), None, run.start_minute)
    records = list(before.write(run))
    assert [key for key, _ in records] == ["spring#0", "spring#state"]
    assert [key for key, _ in before.write(run)] == ["spring#state"]
    whole, torn = HeldExperiments(("desk",), 30), HeldExperiments(("desk",), 30)
    for key, value in records:
        whole.restore(key.encode(), value)
    torn.restore(*((records[1][0].encode(), records[1][1])))
    assert len(_hold(_start(), held=whole).running["desk"].ledger.entered) == 5000
    assert whole.running["desk"].positions == {"t/0": 42}
    assert len(_hold(_start(), held=torn).running["desk"].ledger.entered) == 0
    assert torn.problems == ["experiment spring: chunk 0 of 1 is missing"]


def test_what_a_frozen_process_writes_late_is_passed_over_and_written_over() -> None:
    before = _hold(_start())
    run = before.running["desk"]
    late = list(before.write(run))
    run.minute += 5
    later = list(before.write(run))
    held = HeldExperiments(("desk",), keep_days=30)
    for key, value in later + late:
        held.restore(key.encode(), value)
    assert _hold(_start(), held=held).running["desk"].minute == run.minute

    over = stopped(_start(), by="a", why="", at=NOW)
    frozen = HeldExperiments(("desk",), keep_days=30)
    for key, value in late:
        frozen.restore(key.encode(), value)
    ends_late = list(_hold(_start(), held=frozen).follow({"desk": over}, NOW))
    ended = list(before.follow({"desk": over}, NOW))
    chunk = "spring#0"
    for written in (late, ends_late):
        ((key, value),) = written
        assert before.find_end(key.encode(), value) == ended[0][1]
        held = HeldExperiments(("desk",), keep_days=30)
        for key, value in [*ended, *written, (chunk, b"{}")]:
            held.restore(key.encode(), value)
        assert list(held.follow({"desk": over}, NOW)) == [*ended, (chunk, None)]
        assert list(held.follow({"desk": over}, NOW)) == []
    assert before.find_end(ended[0][0].encode(), ended[0][1]) is None

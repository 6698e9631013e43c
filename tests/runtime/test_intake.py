"""What is fetched and waits is bounded in bytes and records; what does not fit is fetched again, and nothing is lost."""

import asyncio
import json
from dataclasses import replace

import pytest
from aiokafka.structs import ConsumerRecord, TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st
from test_dispatcher import INTENT, PARTITION, Line

from murmura.agents.classification import agent as classification
from murmura.runtime.agent.routes import make_routes
from murmura.runtime.flow.admission import Admission
from murmura.runtime.flow.intake import Intake, Queue
from murmura.runtime.kafka.offset_tracker import Tracker
from murmura.runtime.model.texts.long_texts import Windows
from murmura.runtime.output.bounds import (
    MIB,
    RECORD_BYTES,
    Bounds,
    UnderWay,
    estimated_cost,
    estimated_tokens,
    held_bytes,
)
from murmura.runtime.output.delivery import Rejected
from murmura.runtime.testing.fakes import FakeModel

MODEL = FakeModel([INTENT])
ROUTES = make_routes([replace(classification, topics=("in", "other"), output="out")], MODEL.manifest, "test")
GARBAGE = b"garbage"


def record_of(partition: TopicPartition, offset: int, value: bytes) -> ConsumerRecord:
    return ConsumerRecord(*partition, offset, 1000, 0, None, value, None, -1, len(value), ())


def good(size: int, number: int = 0) -> bytes:
    value = json.dumps({"text": "hi there", "n": number, "attachment": ""})
    return value[:-2].encode() + b"x" * max(size - len(value), 0) + b'"}'


def intake_of(bounds: Bounds, lane_limit: int = 10**6) -> tuple[Queue, Intake, Tracker[TopicPartition]]:
    queue: Queue = Admission(quantum=50, lane_limit=lane_limit, lane_bytes=bounds.waiting_bytes(1))
    tracker: Tracker[TopicPartition] = Tracker()
    intake = Intake(queue, tracker, bounds, runners={}, max_value_bytes=MIB, max_hops=None, tracing=None)
    return queue, intake, tracker


def test_bytes_are_shared_equally_by_the_partitions_and_capped_for_each():
    bounds = Bounds(16 * MIB, 128 * MIB)
    assert [bounds.waiting_bytes(count) // MIB for count in (0, 1, 6, 12, 96)] == [16, 16, 16, 8, 1]
    assert bounds.under_way_bytes == 32 * MIB


@pytest.mark.parametrize(
    ("text", "most", "tokens"),
    [("where is my card", 512, 6), ("我的卡在哪里", 512, 7), ("x" * 10_000, 128, 128), ("卡" * 10_000, 128, 128)],
)
def test_a_text_is_charged_what_the_model_reads_of_it(text, most, tokens):
    assert estimated_tokens(text, most) == tokens


LONG = "word" * 2000


@pytest.mark.parametrize(
    ("windows", "tokens"),
    [
        (None, 128),
        (Windows(), 2002 + 20 * 32),
        (Windows(overlap=0), 2002),
        (Windows(most=4), 4 * 128),
        (Windows(tokens=32, overlap=16), 64 * 32),
        (Windows(most=1), 128),
    ],
)
def test_a_long_text_is_charged_each_of_its_windows_fetched_or_for_another_attempt(windows, tokens):
    queue, intake, _ = intake_of(Bounds())
    routes = make_routes(
        [replace(classification, topics=("in",), output="out", windows=windows)], MODEL.manifest, "test"
    )
    value = json.dumps({"text": LONG}).encode()
    intake.take({PARTITION: [record_of(PARTITION, 0, value)]}, routes)
    assert queue.tokens == tokens
    (delivery,) = queue.take(10**9, 10**9, 10**9)
    assert queue.tokens == 0
    intake.requeue(PARTITION, delivery)
    assert queue.tokens == tokens


@given(st.integers(0, 3000), st.integers(1, 70), st.none() | st.integers(8, 200), st.none() | st.integers(0, 100))
def test_windows_never_cost_less_than_their_text_nor_more_than_all_windows(length, most, size, overlap):
    cost = estimated_cost("word" * length, 128, Windows(most, size, overlap))
    window = min(size or 128, 128)
    assert cost <= max(most * window, 128)
    assert cost >= min(estimated_tokens("word" * length, 10**6), most * window)


def test_what_does_not_fit_is_given_back_with_the_offset_where_fetching_goes_on():
    queue, intake, tracker = intake_of(Bounds(partition_bytes=300_000))
    records = [record_of(PARTITION, offset, good(100_000)) for offset in range(5, 15)]
    assert intake.take({PARTITION: records}, ROUTES) == {PARTITION: 7}
    assert tracker.progress(PARTITION).uncommitted == 2
    queue.take(10**9, 1, 10**9)
    assert intake.pop_reopened() == [PARTITION]
    assert intake.pop_reopened() == []


def test_another_log_of_a_full_partition_has_room_at_once_and_takes_turns_with_what_waits_of_the_earlier_one():
    queue, intake, tracker = intake_of(Bounds(partition_bytes=300_000))
    queue.quantum = 1
    records = [record_of(PARTITION, offset, good(100_000)) for offset in range(5, 15)]
    intake.take({PARTITION: records}, ROUTES)
    assert intake.pop_reopened() == []
    tracker.restart(PARTITION, 0)
    intake.begin_new_log(PARTITION)
    assert intake.pop_reopened() == [PARTITION]
    intake.take({PARTITION: [record_of(PARTITION, offset, good(100)) for offset in range(3)]}, ROUTES)
    assert tracker.progress(PARTITION).uncommitted == 3
    taken = [item.record.offset for item in queue.take(10**9, 100, 10**9)]
    assert taken == [5, 0, 6, 1, 2]


def test_a_record_larger_than_the_bound_is_taken_alone():
    _, intake, tracker = intake_of(Bounds(partition_bytes=1000))
    records = [record_of(PARTITION, offset, good(5000)) for offset in range(2)]
    assert intake.take({PARTITION: records}, ROUTES) == {PARTITION: 1}
    assert tracker.progress(PARTITION).uncommitted == 1


def test_behind_a_record_that_is_not_finished_intake_stops_at_the_bound_and_goes_on_at_half():
    queue, intake, tracker = intake_of(Bounds(uncommitted=10))
    progress = tracker.progress(PARTITION)
    records = [record_of(PARTITION, offset, good(50)) for offset in range(15)]
    assert intake.take({PARTITION: records}, ROUTES) == {PARTITION: 10}
    assert intake.take({PARTITION: records[10:]}, ROUTES) == {PARTITION: 10}
    queue.take(10**9, 10**9, 10**9)
    for offset in range(1, 10):
        progress.finish(offset)
        assert intake.pop_reopened() == []
    progress.finish(0)
    assert intake.pop_reopened() == [PARTITION]
    assert progress.committable == 10


def test_garbage_waits_in_the_same_queue_and_keeps_no_frames_alive():
    queue, intake, _ = intake_of(Bounds(partition_bytes=20 * RECORD_BYTES))
    records = [record_of(PARTITION, offset, GARBAGE) for offset in range(50)]
    full = intake.take({PARTITION: records}, ROUTES)
    assert full == {PARTITION: 19}
    (first, *_) = queue.take(10**9, 10**9, 10**9)
    assert isinstance(first, Rejected)
    assert (first.reason, first.error.__traceback__, first.bytes) == ("not_json", None, RECORD_BYTES + len(GARBAGE))


def test_headers_count():
    plain = record_of(PARTITION, 0, b"{}")
    with_headers = plain.__class__(*PARTITION, 0, 1, 0, None, b"{}", None, -1, 2, (("a", b"b"),) * 100)
    assert held_bytes(with_headers) > held_bytes(plain) + 100 * 100


sizes = st.lists(st.one_of(st.just(0), st.integers(60, 5000)), min_size=1, max_size=40)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(sizes, min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 200), st.integers(1, 9)), min_size=1, max_size=30),
    st.integers(1000, 20_000),
    st.integers(1, 12),
)
def test_everything_is_taken_once_in_order_and_no_bound_is_passed_by_more_than_one_record(
    logs, steps, most, uncommitted
):
    """Drives a consumer by hand: it fetches what is not paused, goes back where it is told, and resumes when it may."""
    bounds = Bounds(partition_bytes=most, process_bytes=most * 3, uncommitted=uncommitted)
    queue, intake, tracker = intake_of(bounds)
    lines = {
        TopicPartition("in", number): [
            record_of(TopicPartition("in", number), i, good(size, i) if size else GARBAGE) for i, size in enumerate(log)
        ]
        for number, log in enumerate(logs)
    }
    intake.assign(lines)
    share = bounds.waiting_bytes(len(lines))
    largest = max(held_bytes(record, "hi there") for line in lines.values() for record in line)
    positions, paused = dict.fromkeys(lines, 0), set()
    begun: dict[TopicPartition, list[int]] = {partition: [] for partition in lines}
    under_way: list = []
    for fetch, tokens, finish in [*steps, *[(50, 10**6, 50)] * 300]:
        batches = {p: line[positions[p] : positions[p] + fetch] for p, line in lines.items() if p not in paused}
        batches = {p: records for p, records in batches.items() if records}
        positions |= {p: positions[p] + len(records) for p, records in batches.items()}
        full = intake.take(batches, ROUTES)
        positions |= {p: offset for p, offset in full.items() if offset is not None}
        paused |= set(full)
        for partition in lines:
            assert share - queue.bytes_left(partition) <= max(share, largest)
            assert tracker.progress(partition).uncommitted <= uncommitted
        taken = queue.take(tokens, 10**6, 10**9)
        for item in taken:
            begun[TopicPartition(item.record.topic, item.record.partition)].append(item.record.offset)
        under_way += taken
        for item in under_way[-finish:]:  # out of order: the youngest first
            item.progress.finish(item.record.offset)
        del under_way[-finish:]
        paused -= set(intake.pop_reopened())
    assert begun == {partition: [*range(len(line))] for partition, line in lines.items()}
    assert not paused


# With everything around it.


def garbage_line(**bounds) -> Line:
    return Line(FakeModel([INTENT]), bounds=Bounds(**bounds))


async def test_dead_letters_that_are_not_taken_pause_their_partition():
    line = garbage_line(partition_bytes=100 * RECORD_BYTES)
    line.broker.gate.clear()
    full: dict[TopicPartition, int | None] = {}
    for _ in range(10):
        full = line.receive(*[GARBAGE] * 50)
    assert PARTITION in full
    assert line.tracker.progress(PARTITION).unfinished <= 100
    line.broker.gate.set()
    await line.settle()
    assert set(line.reasons()) == {"not_json"}


async def test_garbage_of_one_topic_and_good_records_of_another_take_turns():
    both = replace(classification, topics=("in", "other"), output="out")
    line = Line(FakeModel([INTENT]), both)
    line.receive(*[GARBAGE] * 2000)
    other = TopicPartition("other", 0)
    line.dispatcher.receive({other: [record_of(other, 0, good(50))]})
    await line.settle()
    topics = [message.topic for message in line.broker.taken]
    assert topics.index("out") < 2000
    assert line.committable == 2000


async def test_bytes_under_way_are_bounded_and_all_free_in_the_end():
    line = garbage_line(partition_bytes=MIB, process_bytes=40_000)
    line.broker.gate.clear()
    line.receive(*[good(900, number) for number in range(15)])
    under_way: UnderWay = line.dispatcher._under_way
    async with asyncio.timeout(60):
        while under_way.bytes < 10_000:
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)
    assert 10_000 <= under_way.bytes < 12_000
    line.broker.gate.set()
    await line.settle()
    await asyncio.sleep(0)
    assert under_way.bytes == 0
    assert line.committable == 15


async def test_what_is_not_taken_because_the_broker_stands_is_fetched_again_after_a_drain():
    line = garbage_line(partition_bytes=10 * RECORD_BYTES)
    line.broker.gate.clear()
    assert line.receive(*[GARBAGE] * 20) == {PARTITION: 9}
    await line.dispatcher.drain(0.05)
    line.broker.gate.set()
    line.tracker.revoke()
    line.offset = 0
    assert line.receive(*[GARBAGE] * 5) == {}
    await line.settle()
    assert line.committable == 5


async def test_unreadable_records_wait_in_the_queue_and_fill_it():
    line = garbage_line(partition_bytes=3 * RECORD_BYTES)
    line.broker.taking.clear()
    assert [line.dispatcher.dead_letter_unreadable(PARTITION, offset, "KafkaError") for offset in (0, 0, 1, 2)] == [
        False,
        False,
        False,
        True,
    ]
    assert line.broker.taken == []
    reopened: list[TopicPartition] = []
    line.dispatcher.on_reopened = reopened.extend
    line.broker.taking.set()
    await line.settle()
    assert line.reasons() == ["unreadable"] * 3
    assert (reopened, line.committable) == ([PARTITION], 3)

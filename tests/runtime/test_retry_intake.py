"""Records of the topic of retries wait until they are due, a step at a time, and others' are left alone."""

from aiokafka.structs import ConsumerRecord, TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from murmura.runtime.flow.retries.retry_intake import RetryIntake
from murmura.runtime.kafka.offset_tracker import Progress
from murmura.runtime.output.bounds import held_bytes
from murmura.runtime.settings.retry_policy import STEPS_S
from murmura.runtime.wire.retry_record import Coordinates, Retry, retry_message

STEP = TopicPartition("retries", 0)
HOUR = TopicPartition("retries", 2)


def record(offset, *, partition=STEP, app="desk", written=1000.0, pause=60.0, headers=None):
    original = ConsumerRecord("in", 1, 7, 5, 0, b"k", b"v", None, 1, 1, ())
    retry = Retry(app, Coordinates("in", 1, 7, 5), None, written + pause, 1)
    made = retry_message(original, retry, "retries") if headers is None else None
    written_headers = tuple(made.headers) if made else headers
    stamp = round(written * 1000)
    return ConsumerRecord(
        partition.topic, partition.partition, offset, stamp, 0, b"k", b"v", None, 1, 1, written_headers
    )


def test_a_record_is_due_when_its_step_is_over():
    intake = RetryIntake("desk")
    assert intake.receive(STEP, [record(0)], Progress()) == (None, [])
    assert intake.holds(STEP)
    assert [*intake.take_due(1059.9, 10)] == []
    assert intake.next_wake() == 1060.0
    assert [each.record.offset for each in intake.take_due(1060.0, 10)] == [0]


def test_a_pause_longer_than_the_step_is_looked_at_when_the_step_is_over():
    intake = RetryIntake("desk")
    intake.receive(STEP, [record(0, pause=300.0)], Progress())
    (waiting,) = intake.take_due(1060.0, 10)
    assert waiting.retry.not_before == 1300.0


def test_records_of_other_apps_are_finished_unread():
    intake, progress = RetryIntake("desk"), Progress()
    intake.receive(STEP, [record(4, app="other")], progress)
    assert (intake.holds(STEP), progress.committable, len(intake)) == (False, 5, 0)


def test_a_record_that_is_not_ours_to_read_is_unusable_and_not_finished():
    intake, progress = RetryIntake("desk"), Progress()
    _, (unusable,) = intake.receive(STEP, [record(4, headers=())], progress)
    assert unusable.error.reason == "bad_header"
    assert progress.unfinished == 1


def test_a_partition_is_held_until_nothing_of_it_waits():
    intake = RetryIntake("desk")
    intake.receive(STEP, [record(0)], Progress())
    assert intake.holds(STEP)
    assert len([*intake.take_due(2000.0, 10)]) == 1
    assert not intake.holds(STEP)


def test_a_long_step_does_not_hold_back_a_short_one():
    intake = RetryIntake("desk")
    intake.receive(HOUR, [record(0, partition=HOUR, pause=STEPS_S[2])], Progress())
    intake.receive(STEP, [record(0)], Progress())
    assert [each.record.partition for each in intake.take_due(1060.0, 10)] == [STEP.partition]


def test_what_was_delivered_twice_waits_once():
    intake, progress = RetryIntake("desk"), Progress()
    intake.receive(STEP, [record(0)], progress)
    intake.receive(STEP, [record(0), record(1)], progress)
    assert len(intake) == 2


def test_of_a_fetch_no_more_bytes_are_taken_than_allowed_and_one_record_always():
    intake, progress = RetryIntake("desk"), Progress()
    size = held_bytes(record(0))
    assert intake.receive(STEP, [record(0), record(1)], progress, 10) == (1, [])
    assert intake.receive(STEP, [record(1), record(2), record(3)], progress, 3 * size) == (3, [])
    assert intake.receive(STEP, [record(3)], progress, 3 * size) == (3, [])
    assert (len(intake), progress.uncommitted) == (3, 3)


def test_room_is_asked_for_before_each_record():
    intake, room = RetryIntake("desk"), [2]
    intake.receive(STEP, [record(n) for n in range(5)], Progress())
    taken = []
    for fetched in intake.take_due(1060.0, 10, lambda partition: room[0] > 0):
        room[0] -= 1
        taken.append(fetched.record.offset)
    assert (taken, len(intake)) == ([0, 1], 3)


@given(st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.floats(0, 100)), max_size=40), st.integers(1, 5))
def test_records_of_a_partition_leave_in_their_order(written, most):
    intake, now = RetryIntake("desk"), 1000.0
    for offset, (step, passed) in enumerate(written):
        now += passed
        partition = TopicPartition("retries", step)
        intake.receive(partition, [record(offset, partition=partition, written=now, pause=STEPS_S[step])], Progress())
    left = []
    while len(intake):
        left += intake.take_due(now + 10_000, most)
    for step in range(3):
        offsets = [each.record.offset for each in left if each.record.partition == step]
        assert offsets == sorted(offsets)
    assert len(left) == len(written)


def test_what_waits_can_be_forgotten():
    intake = RetryIntake("desk")
    intake.receive(STEP, [record(0)], Progress())
    intake.clear()
    assert (len(intake), intake.next_wake(), intake.overdue_s(9_999.0)) == (0, None, 0.0)

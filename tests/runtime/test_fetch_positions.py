"""A paused partition is not fetched, so its log is looked at: one that ends before the position has begun anew."""

from types import SimpleNamespace

import pytest
from aiokafka.errors import KafkaTimeoutError
from aiokafka.structs import ConsumerRecord, TopicPartition

from murmura.runtime.flow.fetching.fetch_positions import FetchPositions
from murmura.runtime.kafka.offset_tracker import Tracker
from murmura.runtime.kafka.start_positions import StartPositions
from murmura.runtime.observe.metrics import Metrics
from murmura.runtime.settings.settings import KafkaSettings

A, B = TopicPartition("requests", 0), TopicPartition("requests", 1)


class Consumer:
    """Has received all of two logs, and is asked where they end now."""

    def __init__(self) -> None:
        self.ends: dict[TopicPartition, int | Exception] = {A: 100, B: 100}
        self.at = {A: 100, B: 100}
        self.sought: dict[TopicPartition, int] = {}
        self.offsets: dict[TopicPartition, int | Exception] = {}
        """What the group has committed."""
        self._fetcher = SimpleNamespace(request_offset_reset=self._forget)
        self._subscription = SimpleNamespace(subscription=SimpleNamespace(assignment=None))
        self.assign_again()

    def assign_again(self) -> None:
        states = SimpleNamespace(tps={A, B}, state_value=self._state)
        self._subscription.subscription.assignment = states

    def _state(self, partition):
        return SimpleNamespace(has_valid_position=partition in self.at, position=self.at.get(partition))

    def _forget(self, partitions, strategy):
        assert strategy is None, "the client would choose the start"
        for partition in partitions:
            del self.at[partition]

    async def committed(self, partition):
        if isinstance(error := self.offsets.get(partition), Exception):
            raise error
        return self.offsets.get(partition)

    def assignment(self):
        return {A, B}

    def partitions_for_topic(self, topic):
        return {0, 1} if topic == "requests" else None

    async def end_offsets(self, partitions):
        if isinstance(error := self.ends[A], Exception):
            raise error
        return {partition: self.ends[partition] for partition in partitions}

    async def beginning_offsets(self, partitions):
        return dict.fromkeys(partitions, 0)

    def seek(self, partition, offset):
        self.at[partition] = self.sought[partition] = offset


@pytest.fixture
def consumer():
    return Consumer()


@pytest.fixture
def tracker():
    return Tracker()


@pytest.fixture
def begun():
    return []


@pytest.fixture
def positions(consumer, tracker, begun):
    starts = StartPositions(KafkaSettings(), "group")
    positions = FetchPositions(lambda: consumer, starts, tracker, Metrics(), begun.append)
    positions.advance({p: [ConsumerRecord(*p, 99, 0, 0, None, b"", None, 0, 0, ())] for p in (A, B)})
    for partition in (A, B):
        tracker.progress(partition).follow(100)
    return positions


async def test_a_log_that_is_short_twice_has_begun_anew_and_the_group_goes_back_to_its_beginning(
    positions, consumer, tracker, begun
):
    consumer.ends[A] = 20
    await positions.find_new_logs({A, B})
    assert begun == []
    await positions.find_new_logs({A, B})
    assert (begun, consumer.sought) == ([A], {A: 0})
    assert tracker.commits({A, B}) == {A: 0, B: 100}
    await positions.find_new_logs({A, B})
    assert begun == [A]


@pytest.mark.parametrize("between", [100, 101, KafkaTimeoutError()])
async def test_a_log_that_is_found_short_only_once_is_none(positions, consumer, begun, between):
    for end in (20, between, 20, between):
        consumer.ends[A] = end
        await positions.find_new_logs({A, B})
    assert begun == []


async def test_a_topic_that_is_not_there_costs_the_others_nothing(positions, consumer, begun):
    consumer.ends[A] = 20
    for _ in range(2):
        await positions.find_new_logs({A, TopicPartition("gone", 0)})
    assert begun == [A]


async def test_what_was_found_is_not_used_when_the_position_has_moved_meanwhile(positions, consumer, begun):
    consumer.ends[A] = 20
    await positions.find_new_logs({A})
    consumer.at[A] = 7
    await positions.find_new_logs({A})
    assert (begun, consumer.sought) == ([], {})


async def test_a_partition_whose_offset_the_group_has_lost_is_that_of_a_topic_that_was_created_again(
    positions, consumer, tracker, begun
):
    tracker.revoke()
    positions.clear()
    consumer.assign_again()
    consumer.at.clear()
    consumer.offsets[B] = 70  # as far as another member came
    await positions.begin({A, B})
    assert (begun, consumer.sought) == ([A], {A: 0, B: 70})
    assert tracker.commits({A, B}) == {A: 0, B: 70}


async def test_a_partition_that_is_read_for_the_first_time_has_no_new_log(consumer, tracker, begun):
    positions = FetchPositions(
        lambda: consumer, StartPositions(KafkaSettings(), "group"), tracker, Metrics(), begun.append
    )
    consumer.at.clear()
    await positions.begin({A, B})
    assert (begun, consumer.sought) == ([], {A: 0, B: 0})


async def test_nothing_is_noted_between_two_assignments(positions, consumer, tracker, begun):
    """The client keeps its positions of the assignment that has ended until the group has made the next one."""
    consumer.ends[A] = 20
    await positions.find_new_logs({A, B})
    tracker.revoke()
    positions.clear()
    positions.follow({A, B})
    at, consumer.at = consumer.at, {}
    await positions.begin({A, B})
    consumer.at = at
    await positions.find_new_start(A, 100)
    assert (begun, consumer.sought, tracker.commits({A, B})) == ([], {}, {})
    consumer.assign_again()
    positions.follow({A, B})
    assert tracker.commits({A, B}) == {A: 100, B: 100}


async def test_a_partition_whose_first_records_were_lost_is_read_again_though_its_start_is_not_found_at_once(
    consumer, tracker, begun
):
    positions = FetchPositions(
        lambda: consumer, StartPositions(KafkaSettings(), "group"), tracker, Metrics(), begun.append
    )
    positions.advance({B: [ConsumerRecord(*B, 49, 0, 0, None, b"", None, 0, 0, ())]})
    consumer.at = {A: 100, B: 100}  # the client has taken records of both, and raised for another partition
    positions.rewind()
    assert consumer.at == {B: 50}
    consumer.offsets[A] = KafkaTimeoutError()
    with pytest.raises(KafkaTimeoutError):
        await positions.begin({A})
    positions.follow({A, B})
    assert (consumer.at, tracker.commits({A, B})) == ({B: 50}, {B: 50})
    consumer.offsets[A] = 7
    await positions.begin({A})
    assert consumer.at == {A: 7, B: 50}

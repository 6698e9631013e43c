"""A position that a broker refuses is looked up at the leader before it is decided what has become of it."""

import pytest
from aiokafka.structs import TopicPartition

from murmura.runtime.kafka.start_positions import NewStart, StartPositions
from murmura.runtime.settings.settings import KafkaSettings

PARTITION = TopicPartition("requests", 0)


class Leader:
    """Holds offsets 10 to 20."""

    async def beginning_offsets(self, partitions):
        return {PARTITION: 10}

    async def end_offsets(self, partitions):
        return {PARTITION: 20}


@pytest.mark.parametrize(
    ("rack", "position", "found"),
    [
        (None, 5, NewStart(10, "deleted")),
        ("a", 5, NewStart(10, "deleted")),
        (None, 21, NewStart(10, "new_log")),
        ("a", 21, NewStart(10, "new_log")),
        (None, 15, NewStart(10, "new_log")),  # without a rack only the leader answers: its log has begun anew meanwhile
        ("a", 15, NewStart(15, "lagging_replica")),
        ("a", 20, NewStart(20, "lagging_replica")),
    ],
)
async def test_a_replica_that_lags_behind_its_leader_is_no_new_log(rack, position, found):
    starts = StartPositions(KafkaSettings(client_rack=rack), "group")
    assert await starts.find_after(Leader(), PARTITION, position) == found


async def test_a_partition_starts_at_its_end_until_the_group_has_an_offset_for_it_or_its_topic_is_gone(
    kafka, make_topics, unique
):
    (topic,) = await make_topics("requests", partitions=2)
    settings = KafkaSettings(bootstrap_servers=kafka, auto_offset_reset="latest")
    starts, new, old = StartPositions(settings, unique("group")), TopicPartition(topic, 0), TopicPartition(topic, 1)
    await starts.prepare({topic: 2}, [topic])

    class Consumer:
        async def beginning_offsets(self, partitions):
            return dict.fromkeys(partitions, 10)

        async def end_offsets(self, partitions):
            return dict.fromkeys(partitions, 20)

    assert [await starts.find_first(Consumer(), partition) for partition in (new, old)] == [20, 20]
    starts.note_committed({old: 20})
    assert [await starts.find_first(Consumer(), partition) for partition in (new, old)] == [20, 10]
    starts.keep(lambda name: name == topic)
    assert await starts.find_first(Consumer(), new) == 20
    starts.keep(lambda name: False)
    assert await starts.find_first(Consumer(), new) == 10

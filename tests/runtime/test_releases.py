"""The topic of releases: what counts of it, and that of two who release at once one wins for everybody."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from murmura.runtime.errors import SetupError
from murmura.runtime.kafka.embedded_broker import EmbeddedBroker
from murmura.runtime.release import states as releases
from murmura.runtime.release.states import ReleaseLog, publish_state, read_states
from murmura.runtime.settings.settings import KafkaSettings, ProducerSettings
from murmura.schemas.release import ReleaseState, released, rolled_back

NOON = datetime(2025, 1, 31, 12, tzinfo=UTC)


def after(state: ReleaseState | None, version: int, name: str = "desk", by: str = "ann") -> ReleaseState:
    return released(state, name, version, f"{version:064x}", by=by, why="", at=NOON)


def record(state: ReleaseState) -> tuple[bytes, bytes]:
    return state.name.encode(), state.model_dump_json().encode()


@pytest.fixture(scope="module")
def embedded() -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker({"models": 1, "twice": 1, "race": 1, "noise": 1, "spoiled": 1}) as broker:
        yield broker


@pytest.fixture
def kafka_settings(embedded) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=embedded.bootstrap, fetch_max_wait_ms=5)


async def write(bootstrap: str, topic: str, *records: tuple[bytes | None, bytes | None]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    try:
        for key, value in records:
            await producer.send_and_wait(topic, value, key)
    finally:
        await producer.stop()


async def values(bootstrap: str, topic: str) -> list[bytes]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, fetch_max_wait_ms=5)
    await consumer.start()
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        (end,) = (await consumer.end_offsets([partition])).values()
        return [(await consumer.getone()).value for _ in range(end)]
    finally:
        await consumer.stop()


# The rule, without a broker.


def test_a_generation_that_does_not_increase_is_stale():
    log = ReleaseLog()
    one = after(None, 1)
    two = after(one, 2)
    assert [log.apply(*record(s)).kind for s in (two, two, one, after(one, 3))] == ["new", "stale", "stale", "stale"]
    assert log.states == {"desk": two}


def test_models_do_not_concern_each_other():
    log = ReleaseLog()
    assert [log.apply(*record(after(None, 1, name))).kind for name in ("desk", "shop")] == ["new", "new"]


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        (b"desk", b"", "value: Invalid JSON"),
        (b"desk", b"\xff", "value: "),
        (b"desk", b"[" * 10_000, "value: "),
        (b"desk", b"{}", "name: Field required"),
        (b"shop", record(after(None, 1))[1], "the key is 'shop', the state one of desk"),
        (None, record(after(None, 1))[1], "the key is '', the state one of desk"),
    ],
)
def test_what_is_no_state_of_its_key_changes_nothing(key, value, says):
    log = ReleaseLog()
    heard = log.apply(key, value)
    assert heard.kind == "unreadable"
    assert says in heard.problem
    assert (log.states, log.last) == ({}, {})


def test_a_record_without_a_value_ends_a_models_releases():
    log = ReleaseLog()
    log.apply(*record(after(after(None, 1), 2)))
    assert log.apply(b"desk", None).kind == "ended"
    assert (log.states, log.last, log.offsets) == ({}, {}, {})
    assert log.apply(*record(after(None, 5))).kind == "new"


@given(st.lists(st.integers(1, 9)))
def test_the_generation_that_counts_is_the_highest_heard(generations):
    log = ReleaseLog()
    for generation in generations:
        log.apply(*record(after(None, 1).model_copy(update={"generation": generation})))
    assert {n: s.generation for n, s in log.states.items()} == ({"desk": max(generations)} if generations else {})


# On a broker.


async def test_states_are_published_one_on_the_other_and_read_back(kafka_settings):
    one = after(None, 1)
    two, shop = after(one, 2), after(None, 7, "shop")
    for state in (one, two, shop):
        await publish_state(kafka_settings, "models", state)
    assert await read_states(kafka_settings, "models") == {"desk": two, "shop": shop}
    three = rolled_back(two, by="bo", why="worse", at=NOON)
    await publish_state(kafka_settings, "models", three)
    assert (await read_states(kafka_settings, "models"))["desk"].current == one.current


async def test_a_state_that_does_not_build_on_the_newest_is_refused_and_nothing_is_written(kafka_settings, embedded):
    one = after(None, 1)
    await publish_state(kafka_settings, "twice", one)
    before = await values(embedded.bootstrap, "twice")
    for state in (after(None, 2), one, after(after(one, 2), 3)):
        with pytest.raises(SetupError, match="generation 1 by ann with version 1 is there already"):
            await publish_state(kafka_settings, "twice", state)
    with pytest.raises(SetupError, match="shop has no release yet"):
        await publish_state(kafka_settings, "twice", after(after(None, 1, "shop"), 2, "shop"))
    assert await values(embedded.bootstrap, "twice") == before


async def test_of_two_who_release_at_once_one_wins_and_its_state_is_left_last(kafka_settings, embedded, monkeypatch):
    """Both have seen that nothing is there before either writes; compaction would keep the last record only."""
    together = asyncio.Barrier(2)
    made = releases.producer_factory

    def wait_before_start(kafka: KafkaSettings, producer: ProducerSettings):
        def make() -> AIOKafkaProducer:
            client = made(kafka, producer)()
            start = client.start

            async def start_together() -> None:
                await start()
                await together.wait()

            client.start = start_together
            return client

        return make

    monkeypatch.setattr(releases, "producer_factory", wait_before_start)
    states = [after(None, 1, by="ann"), after(None, 2, by="bo")]
    outcomes = await asyncio.gather(
        *(publish_state(kafka_settings, "race", state) for state in states), return_exceptions=True
    )
    assert sorted(type(o) for o in outcomes if o is not None) == [SetupError]
    winner = states[outcomes.index(None)]
    assert (await read_states(kafka_settings, "race"))["desk"] == winner
    assert (await values(embedded.bootstrap, "race"))[-1] == record(winner)[1]


async def test_what_is_no_state_is_passed_over(kafka_settings, embedded):
    one = after(None, 1)
    await write(
        embedded.bootstrap, "noise", (b"desk", b"rubbish"), record(one), (b"desk", b"{}"), (None, b"x"), (b"shop", None)
    )
    assert await read_states(kafka_settings, "noise") == {"desk": one}


async def test_a_record_that_cannot_be_unpacked_is_passed_over(kafka_settings, embedded, spoiled_batch):
    one = after(None, 1)
    await spoiled_batch(embedded.bootstrap, TopicPartition("spoiled", 0))
    await write(embedded.bootstrap, "spoiled", record(one))
    assert await read_states(kafka_settings, "spoiled") == {"desk": one}


async def test_a_missing_topic_and_an_absent_broker_are_one_line(kafka_settings):
    with pytest.raises(SetupError, match="topic none is not on "):
        await read_states(kafka_settings, "none")
    with pytest.raises(SetupError, match=r"no Kafka broker at 127\.0\.0\.1:1"):
        await read_states(KafkaSettings(bootstrap_servers="127.0.0.1:1"), "models")


@pytest.mark.kafka
async def test_on_a_compacted_topic_of_a_real_kafka(kafka, make_topics):
    settings = KafkaSettings(bootstrap_servers=kafka)
    (topic,) = await make_topics("models", partitions=1, config={"cleanup.policy": "compact"})
    assert await read_states(settings, topic) == {}
    state = None
    for version in (1, 2, 3):
        state = after(state, version)
        await publish_state(settings, topic, state)
    state = rolled_back(state, by="bo", why="worse", at=NOON)
    await publish_state(settings, topic, state)
    assert await read_states(settings, topic) == {"desk": state}
    assert state.current.version == 2


@pytest.mark.kafka
async def test_of_many_who_release_at_once_on_a_real_kafka_exactly_one_wins(kafka, make_topics):
    settings = KafkaSettings(bootstrap_servers=kafka)
    (topic,) = await make_topics("models", partitions=1, config={"cleanup.policy": "compact"})
    states = [after(None, version) for version in range(1, 7)]
    outcomes = await asyncio.gather(*(publish_state(settings, topic, s) for s in states), return_exceptions=True)
    assert [type(o) for o in outcomes].count(SetupError) == len(states) - 1
    winner = states[outcomes.index(None)]
    assert await read_states(settings, topic) == {"desk": winner}
    assert (await values(kafka, topic))[-1] == record(winner)[1]

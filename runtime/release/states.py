"""The topic of release states: which model version is current, and how that is changed without two undoing each other.

The topic is compacted: of each model only its last record is sure to be there. A state counts when its generation is
above all that came before it; so of two that build on the same state the first wins, and the last record has to be
the winner's.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, NamedTuple

from aiokafka.errors import KafkaError
from pydantic import ValidationError

from ...schemas.release import ReleaseState
from ..errors import SetupError
from ..kafka.groupless_reader import open_reader
from ..kafka.unreadable import read_next
from ..observe.logs import get_logger
from ..output.publisher import producer_factory
from ..settings.settings import KafkaSettings, ProducerSettings

log = get_logger(__name__)

_REPAIRS: Final = 5


class Heard(NamedTuple):
    """What one record of the topic meant. `problem` says in a line why an unreadable one is passed over."""

    kind: Literal["new", "stale", "ended", "unreadable"]
    name: str
    state: ReleaseState | None = None
    problem: str | None = None


class ReleaseLog:
    """What is known after each record of the topic. Pure: it is told keys and values.

    Invariant: `states[name]` has the highest generation heard of since the model's releases were last ended by a
    record without a value.
    """

    def __init__(self) -> None:
        self.states: dict[str, ReleaseState] = {}
        self.last: dict[str, ReleaseState] = {}
        """The last readable record of each model, which need not be the one that counts."""

    def hear(self, key: bytes | None, value: bytes | None) -> Heard:
        """Take note of a record."""
        name = (key or b"").decode(errors="replace")
        if value is None:
            self.states.pop(name, None)
            self.last.pop(name, None)
            return Heard("ended", name)
        try:
            state = ReleaseState.model_validate_json(value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "value"
            return Heard("unreadable", name, problem=f"{where}: {first['msg']}")
        if state.name != name:
            # Under another key it would survive compaction beside the model's real state.
            return Heard("unreadable", name, problem=f"the key is {name!r}, the state one of {state.name}")
        self.last[name] = state
        known = self.states.get(name)
        if known is not None and state.generation <= known.generation:
            return Heard("stale", name, state)
        self.states[name] = state
        return Heard("new", name, state)


async def read_states(kafka: KafkaSettings, topic: str, timeout_s: float | None = None) -> dict[str, ReleaseState]:
    """Return the release state of every model, read from the topic's beginning to its present end, without a group.

    A record that is no release state is passed over and logged. Raises SetupError when the broker or the topic is not
    there, or the end is not reached within `timeout_s` (default: `kafka.start_timeout_s`).
    """
    known = ReleaseLog()
    deadline = _within(timeout_s or kafka.start_timeout_s, topic)
    async with deadline, open_reader(kafka, [topic], from_beginning=True) as consumer:
        await hear_to_end(consumer, known)
    return known.states


async def publish_state(
    kafka: KafkaSettings,
    topic: str,
    state: ReleaseState,
    *,
    producer: ProducerSettings | None = None,
    timeout_s: float = 30.0,
) -> None:
    """Publish a state that builds on the topic's newest one, and return when it is the one that counts.

    Raises SetupError when it does not build on the newest, or when another one came first: then nothing has changed.
    """
    async with _within(timeout_s, topic), open_reader(kafka, [topic], from_beginning=True) as consumer:
        known = ReleaseLog()
        await hear_to_end(consumer, known)
        _check_builds_on(known.states.get(state.name), state)
        sender = producer_factory(kafka, producer or ProducerSettings())()
        await sender.start()
        try:
            await sender.send_and_wait(topic, *_record(state))
            await hear_to_end(consumer, known)
            await _leave_the_winner_last(sender, consumer, topic, known, state.name)
        finally:
            await sender.stop()
        winner = known.states.get(state.name)
        if winner != state:
            raise _came_first(state, winner)


def _check_builds_on(newest: ReleaseState | None, state: ReleaseState) -> None:
    expected = newest.generation + 1 if newest else 1
    if state.generation != expected:
        raise _came_first(state, newest)


def _came_first(state: ReleaseState, newest: ReleaseState | None) -> SetupError:
    if newest is None:
        return SetupError(f"{state.name} has no release yet, generation {state.generation} builds on none; try again")
    by = f" by {newest.history[-1].by}" if newest.history else ""
    return SetupError(
        f"{state.name}: generation {state.generation} was not released: generation {newest.generation}{by} with version "
        f"{newest.current.version} is there already; see `murmura models history {state.name}` and try again"
    )


async def _leave_the_winner_last(sender: Any, consumer: Any, topic: str, known: ReleaseLog, name: str) -> None:
    """Repeat the state that counts until it is the last record of its key.

    Otherwise compaction would keep the loser, and processes that start later would serve it.
    """
    for _ in range(_REPAIRS):
        winner = known.states.get(name)
        if winner is None or known.last.get(name) == winner:
            return
        await sender.send_and_wait(topic, *_record(winner))
        await hear_to_end(consumer, known)


def _record(state: ReleaseState) -> tuple[bytes, bytes]:
    return state.model_dump_json().encode(), state.name.encode()


async def hear_to_end(consumer: Any, known: ReleaseLog) -> None:
    """Read on to what is now the end, passing over what cannot be read."""
    ends: Mapping[Any, int] = await consumer.end_offsets(consumer.assignment())
    for partition, end in ends.items():
        while await consumer.position(partition) < end:
            await _hear_next(consumer, partition, known)


async def hear_on(consumer: Any, known: ReleaseLog) -> AsyncIterator[Heard]:
    """Read on for ever, passing over what cannot be read; gives what each record meant."""
    while True:
        for partition in consumer.assignment():
            for heard in await _hear_next(consumer, partition, known):
                yield heard


async def _hear_next(consumer: Any, partition: Any, known: ReleaseLog) -> list[Heard]:
    """Take note of the partition's next record, if one comes soon."""
    offset = await consumer.position(partition)
    heard: list[Heard] = []

    def take(records: list[Any]) -> None:
        heard.extend(known.hear(record.key, record.value) for record in records)

    def skip(offset: int, why: str) -> None:
        heard.append(Heard("unreadable", "", problem=why))

    await read_next(consumer, partition, take, skip, max_records=1)
    for one in heard:
        if one.problem:
            log.warning("not a release state, passed over", topic=partition.topic, offset=offset, why=one.problem)
    return heard


@asynccontextmanager
async def _within(seconds: float, topic: str) -> AsyncIterator[None]:
    """A deadline for all of it, and one line for what the client raises."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise SetupError(f"topic {topic}: not done within {seconds:g} s; is the broker well?") from None
    except KafkaError as error:
        raise SetupError(f"topic {topic}: {type(error).__name__}; `murmura models history` says what counts") from error

"""The topic of release states: reads the current version of a model, and changes it safely with concurrent writers.

The topic is compacted: only the last record of each model is guaranteed to stay. A state is valid when its generation is
higher than all before it. So of two states that build on the same one the first wins, and the last record must be the
winner's.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, NamedTuple

from aiokafka.errors import BrokerResponseError, KafkaError
from pydantic import ValidationError

from ...schemas.release import ReleaseState
from ..errors import OutcomeUnknown, SetupError
from ..kafka.groupless_reader import open_reader
from ..kafka.sending.producer import producer_factory
from ..kafka.unreadable import read_next
from ..observe.logs import get_logger
from ..settings.settings import KafkaSettings, ProducerSettings

log = get_logger(__name__)

_REPAIRS: Final = 5


class ReleaseRecord(NamedTuple):
    """The meaning of one record of the topic. `problem`: why an unreadable one is skipped, in one line."""

    kind: Literal["new", "stale", "ended", "unreadable"]
    name: str
    state: ReleaseState | None = None
    problem: str | None = None


class ReleaseLog:
    """The release states after the records read so far. Pure: the caller passes keys and values.

    Invariant: `states[name]` has the highest generation since the model's releases were last ended by a record without a
    value.
    """

    def __init__(self) -> None:
        self.states: dict[str, ReleaseState] = {}
        self.last: dict[str, ReleaseState] = {}
        """The last readable record of each model, which may be a stale one."""
        self.offsets: dict[str, int] = {}
        """Where the record of each valid state is, if known."""

    def apply(self, key: bytes | None, value: bytes | None, offset: int = -1) -> ReleaseRecord:
        """Apply a record and return its meaning."""
        name = (key or b"").decode(errors="replace")
        if value is None:
            self.states.pop(name, None)
            self.last.pop(name, None)
            self.offsets.pop(name, None)
            return ReleaseRecord("ended", name)
        try:
            state = ReleaseState.model_validate_json(value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(map(str, first["loc"])) or "value"
            return ReleaseRecord("unreadable", name, problem=f"{field}: {first['msg']}")
        if state.name != name:
            # Under another key compaction would keep it in addition to the model's real state.
            return ReleaseRecord("unreadable", name, problem=f"the key is {name!r}, the state one of {state.name}")
        self.last[name] = state
        known = self.states.get(name)
        if known is not None and state.generation <= known.generation:
            return ReleaseRecord("stale", name, state)
        self.states[name], self.offsets[name] = state, offset
        return ReleaseRecord("new", name, state)


async def read_states(kafka: KafkaSettings, topic: str, timeout_s: float | None = None) -> dict[str, ReleaseState]:
    """Return the release state of every model, read from the topic's beginning to its current end, without a group.

    An invalid record is skipped and logged. Raises SetupError when the broker or the topic is missing, or the end is not
    reached within `timeout_s` (default: `kafka.start_timeout_s`).
    """
    known = ReleaseLog()
    deadline = within(timeout_s or kafka.start_timeout_s, topic)
    async with deadline, open_reader(kafka, [topic], from_beginning=True) as consumer:
        await read_to_end(consumer, known)
    return known.states


async def publish_state(
    kafka: KafkaSettings,
    topic: str,
    state: ReleaseState,
    *,
    producer: ProducerSettings | None = None,
    timeout_s: float = 30.0,
) -> None:
    """Publish a state that builds on the topic's newest one, and return when it is the valid one.

    Raises SetupError when it does not build on the newest, or when another state was first: then nothing has changed; its
    kind OutcomeUnknown when the broker was lost, or the time was over, after it was sent.
    """
    known, is_sent, sent_at = ReleaseLog(), False, -1
    try:
        async with within(timeout_s, topic), open_reader(kafka, [topic], from_beginning=True) as consumer:
            await read_to_end(consumer, known)
            _check_builds_on(known.states.get(state.name), state)
            sender = producer_factory(kafka, producer or ProducerSettings())()
            await sender.start()
            try:
                is_sent = True
                sent_at = (await sender.send_and_wait(topic, *_record(state))).offset
                await read_to_end(consumer, known)
                await _restore_winner(sender, consumer, topic, known, state.name)
            finally:
                await sender.stop()
    except SetupError as error:
        if not is_sent or _is_refusal(error.__cause__):
            raise
        raise OutcomeUnknown(
            f"whether generation {state.generation} of {state.name} was released is not known: {error}"
        ) from error
    winner, won_at = known.states.get(state.name), known.offsets.get(state.name)
    if winner != state or (sent_at >= 0 and won_at != sent_at):  # two writers may make the same state in one second
        raise _conflict_error(state, winner)


def _is_refusal(error: BaseException | None) -> bool:
    """Return whether the broker has answered that it takes no such record."""
    return isinstance(error, BrokerResponseError) and not error.retriable


def _check_builds_on(newest: ReleaseState | None, state: ReleaseState) -> None:
    expected = newest.generation + 1 if newest else 1
    if state.generation != expected:
        raise _conflict_error(state, newest)


def _conflict_error(state: ReleaseState, newest: ReleaseState | None) -> SetupError:
    if newest is None:
        return SetupError(f"{state.name} has no release yet, generation {state.generation} builds on none; try again")
    author = f" by {newest.history[-1].by}" if newest.history else ""
    return SetupError(
        f"{state.name}: generation {state.generation} was not released: generation {newest.generation}{author} with version "
        f"{newest.current.version} is there already; see `murmura models history {state.name}` and try again"
    )


async def _restore_winner(sender: Any, consumer: Any, topic: str, known: ReleaseLog, name: str) -> None:
    """Publish the valid state again until it is the last record of its key.

    Otherwise compaction would keep the stale one, and processes that start later would serve it.
    """
    for _ in range(_REPAIRS):
        winner = known.states.get(name)
        if winner is None or known.last.get(name) == winner:
            return
        await sender.send_and_wait(topic, *_record(winner))
        await read_to_end(consumer, known)


def _record(state: ReleaseState) -> tuple[bytes, bytes]:
    return state.model_dump_json().encode(), state.name.encode()


async def read_to_end(consumer: Any, known: ReleaseLog) -> None:
    """Read to the current end, skipping unreadable records."""
    ends: Mapping[Any, int] = await consumer.end_offsets(consumer.assignment())
    for partition, end in ends.items():
        while await consumer.position(partition) < end:
            await _read_next(consumer, partition, known)


async def follow_records(consumer: Any, known: ReleaseLog) -> AsyncIterator[ReleaseRecord]:
    """Yield the meaning of each further record, skipping unreadable ones, until cancelled."""
    while True:
        for partition in consumer.assignment():
            for record in await _read_next(consumer, partition, known):
                yield record


async def _read_next(consumer: Any, partition: Any, known: ReleaseLog) -> list[ReleaseRecord]:
    """Apply the partition's next record, if one arrives within a poll."""
    offset = await consumer.position(partition)
    applied: list[ReleaseRecord] = []

    def take(records: list[Any]) -> None:
        applied.extend(known.apply(record.key, record.value, record.offset) for record in records)

    def skip(offset: int, why: str) -> None:
        applied.append(ReleaseRecord("unreadable", "", problem=why))

    await read_next(consumer, partition, take, skip, max_records=1)
    for record in applied:
        if record.problem:
            log.warning("not a release state, passed over", topic=partition.topic, offset=offset, why=record.problem)
    return applied


@asynccontextmanager
async def within(seconds: float, topic: str) -> AsyncIterator[None]:
    """Apply a deadline of `seconds` to the block, and raise errors of the client as SetupError in one line."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise SetupError(f"topic {topic}: not done within {seconds:g} s; is the broker well?") from None
    except KafkaError as error:
        raise SetupError(
            f"topic {topic}: {type(error).__name__}; see the state with `murmura models history`"
        ) from error

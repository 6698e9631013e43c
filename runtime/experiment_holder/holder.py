"""Holds the experiments of an app: one process of its group at a time, beside the records that it answers.

The holder is the member of a group of its own that has partition 0 of the topic of experiments. This group is not the one
that serves: a member that joins or leaves for an experiment would stop the answers of all others for a rebalance. Two
holders for a moment harm nothing: of what both kept the state of the later minute counts, the one that has the partition
writes its own again, and of two release states of one generation the topic's rule lets one win.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from typing import Final

from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord

from ..errors import MurmuraError
from ..kafka.changelog import read_to_end
from ..kafka.group_reader import GroupReader
from ..kafka.groupless_reader import open_reader
from ..kafka.sending.producer import producer_factory
from ..observe.experiment_metrics import ExperimentMetrics
from ..observe.logs import get_logger
from ..output.serving_events import ServingEvents
from ..settings.experiments import name_holder_group
from ..settings.settings import Settings
from .acting import Actor
from .held import HeldExperiments
from .log_reader import Decode
from .session import Session

log = get_logger(__name__)

_AFTER_ERROR_S: Final = 2.0
_STEP_S: Final = 120.0
"""A step that takes longer waits for a broker that does not answer."""
_LEAVE_S: Final = 5.0
_MEMBER_RECORDS: Final = 100
_IDLE_MS: Final = 200


class ExperimentHolder:
    """Reads, keeps and decides the experiments of an app's models, while no other process of the app does.

    Everything is read again from what was kept when anything fails; the process goes on to answer meanwhile.
    """

    def __init__(
        self,
        settings: Settings,
        models: tuple[str, ...],
        decoders: Mapping[str, Decode],
        events: ServingEvents,
        metrics: ExperimentMetrics,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`models`: the names in the store. `decoders`: what reads each topic; a topic that does not exist is left out."""
        self._settings, self._models, self._decoders = settings, models, decoders
        self._actor, self._metrics, self._clock = Actor(settings, events), metrics, clock
        self._topic = f"{settings.prefix}.experiments"

    async def run(self) -> None:
        """Take part until cancelled."""
        while True:
            try:
                await self._take_part()
            except (KafkaError, OSError, MurmuraError, TimeoutError) as error:
                log.warning("experiments are not read, trying again", why=str(error) or type(error).__name__)
            except Exception:
                log.exception("experiments are not read, trying again")
            self._metrics.clear()
            await asyncio.sleep(_AFTER_ERROR_S)

    async def _take_part(self) -> None:
        member = GroupReader(self._settings.kafka, name_holder_group(self._settings.group), [self._topic])
        await member.start()
        try:
            while True:
                await _read_on(member, _IDLE_MS)
                if member.has(self._topic, 0):
                    await self._hold(member)
        finally:
            with suppress(KafkaError, TimeoutError):
                async with asyncio.timeout(_LEAVE_S):
                    await member.stop()

    async def _hold(self, member: GroupReader) -> None:
        """Hold the experiments while the partition is this process's, without a moment between."""
        revocations = member.revocations
        log.info("this process holds the experiments", topic=self._topic)
        async with AsyncExitStack() as stack:
            session = await self._open(stack)
            while member.has(self._topic, 0) and member.revocations == revocations:
                async with asyncio.timeout(_STEP_S):
                    await session.step()
                for record in await _read_on(member, 0 if session.reads else _IDLE_MS):
                    session.note_kept(record.key, record.offset, record.value)
        self._metrics.clear()

    async def _open(self, stack: AsyncExitStack) -> Session:
        settings = self._settings
        held = HeldExperiments(self._models, settings.experiments.keep_days)

        def take(partition: int, key: bytes | None, value: bytes | None) -> None:
            try:
                held.restore(key, value)
            except ValueError as error:
                why = str(error).splitlines()[0]
                log.warning("a record of experiments is passed over", topic=self._topic, why=why)

        await read_to_end(settings.kafka, self._topic, [0], take)
        models = f"{settings.prefix}.models"
        releases = await stack.enter_async_context(open_reader(settings.kafka, [models], from_beginning=True))
        producer = producer_factory(settings.kafka, settings.producer)()
        await producer.start()
        stack.push_async_callback(producer.stop)
        session = Session(
            settings, held, self._decoders, releases, producer, self._actor, self._metrics, clock=self._clock
        )
        stack.push_async_callback(session.close)
        return session


async def _read_on(member: GroupReader, timeout_ms: int) -> list[ConsumerRecord]:
    """Return what the group's offset is behind, fetched so that the membership stays. What is kept is read without the group."""
    records = await member.read(_MEMBER_RECORDS, timeout_ms)
    for record in records:
        member.finish(record.topic, record.partition, record.offset)
    if records:
        await member.commit()
    return records

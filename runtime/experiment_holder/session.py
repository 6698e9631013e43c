"""What the holder of experiments does, step by step, while it holds them."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

from ..errors import SetupError
from ..experiments.kept_state import split_key
from ..experiments.run import ExperimentRun
from ..kafka.topics import fetch_partition_counts
from ..observe.experiment_metrics import ExperimentMetrics
from ..observe.logs import get_logger
from ..release.states import ReleaseLog, read_to_end
from ..settings.settings import Settings
from .acting import Actor, make_step
from .held import HeldExperiments, Written, utc_now
from .log_reader import Decode, LogReader, open_logs

log = get_logger(__name__)

_LOOK_S: Final = 1.0
_LOOKS_S: Final = 0.5
"""Time for the looks of an experiment in one step, while it catches up."""
_UNITS_AT_ONCE: Final = 20
"""Units that enter before other tasks of the process run: about 1 ms."""
_WRITE_S: Final = 10.0
_SEND_S: Final = 30.0
_TOPICS_S: Final = 30.0
"""How often topics and their partitions are compared with those that are read: what is new is read, too."""


class Session:
    """Follows releases, reads logs, looks, writes what is to be kept, and acts. It raises what the clients do."""

    def __init__(
        self,
        settings: Settings,
        held: HeldExperiments,
        decoders: Mapping[str, Decode],
        releases: Any,
        producer: Any,
        actor: Actor,
        metrics: ExperimentMetrics,
        *,
        clock: Callable[[], float],
    ) -> None:
        """`releases`: a consumer of the release topic, at its beginning. `clock`: Unix time in seconds."""
        self._settings, self._held, self._decoders = settings, held, decoders
        self._releases, self._producer = releases, producer
        self._actor, self._metrics, self._clock = actor, metrics, clock
        self._topic = f"{settings.prefix}.experiments"
        self._known = ReleaseLog()
        self._logs: LogReader | None = None
        self._closing = AsyncExitStack()
        self._reads_for: set[str] = set()
        self._sent: dict[str, tuple[int, bytes | None]] = {}
        """By key, where the last record of this session is, and its value."""
        self._overwritten: dict[str, bytes | None] = {}
        self._partitions: dict[str, int] = {}
        self._looked = self._written = self._compared = float("-inf")

    @property
    def reads(self) -> bool:
        """Whether logs are read: an experiment runs."""
        return self._logs is not None

    async def close(self) -> None:
        """Close the logs."""
        self._logs = None
        await self._closing.aclose()

    def note_kept(self, key: bytes | None, offset: int, value: bytes | None) -> None:
        """Note a record of the topic of experiments: what another holder wrote over this session's record is written again.

        A process that was frozen for longer than its membership does so: it may write before it notices.
        """
        name = (key or b"").decode(errors="replace")
        where, own = self._sent.get(name, (-1, self._held.find_end(key, value) or value))
        if offset > where and value != own:
            log.warning("another process wrote over an experiment's record, it is written again", key=name)
            self._overwritten[name] = own

    async def step(self) -> None:
        """Read a little, and look when it is time."""
        now = time.monotonic()
        if now - self._looked >= _LOOK_S:
            self._looked = now
            await self._restore_overwritten()
            await self._follow_releases(now)
            await self._look(now)
        if self._logs is not None:
            await self._logs.read_more(tuple(self._held.running.values()), self._now_minute())

    async def _follow_releases(self, now: float) -> None:
        await read_to_end(self._releases, self._known)
        self._actor.note_states(self._known.states)
        # In a thread: what was kept of a large experiment takes seconds to take over, and answers do not wait for it.
        await self._send(await asyncio.to_thread(list, self._held.follow(self._known.states, utc_now())))
        for problem in self._held.problems:
            log.error("an experiment is read from its start again", why=problem)
        self._held.problems.clear()
        running = {run.experiment.id for run in self._held.running.values()}
        if not running:
            await self.close()
        elif running != self._reads_for or now - self._compared >= _TOPICS_S:
            await self._open_logs(anew=running != self._reads_for)
            self._compared = now
        self._reads_for = running

    async def _open_logs(self, *, anew: bool) -> None:
        """Open the logs anew where that is wanted, or where topics or partitions were added."""
        kafka = self._settings.kafka
        existing = await fetch_partition_counts(kafka)
        partitions = {topic: existing[topic] for topic in self._decoders if topic in existing}
        if not anew and partitions == self._partitions:
            return
        await self.close()
        logs = await self._closing.enter_async_context(
            open_logs(kafka, {topic: self._decoders[topic] for topic in partitions})
        )
        await logs.begin(tuple(self._held.running.values()))
        self._logs, self._partitions = logs, partitions

    async def _look(self, now: float) -> None:
        if self._logs is None:
            return
        until = await self._logs.find_minute(self._now_minute())
        is_due = now - self._written >= _WRITE_S
        for run in tuple(self._held.running.values()):
            decisions = len(run.decided)
            if until is not None:
                await self._look_until(run, until)
            if is_due or len(run.decided) > decisions:
                await self._send(self._held.write(run))
            await self._act(run)
        if is_due:
            self._written = now
        self._show(self._logs.behind)

    def _show(self, behind: int) -> None:
        self._metrics.clear()
        self._metrics.set_behind(behind)
        for run in self._held.running.values():
            counted = run.ledger.tally.units
            action = run.due.action if run.due else "wait"
            units, age_s = (counted["candidate"], counted["control"]), self._clock() - run.minute * 60
            self._metrics.show(run.model, units, run.ledger.open_units, age_s, action)

    async def _look_until(self, run: ExperimentRun, until: int) -> None:
        end = time.monotonic() + _LOOKS_S
        while time.monotonic() < end and (minute := run.next_look(until)) is not None:
            has_more = True
            while has_more:
                has_more = run.ledger.enter_some(minute, _UNITS_AT_ONCE)
                await asyncio.sleep(0)
            run.look(minute)

    async def _act(self, run: ExperimentRun) -> None:
        decided = run.due
        if decided is None or not self._settings.experiments.act:
            return
        state = make_step(run, decided, self._known.states, utc_now())
        if state is None:
            return
        try:
            await self._actor.act(decided, self._known.states[run.model], state)
        except SetupError as error:
            log.warning("a decision was not released, thinking again", experiment=run.experiment.id, why=str(error))

    async def _restore_overwritten(self) -> None:
        for key in self._overwritten:
            self._sent.pop(key, None)
        await self._send(self._overwritten.items())
        self._overwritten.clear()

    async def _send(self, records: Iterable[Written]) -> None:
        """Write records in their order, but for those that are there already."""
        for key, value in records:
            if key in self._sent and self._sent[key][1] == value:
                continue
            async with asyncio.timeout(_SEND_S):
                written = await self._producer.send_and_wait(self._topic, value, key.encode())
            if split_key(key)[1] is None:  # a chunk is written once, and may be one of thousands
                self._sent[key] = written.offset, value

    def _now_minute(self) -> int:
        return int(self._clock() // 60)

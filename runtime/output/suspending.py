"""Leaves an agent alone that cannot answer: its part of each record is held, probed with growing pauses, and let go again.

The rule is `suspension.py`; here are the records, the probes under way and the dead letters at the end.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Self

from aiokafka.structs import TopicPartition

from ...schemas.deadletter import DeadLetterReason as Reason
from ..agent.handler import Handler
from ..agent.routes import Route
from ..errors import Closed, RecordError
from ..observe.logs import get_logger
from ..settings.settings import Settings
from .delivery import Delivery
from .held_parts import HeldPart, Probe, Releases, split_off
from .suspension import SuspensionLimits, Suspensions

log = get_logger(__name__)

_TICK_S = 0.1


class Suspending:
    """Owns the parts that wait for agents which cannot answer.

    Invariants:
    - a held part is not finished before it is answered, dead-lettered or given up with its partition;
    - of a record that others answer too, only the suspended agents' parts wait;
    - a part on which a probe has failed is no dead letter before the agent answers again;
    - while nothing is suspended, a record costs one look at an empty set.
    """

    def __init__(
        self,
        limits: Mapping[str, SuspensionLimits],
        declared: Mapping[str, Iterable[str]],
        readers: Mapping[str, Sequence[str]],
        *,
        letters_per_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`limits` and `declared` (topics that it publishes to) by agent; `readers`: the agents of each input topic."""
        self._agents: Suspensions[TopicPartition, Delivery] = Suspensions(dict(limits))
        self.suspended = self._agents.suspended
        self.unclean: set[str] = set()
        """Agents of which a success has to be noted: some of their latest records failed."""
        self._declared = {name: frozenset(topics) for name, topics in declared.items()}
        self._readers = readers
        self.releases: Releases
        """Set by whoever has the records."""
        self.overflow: Callable[[Delivery, str], bool] | None = None
        """Moves a part for which there is no room to another place and finishes it there; False when it has to stay."""
        self.on_probe: Callable[[str], None] = lambda topic: None
        """Called with each declared topic of an agent that is about to be probed."""
        self._letters_per_s = letters_per_s
        self._clock = clock
        self._letters_left = 0.0
        self._looked_at = clock()
        self._probes: dict[str, Probe] = {}
        self._waiters: dict[str, deque[asyncio.Future[None]]] = {}
        """What handlers send again themselves."""

    @classmethod
    def configured(
        cls,
        routes: Mapping[str, Route],
        handlers: Iterable[Handler],
        settings: Settings | None = None,
    ) -> Self:
        """Return it for all agents of some routes and handlers."""
        settings = settings or Settings()
        declared = {bound.agent.name: bound.agent.outputs for route in routes.values() for bound in route.agents}
        declared |= {handler.name: handler.outputs for handler in handlers}
        readers = {topic: [bound.agent.name for bound in route.agents] for topic, route in routes.items()}
        readers |= {topic: [handler.name] for handler in handlers for topic in handler.topics}
        limits = {name: SuspensionLimits.configured(settings.agents.get(name)) for name in declared}
        return cls(limits, declared, readers, letters_per_s=settings.deadletters.per_s)

    @property
    def agents(self) -> list[str]:
        return [*self._declared]

    @property
    def declared_topics(self) -> frozenset[str]:
        return frozenset[str]().union(*self._declared.values())

    # -- what is met on the way ---------------------------------------------------------------------------------------

    def declares(self, agent: str | None, topic: str) -> bool:
        return topic in self._declared.get(agent or "", ())

    def holds_back(self, agent: str, delivery: Delivery) -> bool:
        """Say whether an agent is not to be asked now."""
        return agent in self.suspended and not self._is_probe(agent, delivery)

    def hold(self, delivery: Delivery, agent: str) -> bool:
        """Hold an agent's part; True when that is all there is to the delivery, which is then not to be finished."""
        whole = len(delivery.asked) == 1
        part = delivery if whole else split_off(delivery, agent)
        part.span = None
        partition = TopicPartition(delivery.record.topic, delivery.record.partition)
        suspension = self._agents[agent]
        if not suspension.hold(partition, part, part.bytes) and not (self.overflow and self.overflow(part, agent)):
            # What was taken in before its partition was paused is held above the bound.
            suspension.hold(partition, part, part.bytes, force=True)
        return whole

    def hold_whole(self, deliveries: list[Delivery]) -> tuple[list[Delivery], list[Delivery]]:
        """Return the deliveries that somebody answers now, and those that were held before anything was computed."""
        answered: list[Delivery] = []
        held: list[Delivery] = []
        for delivery in deliveries:
            agent = delivery.asked[0][0].agent.name
            if len(delivery.asked) == 1 and self.holds_back(agent, delivery):
                self.hold(delivery, agent)
                held.append(delivery)
            else:
                answered.append(delivery)
        return answered, held

    def answered(self, agent: str) -> None:
        """Note that an agent of `unclean` has answered."""
        self._agents.note(agent, failed=False, why="", now=self._clock())
        if self._agents[agent].is_clean:
            self.unclean.discard(agent)

    def failed(self, delivery: Delivery, agent: str, error: RecordError) -> bool | None:
        """Note that an agent failed on a record. None: its part is to be dead-lettered; else it is held, and True says that
        this is all there is to the delivery, which is then not to be finished.
        """
        if self._end_part(agent, delivery, error):
            return True
        self.unclean.add(agent)
        why = f"most of its latest records fail: {error}"
        if self._agents.note(agent, failed=True, why=why, now=self._clock()):
            self._report(agent)
        return self.hold(delivery, agent) if agent in self.suspended else None

    def refused(self, delivery: Delivery, agent: str, why: str) -> bool:
        """Suspend an agent whose topic takes nothing and hold the part; True when it is all there is to the delivery."""
        error = RecordError(Reason.AGENT_FAILED, f"{agent}: {why}")
        if self._end_part(agent, delivery, error, is_topic=True):
            return True
        self._suspend(agent, why)
        return self.hold(delivery, agent)

    def finished(self, delivery: object) -> None:
        """Note that a delivery is finished. Only while `is_probing`."""
        for agent, probe in list(self._probes.items()):
            held = probe.under_way.pop(id(delivery), None)
            if held is not None:
                probe.passed.append(held)
                self._agents[agent].settle([held])
                self._end_probe(agent, probe, "")

    def has_asked_again(self, delivery: Delivery) -> None:
        """Note that an agent asked for another attempt: for a probe of it, that is an answer."""
        if self._probes:
            self.finished(delivery)

    @property
    def is_probing(self) -> bool:
        return bool(self._probes)

    # -- handlers, which send again by themselves ---------------------------------------------------------------------

    async def wait(self, agent: str, why: str) -> None:
        """Wait until what a topic refused is to be sent again.

        Raises Closed when its partition is given up meanwhile, RecordError when it has waited for too long.
        """
        if self._agents[agent].state == "probing":
            self._agents.end_probe(agent, 0, 1, why, self._clock())
        self._suspend(agent, why)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(agent, deque()).append(waiter)
        await waiter

    def handler_failed(self, agent: str, error: RecordError) -> bool:
        """Note that a handler failed on a record; True when that is to be tried again later, see `wait`."""
        if agent not in self.suspended:
            self.unclean.add(agent)
            why = f"most of its latest records fail: {error}"
            if self._agents.note(agent, failed=True, why=why, now=self._clock()):
                self._report(agent)
        return agent in self.suspended

    def handler_answered(self, agent: str) -> None:
        """Note that a handler has answered a record, the one that it was probed with perhaps."""
        self.sent(agent)
        if agent in self.unclean:
            self.answered(agent)

    def why(self, agent: str) -> str:
        return self._agents[agent].why

    def sent(self, agent: str) -> None:
        """Note that what had waited has been sent."""
        if agent in self.suspended and self._agents.end_probe(agent, 1, 0, "", self._clock()):
            self._resume(agent, [])

    # -- as time goes by ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Probe and give up, for ever."""
        while True:
            await asyncio.sleep(_TICK_S)
            self.look()

    def look(self) -> None:
        """Begin the probes that are due, and send dead letters for whoever has been suspended for too long."""
        now = self._clock()
        self._letters_left = min(
            self._letters_left + (now - self._looked_at) * self._letters_per_s, self._letters_per_s
        )
        self._looked_at = now
        if not self.suspended:
            return
        for agent in self._agents.probe(now):
            self._begin_probe(agent)
        for agent in sorted(self.suspended):
            if self._agents[agent].is_over(now):
                self._give_up(agent)

    def clear(self) -> None:
        """Forget what waits: it will be delivered again. Who is suspended stays so."""
        self._probes.clear()
        for agent in sorted(self.suspended):
            self._agents[agent].release()
            self._agents.end_probe(agent, 0, 1, self._agents[agent].why, self._clock())
        for waiters in self._waiters.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(Closed("its partition was given up"))
        self._waiters.clear()

    def blocks(self, partition: TopicPartition) -> bool:
        """Say whether a partition is to be paused: nobody answers it now, or a suspended agent has no more room."""
        if not self.suspended:
            return False
        readers = self._readers.get(partition.topic, ())
        held = [name for name in readers if name in self.suspended]
        if self.overflow is None and any(self._agents[name].is_full(partition) for name in held):
            return True
        return len(held) == len(readers) and any(
            self._agents[name].holds(partition) or self._waiters.get(name) for name in held
        )

    def describe(self) -> dict[str, dict[str, str | int | float]]:
        """Return what `/readyz` lists."""
        return self._agents.describe(self._clock())

    def readings(self) -> dict[tuple[str, ...], float]:
        """Return for each agent whether it is suspended, 1 or 0."""
        return {(agent,): float(agent in self.suspended) for agent in self._declared}

    # -- probes -------------------------------------------------------------------------------------------------------

    def _begin_probe(self, agent: str) -> None:
        for topic in self._declared[agent]:
            self.on_probe(topic)
        waiters = self._waiters.get(agent)
        if waiters:
            waiter = waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
            return
        sample = self._agents[agent].sample()
        if not sample:  # its partitions were given up: the next record shows
            if self._agents.end_probe(agent, 1, 0, "", self._clock()):
                self._resume(agent, [])
            return
        self._probes[agent] = Probe({id(held.part): held for held in sample})
        for held in sample:
            self.releases.admit_again(held.partition, held.part)

    def _is_probe(self, agent: str, delivery: Delivery) -> bool:
        probe = self._probes.get(agent)
        return probe is not None and id(delivery) in probe.under_way

    def _end_part(self, agent: str, delivery: Delivery, error: RecordError, *, is_topic: bool = False) -> bool:
        """Note that a part failed that is being probed; False when it is none."""
        probe = self._probes.get(agent)
        held = None if probe is None else probe.under_way.pop(id(delivery), None)
        if probe is None or held is None:
            return False
        probe.failed.append((held, error))
        probe.refused |= is_topic
        self._end_probe(agent, probe, str(error))
        return True

    def _end_probe(self, agent: str, probe: Probe, why: str) -> None:
        if probe.under_way:
            return
        del self._probes[agent]
        passed = 0 if probe.refused else len(probe.passed)
        why = why or (str(probe.failed[-1][1]) if probe.failed else "")
        if self._agents.end_probe(agent, passed, len(probe.failed), why, self._clock()):
            self._resume(agent, probe.failed)

    def _resume(self, agent: str, failed: list[tuple[HeldPart, RecordError]]) -> None:
        self.unclean.add(agent)
        self._agents[agent].settle(held for held, _ in failed)
        released = self._agents[agent].release()
        log.warning("an agent answers again", agent=agent, waited=len(released), dead_letters=len(failed))
        for held, error in failed:
            self.releases.give_up(held.part, error, agent)
        for held in released:
            self.releases.admit_again(held.partition, held.part)
        for waiter in self._waiters.pop(agent, ()):
            if not waiter.done():
                waiter.set_result(None)
        self.releases.go_on()

    def _give_up(self, agent: str) -> None:
        """Dead-letter the oldest parts, as many as are allowed now."""
        most = int(self._letters_left)
        what = f"{agent} has been suspended for too long: {self._agents[agent].why}"
        waiters = self._waiters.get(agent, deque())
        for _ in range(min(most, len(waiters))):
            most -= 1
            self._letters_left -= 1
            if not (waiter := waiters.popleft()).done():
                waiter.set_exception(RecordError(Reason.AGENT_FAILED, what))
        probe = self._probes.get(agent)
        oldest = [
            held for held in self._agents[agent].oldest(most) if probe is None or id(held.part) not in probe.under_way
        ]
        self._letters_left -= len(oldest)
        self._agents[agent].settle(oldest)
        for held in oldest:
            self.releases.give_up(held.part, RecordError(Reason.AGENT_FAILED, what), agent)
        if oldest:
            self.releases.go_on()

    def _suspend(self, agent: str, why: str) -> None:
        if self._agents.suspend(agent, why, self._clock()):
            self._report(agent)

    def _report(self, agent: str) -> None:
        log.error("an agent is suspended", agent=agent, why=self._agents[agent].why)

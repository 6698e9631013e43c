"""Suspends agents that cannot answer: their parts of records are held, probed with growing pauses, and released.

The rule is in `suspension.py`. This module has the records, the running probes and the dead letters.
"""

import asyncio
import time
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
from .overflow import Overflow
from .suspended_readers import SuspendedReaders
from .suspension import LetterRate, SuspensionLimits, Suspensions
from .waiting_handlers import Waiters

log = get_logger(__name__)

_TICK_S = 0.1


class Suspending:
    """Owns the parts of records that wait for suspended agents.

    Invariants:
    - a held part is not finished before it is answered, dead-lettered or given up with its partition;
    - when other agents answer the same record, only the suspended agents' parts wait;
    - a part whose probe failed becomes a dead letter only after the agent has resumed;
    - while no agent is suspended, a record costs one test of an empty set.
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
        self.suspended, self.held_bytes = self._agents.suspended, self._agents.held_bytes
        self.unclean: set[str] = set()
        """Agents with failures among their latest records: their successes must be recorded."""
        self._declared = {name: frozenset(topics) for name, topics in declared.items()}
        self.releases: Releases
        """Set by the dispatcher."""
        self.on_probe: Callable[[str], None] = lambda topic: None
        """Called with each declared topic of an agent before a probe."""
        self._clock = clock
        self._letters = LetterRate(letters_per_s, clock())
        self._probes: dict[str, Probe] = {}
        self._without_parts: set[str] = set()
        """Agents whose probe continues with the next part that is held: all parts that waited were too old."""
        self._waiters = Waiters()
        """Waiting sends of handlers. Handlers resend by themselves."""
        self.readers = SuspendedReaders(self._agents, readers, self._waiters, Overflow())

    @classmethod
    def from_settings(
        cls, routes: Mapping[str, Route], handlers: Iterable[Handler], settings: Settings | None = None
    ) -> Self:
        """Build it from the settings for all agents of some routes and handlers."""
        settings = settings or Settings()
        declared = {bound.agent.name: bound.agent.outputs for route in routes.values() for bound in route.agents}
        declared |= {handler.name: handler.outputs for handler in handlers}
        readers = {topic: [bound.agent.name for bound in route.agents] for topic, route in routes.items()}
        readers |= {topic: [handler.name] for handler in handlers for topic in handler.topics}
        limits = {name: SuspensionLimits.from_settings(settings.agents.get(name)) for name in declared}
        return cls(limits, declared, readers, letters_per_s=settings.deadletters.per_s)

    @property
    def overflow(self) -> Overflow:
        """Takes the parts that exceed the limits. Set by the dispatcher."""
        return self.readers.overflow

    @overflow.setter
    def overflow(self, overflow: Overflow) -> None:
        self.readers.overflow = overflow

    @property
    def agents(self) -> list[str]:
        return [*self._declared]

    @property
    def declared_topics(self) -> frozenset[str]:
        return frozenset[str]().union(*self._declared.values())

    # -- records ------------------------------------------------------------------------------------------------------

    def declares(self, agent: str | None, topic: str) -> bool:
        """Return whether an agent cannot answer without a topic: it declares it, or it is that of its retries."""
        return topic in self._declared.get(agent or "", ()) or (
            topic == self.overflow.topic and agent in self._declared
        )

    def holds_back(self, agent: str, delivery: Delivery) -> bool:
        """Return whether an agent must not be asked now."""
        return agent in self.suspended and not self._is_probe(agent, delivery)

    def hold(self, delivery: Delivery, agent: str) -> bool:
        """Hold an agent's part; True when the delivery has no other part: the caller must not finish it."""
        whole = len(delivery.asked) == 1
        part = delivery if whole else split_off(delivery, agent)
        part.span = None
        partition, suspension = delivery.partition, self._agents[agent]
        has_room = self.releases.can_hold(partition, part.bytes)
        suspended_s = suspension.suspended_s(self._clock())
        if not suspension.hold(partition, part, part.bytes, has_room=has_room) and not self.overflow.move(
            part, agent, suspended_s
        ):
            # A record fetched before its partition was paused is held above the limit.
            suspension.hold(partition, part, part.bytes, force=True)
        if agent in self._without_parts and self._probe_parts(agent):
            self._without_parts.discard(agent)
        return whole

    def hold_whole(self, deliveries: list[Delivery]) -> tuple[list[Delivery], list[Delivery]]:
        """Return the deliveries that some agent answers now, and those that were held before computing anything."""
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

    def record_answer(self, agent: str) -> None:
        """Record a success of an agent in `unclean`."""
        self._agents.note(agent, failed=False, why="", now=self._clock())
        if self._agents[agent].is_clean:
            self.unclean.discard(agent)

    def record_failure(self, delivery: Delivery, agent: str, error: RecordError) -> bool | None:
        """Record that an agent failed on a record.

        Returns None when its part must be dead-lettered. Otherwise the part is held, and the result is True when the
        delivery has no other part: the caller must not finish it.
        """
        if self._end_part(agent, delivery, error):
            return True
        self._note_failure(agent, error)
        return self.hold(delivery, agent) if agent in self.suspended else None

    def record_refusal(self, delivery: Delivery, agent: str, why: str) -> bool:
        """Suspend an agent whose topic refuses records, and hold the part; True when the delivery has no other part."""
        error = RecordError(Reason.AGENT_FAILED, f"{agent}: {why}")
        if self._end_part(agent, delivery, error, is_topic=True):
            return True
        self.suspend(agent, why)
        return self.hold(delivery, agent)

    def record_finish(self, delivery: object) -> None:
        """Record that a delivery is finished. Call it only while `is_probing`."""
        for agent, probe in list(self._probes.items()):
            if (held := probe.end(delivery)) is not None:
                self._agents[agent].settle([held])
                self._end_probe(agent, probe, "")

    def note_retry(self, delivery: Delivery) -> None:
        """Record that an agent asked for a retry: in a probe it counts only where no part was answered or failed."""
        for probe in self._probes.values():
            if id(delivery) in probe.under_way:
                probe.retried.add(id(delivery))

    def record_expiry(self, delivery: Delivery) -> None:
        """Record that a delivery is being answered `expired`: it says nothing about the agent that it was to probe."""
        for probe in self._probes.values():
            if id(delivery) in probe.under_way:
                probe.expired.add(id(delivery))

    @property
    def is_probing(self) -> bool:
        return bool(self._probes)

    # -- handlers, which resend by themselves -------------------------------------------------------------------------

    async def wait(self, agent: str, why: str) -> None:
        """Wait until a refused message may be sent again.

        Raises Closed when its partition is revoked, RecordError when it has waited for longer than the limit.
        """
        if self._agents[agent].state == "probing":
            self._agents.end_probe(agent, 0, 1, why, self._clock())
        self.suspend(agent, why)
        await self._waiters.wait(agent)

    def record_handler_failure(self, agent: str, error: RecordError) -> bool:
        """Record that a handler failed on a record; True when it must retry later, see `wait`."""
        if agent not in self.suspended:
            self._note_failure(agent, error)
        return agent in self.suspended

    def record_handler_answer(self, agent: str) -> None:
        """Record that a handler has answered a record, which may be that of a probe."""
        self.record_sent(agent)
        if agent in self.unclean:
            self.record_answer(agent)

    def why(self, agent: str) -> str:
        return self._agents[agent].why

    def record_sent(self, agent: str) -> None:
        """Record that the waiting messages of an agent have been sent."""
        if agent in self.suspended and self._agents.end_probe(agent, 1, 0, "", self._clock()):
            self._resume(agent, [])

    async def run(self) -> None:
        """Probe agents and give parts up when due, until cancelled."""
        while True:
            await asyncio.sleep(_TICK_S)
            self.run_due()

    def run_due(self) -> None:
        """Start due probes, and send dead letters for agents that are suspended for longer than `give_up_s`."""
        now = self._clock()
        self._letters.refill(now)
        if not self.suspended:
            self.overflow.refused = False
            return
        for agent in self._agents.probe(now):
            self._begin_probe(agent)
        for agent in sorted(self.suspended):
            if self._agents[agent].is_over(now):
                self._give_up(agent)

    def clear(self) -> None:
        """Drop all waiting parts: they are delivered again. Suspended agents stay suspended."""
        self._probes.clear()
        self._without_parts.clear()
        for agent in sorted(self.suspended):
            self._agents[agent].release()
            self._agents.end_probe(agent, 0, 1, self._agents[agent].why, self._clock())
        self._waiters.fail_all(lambda: Closed("its partition was given up"))

    def describe(self) -> dict[str, dict[str, str | int | float]]:
        """Return what `/readyz` lists."""
        return self._agents.describe(self._clock())

    def readings(self) -> dict[tuple[str, ...], float]:
        """Return by agent 1 while it is suspended, else 0."""
        return {(agent,): float(agent in self.suspended) for agent in self._declared}

    # -- probes -------------------------------------------------------------------------------------------------------

    def _begin_probe(self, agent: str) -> None:
        for topic in (*self._declared[agent], *self.overflow.refusing):
            self.on_probe(topic)
        if self._waiters.wake_oldest(agent):
            return
        if not self._probe_parts(agent) and self._agents.end_probe(agent, 1, 0, "", self._clock()):
            self._resume(agent, [])  # its partitions were revoked: the next record decides

    def _probe_parts(self, agent: str) -> bool:
        """Ask an agent about a sample of its parts; False when none waits."""
        sample = self._agents[agent].sample()
        if not sample:
            return False
        self._probes[agent] = Probe({id(held.part): held for held in sample})
        for held in sample:
            self.releases.requeue(held.partition, held.part)
        if self.overflow.refused and (other := self._agents[agent].beside_sample()) is not None:
            self._agents[agent].settle([other])
            self.overflow.try_again(other.part, agent, self._agents[agent].suspended_s(self._clock()))
        return True

    def _is_probe(self, agent: str, delivery: Delivery) -> bool:
        probe = self._probes.get(agent)
        return probe is not None and id(delivery) in probe.under_way

    def _end_part(self, agent: str, delivery: Delivery, error: RecordError, *, is_topic: bool = False) -> bool:
        """Record that a part of a probe failed; False when the part belongs to no probe."""
        probe = self._probes.get(agent)
        if probe is None or not probe.end_failed(delivery, error, refused=is_topic):
            return False
        self._end_probe(agent, probe, str(error))
        return True

    def _end_probe(self, agent: str, probe: Probe, why: str) -> None:
        if probe.under_way:
            return
        del self._probes[agent]
        if probe.is_inconclusive:
            if not self._probe_parts(agent):
                self._without_parts.add(agent)
                self.releases.resume()
            return
        passed = 0 if probe.refused else probe.successes
        why = why or (str(probe.failed[-1][1]) if probe.failed else "")
        if self._agents.end_probe(agent, passed, len(probe.failed), why, self._clock()):
            self._resume(agent, probe.failed)
        else:
            self.releases.resume()  # one without other agents is probed with further records, too

    def _resume(self, agent: str, failed: list[tuple[HeldPart, RecordError]]) -> None:
        self.unclean.add(agent)
        self._agents[agent].settle(held for held, _ in failed)
        released = self._agents[agent].release()
        log.warning("an agent answers again", agent=agent, waited=len(released), dead_letters=len(failed))
        for held, error in failed:
            self.releases.dead_letter(held.part, error, agent)
        for held in released:
            self.releases.requeue(held.partition, held.part)
        self._waiters.wake_all(agent)
        self.releases.resume()

    def _give_up(self, agent: str) -> None:
        """Dead-letter the oldest parts, up to the number that the rate allows now."""
        most = self._letters.left
        problem = f"{agent} has been suspended for too long: {self._agents[agent].why}"
        failed = self._waiters.fail_oldest(agent, most, lambda: RecordError(Reason.AGENT_FAILED, problem))
        self._letters.spend(failed)
        most -= failed
        probe = self._probes.get(agent)
        oldest = [
            held for held in self._agents[agent].oldest(most) if probe is None or id(held.part) not in probe.under_way
        ]
        self._letters.spend(len(oldest))
        self._agents[agent].settle(oldest)
        for held in oldest:
            self.releases.dead_letter(held.part, RecordError(Reason.AGENT_FAILED, problem), agent)
        if oldest:
            self.releases.resume()

    def _note_failure(self, agent: str, error: RecordError) -> None:
        self.unclean.add(agent)
        why = f"most of its latest records fail: {error}"
        if self._agents.note(agent, failed=True, why=why, now=self._clock()):
            self._report(agent)

    def suspend(self, agent: str, why: str) -> None:
        """Suspend an agent, unless it is already."""
        if self._agents.suspend(agent, why, self._clock()):
            self._report(agent)

    def _report(self, agent: str) -> None:
        log.error("an agent is suspended", agent=agent, why=self._agents[agent].why)

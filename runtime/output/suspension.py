"""The rule by which a failing agent is suspended, probed and resumed. Pure: the caller passes the time.

An agent is suspended when a topic that it declares is missing or forbidden, when one of its hooks raises, or when most
of its latest records fail. Its part of each record waits here, while the results of other agents are published.
"""

import heapq
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeVar

from ..settings.settings import AgentSettings

Partition = TypeVar("Partition")
Part = TypeVar("Part")
State = Literal["answering", "suspended", "probing"]


@dataclass(frozen=True, slots=True)
class SuspensionLimits:
    """When to suspend an agent, how much may wait for it, and how to probe it."""

    max_waiting: int = 1000
    """Maximum number of waiting parts per partition."""
    max_waiting_bytes: int = 4 * 1024 * 1024
    """Maximum bytes of the waiting parts per partition. One part is always held, whatever its size."""
    first_pause_s: float = 1.0
    """Pause before the first probe; doubled after each failed probe."""
    longest_pause_s: float = 60.0
    latest: int = 200
    """The agent is suspended when more than `failing_share` of this number of latest records failed."""
    failing_share: float = 0.5
    probe_parts: int = 20
    """Maximum number of parts in a probe, oldest and newest."""
    give_up_s: float | None = None
    """Seconds after which waiting parts become dead letters. None: never."""

    @classmethod
    def from_settings(cls, settings: AgentSettings | None) -> "SuspensionLimits":
        """Return the limits of an agent: the defaults, and what its settings override."""
        if settings is None:
            return cls()
        names = {
            "max_waiting": settings.max_waiting,
            "max_waiting_bytes": settings.max_waiting_bytes,
            "failing_share": settings.failing_share,
            "latest": settings.failing_latest,
            "first_pause_s": settings.probe_pause_s,
            "give_up_s": settings.give_up_s,
        }
        return cls(**{name: value for name, value in names.items() if value is not None})  # type: ignore[arg-type]

    def __post_init__(self) -> None:
        if not 0 < self.first_pause_s <= self.longest_pause_s:
            raise ValueError(f"pauses must be positive and grow, found {self}")
        if min(self.max_waiting, self.max_waiting_bytes, self.latest, self.probe_parts) < 1:
            raise ValueError(f"each bound must be 1 at least, found {self}")
        if not 0 < self.failing_share <= 1:
            raise ValueError(f"failing_share must lie above 0 and not above 1, found {self.failing_share}")


class LetterRate:
    """How many dead letters may be written now: `per_s`, and no more than a second's worth at once."""

    def __init__(self, per_s: float, now: float) -> None:
        self._per_s, self._left, self._at = per_s, 0.0, now

    def refill(self, now: float) -> None:
        self._left = min(self._left + (now - self._at) * self._per_s, self._per_s)
        self._at = now

    @property
    def left(self) -> int:
        return int(self._left)

    def spend(self, letters: int) -> None:
        self._left -= letters


class Held(NamedTuple, Generic[Partition, Part]):
    """One part that waits. `number` grows in the order in which parts were held."""

    number: int
    partition: Partition
    part: Part
    size: int


class Suspension(Generic[Partition, Part]):
    """The state of one agent, and the parts that wait for it while it does not answer.

    answering: its parts are answered at once. suspended: its parts are held until `wake_at`. probing: some of them are
    being answered, the others are held.

    Invariants:
    - a held part leaves once: settled, released or forgotten;
    - parts are released in the order in which they were held;
    - pauses grow from the first to the longest until a record is answered while the agent is answering.
    """

    def __init__(self, limits: SuspensionLimits) -> None:
        self._limits = limits
        self._pause_s = limits.first_pause_s
        self._probe_at = 0.0
        self._numbers = 0
        self._held: dict[Partition, dict[int, Held[Partition, Part]]] = {}
        self._bytes: dict[Partition, int] = {}
        self._latest: deque[bool] = deque(maxlen=limits.latest)
        self._failed = 0
        self._wanted = 1
        """Number of parts of a partition that the next probe needs. A failed probe asks for more than it had."""
        self.state: State = "answering"
        self.since: float | None = None
        """When it was suspended; None while it answers."""
        self.why = ""
        """The reason, for people. Never contains text of a record."""

    def note(self, *, failed: bool) -> bool:
        """Record the result of a record; True when too many of the latest failed: the agent must be suspended."""
        if self.state != "answering":
            return False
        if not failed:
            self._pause_s = self._limits.first_pause_s
        if len(self._latest) == self._limits.latest:
            self._failed -= self._latest[0]
        self._latest.append(failed)
        self._failed += failed
        return self._failed > self._limits.failing_share * self._limits.latest

    def suspend(self, why: str, now: float) -> bool:
        """Suspend the agent; False when it was suspended before. The last reason given is kept."""
        self.why = why
        if self.state != "answering":
            return False
        self.since = now
        self._pause(now)
        return True

    @property
    def is_clean(self) -> bool:
        """None of the latest records failed, and the next pause is the first: a success changes nothing."""
        return not self._failed and self._pause_s == self._limits.first_pause_s

    def is_full(self, partition: Partition) -> bool:
        """Return whether a partition has reached its limit of waiting parts or bytes: pause it."""
        held = self._held.get(partition, ())
        return len(held) >= self._limits.max_waiting or (
            self._bytes.get(partition, 0) >= self._limits.max_waiting_bytes
        )

    def has_enough(self, partition: Partition) -> bool:
        """Return whether to pause a partition that no agent answers: the next probe needs no further part of it."""
        return self.is_full(partition) or len(self._held.get(partition, ())) >= self._wanted

    def parts(self, partition: Partition) -> list[Part]:
        """Return the held parts of a partition."""
        return [held.part for held in self._held.get(partition, {}).values()]

    def oldest(self, most: int) -> list[Held[Partition, Part]]:
        """Return the parts that were held first. They stay held."""
        return heapq.nsmallest(most, (item for items in self._held.values() for item in items.values()), key=_number)

    def hold(self, partition: Partition, part: Part, size: int, *, has_room: bool = True, force: bool = False) -> bool:
        """Hold a part; False when its partition is full and `force` is not set: the part must wait elsewhere.

        `size` is in bytes. `has_room`: whether the partition has room beside what other agents hold. Raises RuntimeError
        while the agent answers.
        """
        if self.state == "answering":
            raise RuntimeError("parts of an agent that answers are not held")
        held = self._held.setdefault(partition, {})
        size_after = self._bytes.get(partition, 0) + size
        if (
            held
            and not force
            and not (has_room and len(held) < self._limits.max_waiting and size_after <= self._limits.max_waiting_bytes)
        ):
            return False
        self._numbers += 1
        held[self._numbers] = Held(self._numbers, partition, part, size)
        self._bytes[partition] = size_after
        return True

    def probe(self, now: float) -> bool:
        """Return whether to start a probe now; the state is then probing."""
        if self.state != "suspended" or now < self._probe_at:
            return False
        self.state = "probing"
        return True

    def sample(self) -> list[Held[Partition, Part]]:
        """Return the parts to probe with, the oldest and the newest of all partitions. They stay held."""
        held = [item for items in self._held.values() for item in items.values()]
        if len(held) <= self._limits.probe_parts:
            return sorted(held, key=_number)
        newest = self._limits.probe_parts // 2
        oldest = self._limits.probe_parts - newest
        return heapq.nsmallest(oldest, held, key=_number) + heapq.nlargest(newest, held, key=_number)[::-1]

    def beside_sample(self) -> Held[Partition, Part] | None:
        """Return a part that `sample` leaves out; None when it takes all. It stays held."""
        if self.waiting <= self._limits.probe_parts:
            return None
        return self.oldest(self._limits.probe_parts - self._limits.probe_parts // 2 + 1)[-1]

    def settle(self, held: Iterable[Held[Partition, Part]]) -> None:
        """Remove parts that were answered, or sent elsewhere."""
        for item in held:
            items = self._held.get(item.partition)
            if items is not None and items.pop(item.number, None) is not None:
                self._bytes[item.partition] -= item.size
                if not items:
                    del self._held[item.partition], self._bytes[item.partition]

    def end_probe(self, passed: int, failed: int, why: str, now: float) -> bool:
        """End a probe; True when at least half of it passed: the agent answers again, call `release` for its parts."""
        if self.state != "probing":
            return False
        if passed and passed >= failed:
            self.state, self.since, self.why = "answering", None, ""
            self._latest.clear()
            self._failed, self._wanted = 0, 1
            return True
        self._wanted = 1 + max(map(len, self._held.values()), default=0)
        self.why = why
        self._pause(now)
        return False

    def release(self) -> list[Held[Partition, Part]]:
        """Remove and return all held parts, in the order in which they were held."""
        released = sorted((item for items in self._held.values() for item in items.values()), key=_number)
        self._held.clear()
        self._bytes.clear()
        return released

    def forget(self, partitions: Collection[Partition]) -> None:
        """Drop the parts of revoked partitions: they are delivered again to the next owner."""
        for partition in partitions:
            self._held.pop(partition, None)
            self._bytes.pop(partition, None)

    def suspended_s(self, now: float) -> float:
        """Return for how many seconds the agent has been suspended; 0 while it answers."""
        return 0.0 if self.since is None else now - self.since

    def is_over(self, now: float) -> bool:
        """Return whether the agent has been suspended for `give_up_s`: its parts become dead letters."""
        limit = self._limits.give_up_s
        return limit is not None and self.since is not None and now - self.since >= limit

    def wake_at(self) -> float | None:
        """Return when to call `probe` next; None while it answers or is being probed."""
        return self._probe_at if self.state == "suspended" else None

    @property
    def waiting(self) -> int:
        """The number of held parts."""
        return sum(map(len, self._held.values()))

    def held_bytes(self, partition: Partition) -> int:
        """Return the bytes of the parts of a partition."""
        return self._bytes.get(partition, 0)

    def _pause(self, now: float) -> None:
        self.state = "suspended"
        self._probe_at = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, self._limits.longest_pause_s)


class Suspensions(Generic[Partition, Part]):
    """All agents of a process. `suspended` has the names of those that do not answer; test it first, it is cheap."""

    def __init__(self, limits: dict[str, SuspensionLimits]) -> None:
        """`limits`: by the name of each agent that may be suspended."""
        self._agents: dict[str, Suspension[Partition, Part]] = {
            name: Suspension(agent_limits) for name, agent_limits in limits.items()
        }
        self.suspended: set[str] = set()

    def __getitem__(self, agent: str) -> Suspension[Partition, Part]:
        return self._agents[agent]

    def note(self, agent: str, *, failed: bool, why: str, now: float) -> bool:
        """Record the result of an agent's record; True when that suspends the agent."""
        return self._agents[agent].note(failed=failed) and self.suspend(agent, why, now)

    def suspend(self, agent: str, why: str, now: float) -> bool:
        """Suspend an agent; False when it was suspended before."""
        self.suspended.add(agent)
        return self._agents[agent].suspend(why, now)

    def probe(self, now: float) -> list[str]:
        """Return the agents to probe now."""
        return [agent for agent in sorted(self.suspended) if self._agents[agent].probe(now)]

    def end_probe(self, agent: str, passed: int, failed: int, why: str, now: float) -> bool:
        """End the probe of an agent; True when it answers again."""
        resumed = self._agents[agent].end_probe(passed, failed, why, now)
        if resumed:
            self.suspended.discard(agent)
        return resumed

    def forget(self, partitions: Collection[Partition]) -> None:
        """Drop the parts of revoked partitions. Suspended agents stay suspended."""
        for agent in self._agents.values():
            agent.forget(partitions)

    def wake_at(self) -> float | None:
        """Return when to call `probe` next; None while there is nothing to probe."""
        times = [at for agent in self.suspended if (at := self._agents[agent].wake_at()) is not None]
        return min(times, default=None)

    def held_bytes(self, partition: Partition) -> int:
        """Return the bytes of the parts of a partition, over all agents."""
        return sum(self._agents[agent].held_bytes(partition) for agent in self.suspended)

    @property
    def waiting(self) -> int:
        """The number of held parts of all agents."""
        return sum(self._agents[agent].waiting for agent in self.suspended)

    def describe(self, now: float) -> dict[str, dict[str, str | int | float]]:
        """Return what `/readyz` lists by suspended agent: reason, seconds since, and number of waiting parts."""
        return {
            name: {"why": agent.why, "seconds": round(now - (agent.since or now), 1), "waiting": agent.waiting}
            for name in sorted(self.suspended)
            for agent in (self._agents[name],)
        }


def _number(held: Held[Partition, Part]) -> int:
    return held.number

"""The demo's record of messages: what was sent, and the answers so far. Pure; the caller passes the time."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

Place = tuple[int, int]
"""Partition and offset of a record in the input topic."""

RATE_WINDOW_S: Final = 5.0
_KEPT: Final = 10_000
"""Number of settled messages for which a repeated result is recognised; a demo may run for long."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Who answered, as feedback must name it."""

    agent: str
    prediction_id: str
    model: str
    version: int


@dataclass(slots=True)
class Message:
    """A sent record, and its answers so far."""

    text: str
    typed: bool
    """Whether the viewer typed it."""
    sent_at: float
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    waits_for: set[str] = field(default_factory=set)
    """Agents whose result has not arrived."""
    answered: dict[str, Answered] = field(default_factory=dict)
    """Outputs by task."""
    dead: str | None = None
    """The reason of its dead letter."""
    verdict: str | None = None
    """The viewer's verdict."""
    latency_s: float | None = None

    @property
    def settled(self) -> bool:
        return self.latency_s is not None


class Desk:
    """Matches results and dead letters to messages by the coordinates of the record in its topic.

    Invariant: published = answered + dead-lettered + open. A message is answered when every agent's result has arrived. It
    is counted once, even if results repeat. Results may arrive before the sender knows the coordinates.
    """

    def __init__(self, agents: frozenset[str], *, shown: int = 200) -> None:
        self._agents = agents
        self._by_place: dict[Place, Message] = {}
        self._early: dict[Place, list[tuple[str | None, Any, float]]] = {}
        self._settled: deque[tuple[float, float]] = deque(maxlen=2000)
        self.messages: deque[Message] = deque(maxlen=shown)
        """The latest messages, in sending order."""
        self.published = self.answered = self.dead_lettered = 0
        self.verdicts = self.refused_verdicts = 0
        """Number of verdicts sent, and of those that became dead letters."""
        self.on_settled: list[Callable[[Message], None]] = []

    @property
    def open(self) -> int:
        """Messages that are neither answered nor dead-lettered; at the end they are lost."""
        return self.published - self.answered - self.dead_lettered

    def add_message(self, place: Place, text: str, now: float, *, typed: bool = False) -> Message:
        """Add a message that the broker acknowledged; `now` is the time of sending."""
        message = Message(text, typed, now, waits_for=set(self._agents))
        self._by_place[place] = message
        self._forget()
        self.messages.append(message)
        self.published += 1
        for agent, what, at in self._early.pop(place, []):
            self._settle(message, agent, what, at)
        return message

    def find_message(self, place: Place) -> Message | None:
        """Return the message at these coordinates; None where it is unknown, or was settled long ago."""
        return self._by_place.get(place)

    def add_result(
        self, place: Place, agent: str, outputs: Mapping[str, dict[str, Any]], now: float, by: Answered | None = None
    ) -> None:
        """Add an agent's result; `by` is what feedback on it names."""
        self._add_outcome(place, agent, (outputs, by), now)

    def add_dead_letter(self, place: Place, why: str, now: float) -> None:
        """Add a dead letter, of the whole record or of one agent."""
        self._add_outcome(place, None, why, now)

    def to_judge(self) -> Message | None:
        """Return the message that a verdict is about: the last typed one, else the last answered one."""
        answered = [message for message in self.messages if message.settled and message.dead is None]
        typed = [message for message in answered if message.typed]
        judged = typed or answered
        return judged[-1] if judged else None

    def per_second(self, now: float) -> float:
        """Return settled messages per second, over the last five seconds or since the first."""
        recent = [at for at, _ in self._settled if now - at <= RATE_WINDOW_S]
        if not recent:
            return 0.0
        return len(recent) / (RATE_WINDOW_S if len(recent) < len(self._settled) else max(now - recent[0], 1.0))

    def median_latency_s(self) -> float | None:
        """Return the median time from sending to the last agent's result, over the latest hundred messages."""
        latest = [latency for _, latency in list(self._settled)[-100:]]
        return median(latest) if latest else None

    def _add_outcome(self, place: Place, agent: str | None, what: Any, now: float) -> None:
        message = self._by_place.get(place)
        if message is None:
            self._early.setdefault(place, []).append((agent, what, now))
        else:
            self._settle(message, agent, what, now)

    def _forget(self) -> None:
        while len(self._by_place) > _KEPT and self._by_place[oldest := next(iter(self._by_place))].settled:
            del self._by_place[oldest]

    def _settle(self, message: Message, agent: str | None, what: Any, now: float) -> None:
        if agent is not None:
            outputs, by = what
            message.outputs.update(outputs)
            if by is not None:
                message.answered |= dict.fromkeys(outputs, by)
            message.waits_for.discard(agent)
        elif message.dead is None:
            message.dead = what
        if message.settled or (message.waits_for and message.dead is None):
            return
        message.latency_s = now - message.sent_at
        self._settled.append((now, message.latency_s))
        if message.dead is None:
            self.answered += 1
        else:
            self.dead_lettered += 1
        for notify in self.on_settled:
            notify(message)

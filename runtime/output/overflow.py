"""Moves parts of suspended agents that exceed the limits of what waits to the topic of retries."""

from collections.abc import Callable, Iterable

from ..observe.logs import get_logger
from .delivery import Delivery

log = get_logger(__name__)

Move = Callable[[Delivery, str, float], None]
"""Sends an agent's part to the topic in the background, and finishes it there. The last argument is for how many seconds the
agent has been suspended."""


class Overflow:
    """Whether parts can be moved: not without a topic, and not after that topic has refused a record.

    After a refusal nothing is moved until the topic accepts a record again. Meanwhile parts wait where they are, and
    their partitions are paused.
    """

    def __init__(self, topic: str | None = None, move: Move = lambda part, agent, suspended_s: None) -> None:
        self.topic, self._move = topic, move
        self.refused = False
        """The topic has refused a record, and has accepted none since."""

    @property
    def is_open(self) -> bool:
        return self.topic is not None and not self.refused

    @property
    def refusing(self) -> tuple[str, ...]:
        """The topic, while it refuses records."""
        return (self.topic,) if self.topic is not None and self.refused else ()

    def move(self, part: Delivery, agent: str, suspended_s: float) -> bool:
        """Move an agent's part; False when it must stay."""
        if not self.is_open:
            return False
        self._move(part, agent, suspended_s)
        return True

    def try_again(self, part: Delivery, agent: str, suspended_s: float) -> None:
        """Move one part after a refusal, to find out whether the topic accepts records again."""
        self._move(part, agent, suspended_s)

    def note_refused(self, topic: str, why: str) -> None:
        """Record that a topic refused a record."""
        if topic == self.topic and not self.refused:
            self.refused = True
            log.error("the topic of retries refuses records: what would go there waits", topic=topic, why=why)

    def note_accepted(self, topics: Iterable[str]) -> None:
        """Record the topics of accepted records."""
        if self.refused and any(topic == self.topic for topic in topics):
            self.refused = False
            log.info("the topic of retries accepts records again", topic=self.topic)

"""Stops intake while the dead-letter topic refuses records, and ends the process after a time limit."""

import asyncio
import time
from collections.abc import Callable

from ..errors import DeliveryError, MurmuraError
from ..observe.logs import get_logger

log = get_logger(__name__)


class DeadLetterGate:
    """Closed while dead letters are refused. There is no other place for them.

    Invariants:
    - it is closed from the first refusal to the next acknowledged dead letter;
    - pauses between attempts grow from `first_pause_s` to `longest_pause_s`;
    - `pause` raises when the gate has been closed for `give_up_s`.
    """

    def __init__(
        self,
        topic: str,
        *,
        first_pause_s: float = 0.2,
        longest_pause_s: float = 10.0,
        give_up_s: float = 300.0,
        on_attempt: Callable[[str], None] = lambda topic: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_attempt` is called with the topic before each new attempt."""
        self._topic = topic
        self._on_attempt = on_attempt
        self._first_pause_s, self._longest_pause_s, self._give_up_s = first_pause_s, longest_pause_s, give_up_s
        self._clock = clock
        self._since: float | None = None
        self.trouble: str | None = None
        """The reason why it is closed; None while it is open."""
        self.on_open: Callable[[], None] = lambda: None
        """Called when it reopens."""
        self.opened = asyncio.Event()
        self.opened.set()

    def close(self, error: DeliveryError) -> None:
        """Record that a dead letter was refused."""
        self.trouble = f"{self._topic} takes no dead letters: {error}"
        if self._since is None:
            self._since = self._clock()
            self.opened.clear()
            log.error("dead letters are refused, nothing is taken in", topic=self._topic, why=str(error))

    def open(self) -> None:
        """Record that a dead letter was acknowledged."""
        if self._since is not None:
            self._since, self.trouble = None, None
            self.opened.set()
            self.on_open()
            log.info("dead letters are taken again", topic=self._topic)

    async def pause(self, attempt: int) -> None:
        """Wait before attempt number `attempt`, from 1. Raises MurmuraError once `give_up_s` has passed."""
        now = self._clock()
        left = self._give_up_s - (now - (now if self._since is None else self._since))
        if left <= 0:
            raise MurmuraError(
                f"{self.trouble}, for {self._give_up_s:g} s now: make the topic, or allow this user to write to it, "
                "and start the process again; nothing of what waits was committed"
            )
        await asyncio.sleep(min(self._first_pause_s * 2 ** min(attempt - 1, 30), self._longest_pause_s, left))
        self._on_attempt(self._topic)

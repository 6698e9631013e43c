"""Who waits until a suspended agent is tried again: handlers, which send again by themselves."""

import asyncio
from collections import deque
from collections.abc import Callable


class Waiters:
    """Futures by agent, oldest first. One that nobody awaits any more is passed over. Each gets an exception of its own."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    def has(self, agent: str) -> bool:
        return bool(self._waiting.get(agent))

    async def wait(self, agent: str) -> None:
        """Wait to be woken; raises what `fail_all` or `fail_oldest` was given."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(agent, deque()).append(waiter)
        await waiter

    def wake_oldest(self, agent: str) -> bool:
        """Let one go; False when nobody waits."""
        waiters = self._waiting.get(agent)
        if not waiters:
            return False
        if not (waiter := waiters.popleft()).done():
            waiter.set_result(None)
        return True

    def wake_all(self, agent: str) -> None:
        for waiter in self._waiting.pop(agent, ()):
            if not waiter.done():
                waiter.set_result(None)

    def fail_oldest(self, agent: str, most: int, error: Callable[[], Exception]) -> int:
        """Raise an error in up to `most` of them; returns in how many."""
        waiters = self._waiting.get(agent, deque())
        failed = min(most, len(waiters))
        for _ in range(failed):
            if not (waiter := waiters.popleft()).done():
                waiter.set_exception(error())
        return failed

    def fail_all(self, error: Callable[[], Exception]) -> None:
        """Raise an error in all of them, of every agent."""
        for waiters in self._waiting.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(error())
        self._waiting.clear()

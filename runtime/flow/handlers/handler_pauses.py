"""Pauses of a handler's records before their next attempt, in memory."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from aiokafka.structs import TopicPartition

from ...output.bounds import PartitionBytes


class _Pause(NamedTuple):
    partition: TopicPartition
    may_move: bool


class HandlerPauses:
    """Owns the pauses of one handler.

    Invariants:
    - a pause ends when its time is over, when its partition is released, or when its record must move elsewhere;
    - the bytes of a partition's pausing records are known at any time.
    """

    def __init__(self) -> None:
        self._pauses: dict[asyncio.Future[bool], _Pause] = {}
        self.bytes = PartitionBytes()
        """Of the pausing records."""

    async def wait(self, partition: TopicPartition, size: int, pause_s: float, *, may_move: bool) -> float:
        """Pause; returns the seconds that are left when the pause was ended early, else 0."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[bool] = loop.create_future()
        ends_at = loop.time() + pause_s
        self._pauses[ended] = _Pause(partition, may_move)
        self.bytes.add(partition, size)
        timer = loop.call_at(ends_at, _end, ended, False)
        try:
            is_early = await ended
        finally:
            timer.cancel()
            del self._pauses[ended]
            self.bytes.add(partition, -size)
        return max(ends_at - loop.time(), 0.0) if is_early else 0.0

    def end_all(self) -> None:
        """End all pauses: the partitions are released."""
        for pause in self._pauses:
            _end(pause, True)

    def end_early(self, must_move: Callable[[TopicPartition], bool]) -> None:
        """End the pauses of records that may move elsewhere and whose partition must not wait for them."""
        moving = {pause.partition for pause in self._pauses.values() if pause.may_move}
        moving = {partition for partition in moving if must_move(partition)}
        for ended, pause in self._pauses.items():
            if pause.may_move and pause.partition in moving:
                _end(ended, True)


def _end(pause: "asyncio.Future[bool]", is_early: bool) -> None:
    if not pause.done():
        pause.set_result(is_early)

"""Up to which minute all logs have been read. Pure: the caller passes positions, ends and the clock."""

from collections.abc import Mapping
from typing import Final

IDLE_MINUTES: Final = 5
"""Minutes by which the clock may be wrong while nothing is written to any log."""


class LogTimes:
    """The time of the latest record of each log."""

    def __init__(self) -> None:
        self._latest: dict[str, int] = {}

    def note(self, log: str, minute: int) -> None:
        """Note a record. Records of a log are about in order."""
        self._latest[log] = max(minute, self._latest.get(log, minute))

    def find_minute(self, positions: Mapping[str, int], ends: Mapping[str, int], now_minute: int) -> int | None:
        """Return the minute up to which all logs have been read; None where that is not known.

        `ends` are the ends of the logs, asked for after the records up to `positions` were read, and `now_minute` is the
        clock before that. A log that was read to its end holds nothing back, whether records are written to it or not. The
        others hold back what is later than their latest record, or than the clock. Where all were read to their end, time is that of the latest
        record of any; while there is none, hours pass all the same: the clock's time less `IDLE_MINUTES`.
        """
        behind = [log for log, end in ends.items() if positions.get(log, 0) < end]
        if behind:
            minutes = [self._latest.get(log) for log in behind]
            return None if None in minutes else min(now_minute, *(minute for minute in minutes if minute is not None))
        latest = min(max(self._latest.values(), default=-1), now_minute)
        return max(latest, now_minute - IDLE_MINUTES)

"""When something is due while training."""

import time


class Timer:
    """Due when so many seconds have passed since it was last due, or since it was made."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._since = seconds, time.monotonic()

    def is_due(self) -> bool:
        """Return whether it is due, and begin anew when it is."""
        now = time.monotonic()
        if now - self._since < self._seconds:
            return False
        self._since = now
        return True

"""When a request is too old to be answered. Pure: given the time, it asks no clock."""

import math
from typing import Literal

from .delivery import Delivery

Limit = Literal["max_age", "deadline"]
"""What makes a request too old: its agent's `max_age_s`, or the header that its sender set."""


def age_s(timestamp_ms: int, now: float) -> float:
    """Return the age of a record; 0 for one without a timestamp (-1), and for one from the future."""
    return max(now - timestamp_ms / 1000, 0.0) if timestamp_ms >= 0 else 0.0


def expiry_time(timestamp_ms: int, deadline: float | None, max_age_s: float | None) -> float:
    """Return the last moment at which a request is not too old, in seconds since 1970; infinity: it never is.

    `timestamp_ms`: of its record, -1 where it has none. `deadline`: what its sender set, in seconds since 1970.
    """
    by_age = math.inf if max_age_s is None or timestamp_ms < 0 else timestamp_ms / 1000 + max_age_s
    return by_age if deadline is None else min(by_age, deadline)


def passed_limit(timestamp_ms: int, deadline: float | None, max_age_s: float | None, now: float) -> Limit | None:
    """Return which limit a request is past; None: it is to be answered. Where it is past both, the sender's counts."""
    if now <= expiry_time(timestamp_ms, deadline, max_age_s):
        return None
    return "deadline" if deadline is not None and now > deadline else "max_age"


def is_suspect(delivery: Delivery, now: float) -> bool:
    """Say whether a delivery may be too old for one of its agents. Asked for every record."""
    deadline = delivery.request.deadline
    if deadline is not None and now > deadline:
        return True
    max_age_s = delivery.route.max_age_s
    if max_age_s is None:
        return False
    timestamp: int = delivery.record.timestamp
    return timestamp >= 0 and now > timestamp / 1000 + max_age_s


def expiry_for(delivery: Delivery, agent: str) -> float:
    """Return the last moment at which a delivery is not too old for one of its agents, in seconds since 1970."""
    ages = (bound.agent.max_age_s for bound, _ in delivery.asked if bound.agent.name == agent)
    return expiry_time(delivery.record.timestamp, delivery.request.deadline, next(ages, None))

"""Health and metrics over HTTP, on their own address.

`/livez` says whether a restart would help, `/readyz` whether this process answers records now, `/metrics` is for
Prometheus. Health is about consuming and predicting: a process without partitions is ready; one that reaches the broker
but finishes no records is not.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from .http_server import Receive, Scope, Send

LIVE_PATIENCE: Final = 5
"""`/livez` fails after this multiple of the overdue limit. Time without a reachable broker does not count."""


@dataclass(slots=True)
class HealthState:
    """The health of the process. The app sets the fields; the verdicts compare them with `now` (monotonic, s)."""

    overdue_s: float = 60.0
    model_loaded: bool = False
    group_joined: bool = False
    stopping: bool = False
    last_progress: float = 0.0
    """Monotonic time in seconds at which a record was last finished."""
    waiting_since: float | None = None
    """Start of the current period of work; None when there is no work. Set by `set_work`."""
    unfetched_s: float = 0.0
    """Seconds since the last successful fetch, while there are partitions to fetch."""
    last_away: float = 0.0
    """When the broker was last unavailable (monotonic, s): fetches fail or results are not accepted."""
    blocked: dict[str, str] = field(default_factory=dict)
    """By partition (`topic/0`) that cannot be read now: the reason. Other partitions are read."""
    device_trouble: str | None = None
    """Why the device does not answer; None while it does."""
    suspended: dict[str, dict[str, str | int | float]] = field(default_factory=dict)
    """Suspended agents with reason, duration and number of waiting parts. Others answer: the process is ready."""
    dead_letter_trouble: str | None = None
    """Why the dead-letter topic refuses records, which stops intake; None while it accepts them."""
    send_trouble: str | None = None
    """Why the broker refuses what this process sends, which ends it when it lasts; None while it does not."""
    details: dict[str, Any] = field(default_factory=dict)
    """Facts to show in `/readyz`, such as the model's name."""

    def set_work(self, has_work: bool, now: float) -> None:
        """Set whether records wait or are in flight. Idle time before the first one does not count as a delay."""
        if not has_work:
            self.waiting_since = None
        elif self.waiting_since is None:
            self.waiting_since = now

    def note_progress(self, now: float) -> None:
        self.last_progress = now

    def stalled_s(self, now: float) -> float:
        """Return for how many seconds there has been work and no record was finished."""
        if self.waiting_since is None:
            return 0.0
        return max(now - max(self.waiting_since, self.last_progress), 0.0)

    def ready(self, now: float) -> list[str]:
        """Return the reasons for not being ready; empty when ready."""
        reasons = []
        if self.stopping:
            reasons.append("stopping")
        if not self.model_loaded:
            reasons.append("no model is loaded")
        if not self.group_joined:
            reasons.append("the consumer group is not joined")
        if self.device_trouble is not None:
            reasons.append(f"the device fails: {self.device_trouble}")
        if self.dead_letter_trouble is not None:
            reasons.append(self.dead_letter_trouble)
        if self.send_trouble is not None:
            reasons.append(self.send_trouble)
        if self.stalled_s(now) > self.overdue_s:
            reasons.append(f"no record finished for {self.stalled_s(now):.0f} s while some wait")
        if self.unfetched_s > self.overdue_s:
            reasons.append(f"no fetch has succeeded for {self.unfetched_s:.0f} s")
        return reasons

    def live(self, now: float) -> list[str]:
        """Return the reasons for a restart; empty when there is none. An unreachable broker is none."""
        limit = LIVE_PATIENCE * self.overdue_s
        stalled = min(self.stalled_s(now), now - self.last_away)
        return [f"no record finished for {stalled:.0f} s while some wait"] if stalled > limit else []


class HealthApp:
    """An ASGI application with three paths. Run it alone or mount it in another application."""

    def __init__(
        self, state: HealthState, registry: CollectorRegistry, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._state, self._registry, self._clock = state, registry, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        status, kind, body = self._answer(scope["method"], scope["path"])
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _answer(self, method: str, path: str) -> tuple[int, str, bytes]:
        if method not in {"GET", "HEAD"}:
            return 405, "text/plain", b"only GET\n"
        match path:
            case "/livez":
                return self._verdict("live", self._state.live(self._clock()))
            case "/readyz":
                return self._verdict("ready", self._state.ready(self._clock()))
            case "/metrics":
                return 200, CONTENT_TYPE_LATEST, generate_latest(self._registry)
        return 404, "text/plain", b"here are /livez, /readyz and /metrics\n"

    def _verdict(self, word: str, reasons: list[str]) -> tuple[int, str, bytes]:
        body = {word: not reasons, "reasons": reasons, **self._state.details}
        if self._state.suspended:
            body["suspended_agents"] = self._state.suspended
        if self._state.blocked:
            body["blocked_partitions"] = self._state.blocked
        return (503 if reasons else 200), "application/json", json.dumps(body).encode() + b"\n"

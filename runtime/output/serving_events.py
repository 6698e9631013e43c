"""Publishes the events of this process to `murmura.events` in the background, without delaying records."""

import asyncio
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

from ...schemas.envelope import CE_ID, CE_SOURCE, CE_SPECVERSION, CE_TIME, CE_TYPE, SPEC_VERSION, app_source
from ...schemas.serving_event import ServingEvent, ServingEventKind
from ..errors import Scope
from ..kafka.sending.publisher import Publisher
from ..observe.logs import get_logger
from ..wire.message import Message

log = get_logger(__name__)

_WAITING: Final = 100
"""Maximum number of waiting events; beyond it the oldest are dropped."""
_PATIENCE_S: Final = 60.0
_FAREWELL_S: Final = 2.0
_AGAIN_S: Final = 1.0
_WATCH_S: Final = 1.0


def this_process() -> str:
    """Return a name that is unique to this run of this process."""
    return f"{socket.gethostname()}/{os.getpid()}/{uuid4().hex[:8]}"


class ServingEvents:
    """Sends events in order; an event whose send was not decided in time may be sent twice.

    Invariants:
    - `emit` never waits: events have a publisher of their own, so that an events topic that refuses them does not stop
      intake, as a topic of results would;
    - an event that is not accepted within a minute is dropped and logged.
    """

    def __init__(self, app: str, topic: str, make: Callable[[], Publisher], *, patience_s: float = _PATIENCE_S) -> None:
        """`make` returns a publisher that is not started; it is called when there is an event to send."""
        self._app, self._topic, self._make = app, topic, make
        self._patience_s = patience_s
        self.instance = this_process()
        self._announced = 0
        self._publisher: Publisher | None = None
        self._waiting: deque[tuple[float, Message]] = deque(maxlen=_WAITING)
        self._more = asyncio.Event()

    def emit(self, kind: ServingEventKind, **facts: Any) -> None:
        """Queue an event. `facts` are fields of `schemas.ServingEvent`."""
        now = datetime.now(UTC)
        event = ServingEvent.model_validate(
            {"event": kind, "app": self._app, "instance": self.instance, "at": now, **facts}
        )
        self._announced += 1
        headers = [
            (CE_SPECVERSION, SPEC_VERSION.encode()),
            (CE_ID, f"{self._app}/{self.instance}/{self._announced}".encode()),
            (CE_TYPE, event.event_type().encode()),
            (CE_SOURCE, app_source(self._app).encode()),
            (CE_TIME, now.isoformat().encode()),
        ]
        message = Message(self._topic, event.model_dump_json().encode(), event.key.encode(), headers)
        self._waiting.append((time.monotonic() + self._patience_s, message))
        self._more.set()

    async def run(self) -> None:
        """Send queued events until cancelled."""
        while True:
            await self._more.wait()
            self._more.clear()
            await self._send_all()

    async def stop(self) -> None:
        """Try for two seconds to send the remaining events, then drop them."""
        await self.finish(_FAREWELL_S)

    async def finish(self, within_s: float) -> bool:
        """Try for so long to send the remaining events, then drop them; returns whether all were accepted."""
        all_sent = False
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                all_sent = await self._send_all()
        await self._let_go()
        return all_sent

    async def _send_all(self) -> bool:
        all_sent = True
        while self._waiting:
            deadline, message = self._waiting[0]
            sent = False
            with suppress(TimeoutError):
                async with asyncio.timeout(max(deadline - time.monotonic(), 0.0)):
                    sent = await self._send(message)
            # Newer events may have displaced it during the attempt.
            if self._waiting and self._waiting[0][1] is message:
                self._waiting.popleft()
            if not sent:
                all_sent = False
                log.warning("an event was not taken and is dropped", topic=self._topic)
                await self._let_go()
        return all_sent

    async def _send(self, message: Message) -> bool:
        while True:
            try:
                if self._publisher is None:
                    publisher = self._make()
                    await publisher.start()
                    self._publisher = publisher
                (refusal,) = await self._publisher.publish([message])
                if refusal is None or refusal.scope is Scope.RECORD:
                    return refusal is None
                log.warning("events are not taken, trying again", topic=self._topic, why=str(refusal))
                await asyncio.sleep(_AGAIN_S)
            except Exception as error:  # noqa: BLE001  (an error of the client must not end the process)
                log.warning("events cannot be sent, trying again", why=type(error).__name__)
                await self._let_go()
                await asyncio.sleep(_AGAIN_S)

    async def _let_go(self) -> None:
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            with suppress(Exception):
                await publisher.stop()


class Pauses:
    """Detects that intake has paused because results are not accepted, and that it has resumed. Pure."""

    def __init__(self, after_s: float = 1.0) -> None:
        """A pause shorter than `after_s` is ignored: every retried send causes one."""
        self._after_s = after_s
        self._since: float | None = None
        self._announced = False

    def update(self, taking: bool, now: float) -> tuple[ServingEventKind, float | None] | None:
        """Return the event to emit: paused, or resumed with the duration in seconds; None: nothing changed."""
        if not taking:
            self._since = now if self._since is None else self._since
            if self._announced or now - self._since < self._after_s:
                return None
            self._announced = True
            return ServingEventKind.PAUSED, None
        since, announced, self._since, self._announced = self._since, self._announced, None, False
        return (ServingEventKind.RESUMED, now - since) if announced and since is not None else None


async def emit_pauses(events: ServingEvents, taking: asyncio.Event) -> None:
    """Emit the pauses of intake until cancelled. `taking` is set while results are accepted."""
    pauses = Pauses()
    while True:
        change = pauses.update(taking.is_set(), time.monotonic())
        if change is not None:
            events.emit(change[0], seconds=change[1])
        await asyncio.sleep(_WATCH_S)

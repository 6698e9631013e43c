"""What happens in this process, told on `murmura.events`: in the background, so that nobody who answers records waits."""

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
from ..observe.logs import get_logger
from ..wire.message import Message
from .publisher import Publisher

log = get_logger(__name__)

_WAITING: Final = 100
"""Events that are kept; of more than that the oldest go."""
_PATIENCE_S: Final = 60.0
_FAREWELL_S: Final = 2.0
_AGAIN_S: Final = 1.0


def this_process() -> str:
    """Return a name that no other process has, nor this one after a restart."""
    return f"{socket.gethostname()}/{os.getpid()}/{uuid4().hex[:8]}"


class ServingEvents:
    """Sends events in order, each once as far as can be known.

    Invariants:
    - `tell` never waits: events go through a publisher of their own, so a topic that takes none, which stops intake when
      it is one of results, stops nothing here;
    - what is not taken within a minute is dropped with a line in the log.
    """

    def __init__(self, app: str, topic: str, make: Callable[[], Publisher], *, patience_s: float = _PATIENCE_S) -> None:
        """`make` gives a publisher that is not started; it is called when there is something to tell."""
        self._app, self._topic, self._make = app, topic, make
        self._patience_s = patience_s
        self.instance = this_process()
        self._told = 0
        self._publisher: Publisher | None = None
        self._waiting: deque[tuple[float, Message]] = deque(maxlen=_WAITING)
        self._more = asyncio.Event()

    def tell(self, kind: ServingEventKind, **facts: Any) -> None:
        """Have an event sent. `facts` are fields of `schemas.ServingEvent`."""
        now = datetime.now(UTC)
        said = ServingEvent.model_validate(
            {"event": kind, "app": self._app, "instance": self.instance, "at": now, **facts}
        )
        self._told += 1
        headers = [
            (CE_SPECVERSION, SPEC_VERSION.encode()),
            (CE_ID, f"{self._app}/{self.instance}/{self._told}".encode()),
            (CE_TYPE, said.event_type().encode()),
            (CE_SOURCE, app_source(self._app).encode()),
            (CE_TIME, now.isoformat().encode()),
        ]
        message = Message(self._topic, said.model_dump_json().encode(), said.key.encode(), headers)
        self._waiting.append((time.monotonic() + self._patience_s, message))
        self._more.set()

    async def run(self) -> None:
        """Send what is told, for ever."""
        while True:
            await self._more.wait()
            self._more.clear()
            await self._send_all()

    async def stop(self) -> None:
        """Try for two seconds to send what is left, then let go."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                await self._send_all()
        await self._let_go()

    async def _send_all(self) -> None:
        while self._waiting:
            deadline, message = self._waiting[0]
            sent = False
            with suppress(TimeoutError):
                async with asyncio.timeout(max(deadline - time.monotonic(), 0.0)):
                    sent = await self._send(message)
            # It may have been pushed out by newer ones while it was tried.
            if self._waiting and self._waiting[0][1] is message:
                self._waiting.popleft()
            if not sent:
                log.warning("an event was not taken and is dropped", topic=self._topic)
                await self._let_go()

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
            except Exception as error:  # noqa: BLE001  (whatever a client raises, it is not worth the process)
                log.warning("events cannot be sent, trying again", why=type(error).__name__)
                await self._let_go()
                await asyncio.sleep(_AGAIN_S)

    async def _let_go(self) -> None:
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            with suppress(Exception):
                await publisher.stop()


class Pauses:
    """Says when intake has stopped because results are not taken, and when it goes on. Pure: it is told `now`."""

    def __init__(self, after_s: float = 1.0) -> None:
        """A stop shorter than `after_s` is none: every send that is tried again makes one."""
        self._after_s = after_s
        self._since: float | None = None
        self._told = False

    def look(self, taking: bool, now: float) -> tuple[ServingEventKind, float | None] | None:
        """Return what is to be told: paused, or resumed with the seconds that it took."""
        if not taking:
            self._since = now if self._since is None else self._since
            if self._told or now - self._since < self._after_s:
                return None
            self._told = True
            return ServingEventKind.PAUSED, None
        since, told, self._since, self._told = self._since, self._told, None, False
        return (ServingEventKind.RESUMED, now - since) if told and since is not None else None

"""Sends dead letters again in the background: one redrive at a time in a console, with its progress."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from ...runtime.agent.agent import Agent
from ...runtime.agent.handler import Handler
from ...runtime.errors import MurmuraError
from ...runtime.observe.logs import get_logger
from ...runtime.redrive.dead_letter_reader import LetterScan
from ...runtime.redrive.preparation import RETRIES, make_rules, sender_factory, supports_transactions
from ...runtime.redrive.redrive import Stopped, count, send_again
from ...runtime.redrive.rules import ORIGINAL, Tally
from ...runtime.settings.settings import Settings
from ...runtime.wire.dead_letter_records import Selection
from ..web.people import Refused

log = get_logger(__name__)

_PREVIEW_S: Final = 60.0
MOST_PREVIEWS: Final = 2
"""Counts at a time: each reads the whole topic."""
TARGETS: Final = (RETRIES, ORIGINAL)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is sent again: which ones, where to, and at most how many a second (None: as fast as it goes)."""

    selection: Selection
    to: str = RETRIES
    rate: float | None = None
    out_of_order: bool = False


@dataclass(slots=True)
class Progress:
    """A redrive that runs or has ended. Times are Unix seconds."""

    by: str
    started: float
    sent: int = 0
    ended: float | None = None
    tally: Tally | None = None
    """Set when it is done."""
    trouble: str | None = None
    """Why it ended early."""


class Redrives:
    """Counts and sends what a plan selects, by the runtime's own redrive: each record once, whoever else sends."""

    def __init__(
        self, settings: Settings, known: Callable[[], list[Agent | Handler]], clock: Callable[[], float] = time.time
    ) -> None:
        """`known` returns the installed agents, whose order decides what may be sent."""
        self._settings, self._known, self._clock = settings, known, clock
        self._previews = 0
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.latest: Progress | None = None

    async def preview(self, plan: Plan) -> Tally:
        """Return what would be sent now. Raises MurmuraError, also after a minute, and Refused while two others count."""
        if self._previews >= MOST_PREVIEWS:
            raise Refused(HTTPStatus.TOO_MANY_REQUESTS, f"{MOST_PREVIEWS} others are counting: wait for them.")
        self._previews += 1
        try:
            return await self._count(plan)
        finally:
            self._previews -= 1

    async def _count(self, plan: Plan) -> Tally:
        rules = await make_rules(self._settings, plan.to, self._known(), out_of_order=plan.out_of_order)
        scan = LetterScan(self._settings.kafka, self._settings.dead_letters)
        try:
            async with asyncio.timeout(_PREVIEW_S):
                return await count(scan, plan.selection, rules)
        except TimeoutError:
            raise MurmuraError(
                f"counting took longer than {_PREVIEW_S:g} s: select fewer, or use `murmura deadletters redrive`"
            ) from None

    def start(self, plan: Plan, by: str) -> None:
        """Begin to send. Raises Refused while another redrive of this console runs."""
        if self._task is not None and not self._task.done():
            raise Refused(HTTPStatus.CONFLICT, "A redrive is running. Wait for its end, or stop it.")
        self.latest = Progress(by, self._clock())
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(self._run(plan, self.latest, self._stop))

    def stop(self) -> None:
        """Ask the running redrive to end after its batch; what was sent is marked."""
        self._stop.set()

    async def finish(self) -> None:
        """Run until cancelled, then let the running redrive end after its batch."""
        try:
            await asyncio.Event().wait()
        finally:
            self.stop()
            if self._task is not None:
                await asyncio.wait([self._task], timeout=self._settings.producer.send_timeout_s)

    async def _run(self, plan: Plan, progress: Progress, stop: asyncio.Event) -> None:
        log.info("redrive", by=progress.by, to=plan.to)

        def on_sent(records: int) -> None:
            progress.sent += records

        try:
            rules = await make_rules(self._settings, plan.to, self._known(), out_of_order=plan.out_of_order)
            transactions = await supports_transactions(self._settings)
            progress.tally = await send_again(
                LetterScan(self._settings.kafka, self._settings.dead_letters),
                plan.selection,
                rules,
                sender_factory(self._settings, transactions=transactions),
                stop=stop,
                rate=plan.rate,
                clock=self._clock,
                on_sent=on_sent,
            )
        except Stopped:
            progress.trouble = "It was stopped. What was sent is marked; start it again for the rest."
        except MurmuraError as error:
            progress.trouble = str(error)
        except Exception as error:
            progress.trouble = f"It failed: {type(error).__name__}. The console's log has the reason."
            log.exception("redrive failed")
        finally:
            progress.ended = self._clock()
            log.info("redrive ended", by=progress.by, sent=progress.sent, trouble=progress.trouble)

"""Stops the experiments of candidates that failed or were refused in this process, by the next release state."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from itertools import count
from typing import Final, NamedTuple

from ...schemas.release import Candidate, ReleaseState, stopped
from ..errors import SetupError
from ..observe.logs import get_logger
from ..output.serving_events import ServingEvents
from ..settings.settings import Settings
from .experiment_events import event_of_step
from .states import publish_state, read_states

log = get_logger(__name__)

PAUSES_S: Final = (0.5, 2.0, 10.0, 30.0)
"""Mean pauses before the attempts, the last before all that follow: processes whose candidate fails together do not all begin
at once.
"""
_WHY_CHARACTERS: Final = 300


class ReleaseStates(NamedTuple):
    """Reads the newest release state of a model, and publishes the one after it."""

    read: Callable[[], Awaitable[ReleaseState | None]]
    publish: Callable[[ReleaseState], Awaitable[None]]
    """Raises SetupError for a state that does not build on the newest."""

    @classmethod
    def from_settings(cls, settings: Settings, name: str) -> "ReleaseStates":
        topic = f"{settings.prefix}.models"

        async def read() -> ReleaseState | None:
            return (await read_states(settings.kafka, topic)).get(name)

        async def publish(state: ReleaseState) -> None:
            await publish_state(settings.kafka, topic, state, producer=settings.producer)

        return cls(read, publish)


class FailedCandidates:
    """Publishes the end of each experiment whose candidate has failed here, or was refused for good.

    Invariants:
    - an experiment is stopped at most once by this process, and by the topic's rule at most once by all;
    - it is tried until the experiment is over; what cannot be published is logged once, and the current version answers here
      all the same.
    """

    def __init__(
        self, states: ReleaseStates, events: ServingEvents, by: str, *, pauses_s: tuple[float, ...] = PAUSES_S
    ) -> None:
        """`by`: the author in the history."""
        self._states, self._events, self._by, self._pauses_s = states, events, by, pauses_s
        self._waiting: asyncio.Queue[tuple[Candidate, str]] = asyncio.Queue()

    def add(self, candidate: Candidate, why: str) -> None:
        """Stop the experiment of a candidate that does not run here. `why`: the reason in the history."""
        self._waiting.put_nowait((candidate, why))

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            candidate, why = await self._waiting.get()
            await self._stop(candidate, why[:_WHY_CHARACTERS])

    async def _stop(self, candidate: Candidate, why: str) -> None:
        problem = ""
        for tried in count():
            if tried == len(self._pauses_s):
                log.error(
                    "an experiment goes on though its candidate does not run here, trying on: `murmura models stop` stops it",
                    version=candidate.version,
                    why=problem,
                )
            pause_s = self._pauses_s[min(tried, len(self._pauses_s) - 1)]
            await asyncio.sleep(random.uniform(0.0, 2.0 * pause_s))
            try:
                state = await self._states.read()
                if state is None or state.candidate is None or key_of(state.candidate) != key_of(candidate):
                    return  # another process, or a person, was first
                after = stopped(state, by=self._by, why=why, at=datetime.now(UTC).replace(microsecond=0))
                await self._states.publish(after)
            except SetupError as error:
                problem = str(error)
                continue
            except Exception as error:
                log.exception("an experiment could not be stopped")
                problem = type(error).__name__
                continue
            self._announce(state, after, why)
            return

    def _announce(self, before: ReleaseState, state: ReleaseState, why: str) -> None:
        log.warning(
            "experiment stopped", model=state.name, version=before.candidate and before.candidate.version, why=why
        )
        event = event_of_step(before, state)
        if event is not None:
            self._events.emit(event.kind, **event.facts)


def key_of(candidate: Candidate) -> tuple[object, ...]:
    """Return what stays of a candidate while its share changes."""
    began = candidate.since if candidate.experiment is None else candidate.experiment.id
    return candidate.version, candidate.digest, began

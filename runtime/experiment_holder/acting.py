"""Acts on the decision of an experiment: publishes the next release state, as the commands do."""

from collections import deque
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from ...schemas.experiment_state import Decided
from ...schemas.release import ReleaseState, completed, promoted, stopped
from ..errors import OutcomeUnknown
from ..experiments.run import ExperimentRun
from ..observe.logs import get_logger
from ..output.serving_events import ServingEvents
from ..release.experiment_events import event_of_step
from ..release.states import publish_state
from ..settings.settings import Settings

log = get_logger(__name__)

BY: Final = "murmura serve"
"""Who acts, in the history of releases."""
_STEPS: Final = {"promote": promoted, "complete": completed, "stop": stopped}
_WHY_CHARACTERS: Final = 1000
_MOST_UNKNOWN: Final = 20


def make_step(
    run: ExperimentRun, decided: Decided, states: Mapping[str, ReleaseState], now: datetime
) -> ReleaseState | None:
    """Return the release state that follows from a decision; None where the experiment no longer runs in that state."""
    state = states.get(run.model)
    candidate = state.candidate if state else None
    if state is None or candidate is None or candidate.experiment is None:
        return None
    if candidate.experiment.id != run.experiment.id:
        return None
    return _STEPS[decided.action](state, by=BY, why=decided.why[:_WHY_CHARACTERS], at=now.replace(microsecond=0))


class Actor:
    """Publishes states and their events. The event of a state whose outcome is not known at once follows when it is read."""

    def __init__(self, settings: Settings, events: ServingEvents) -> None:
        self._settings, self._events = settings, events
        self._unknown: deque[tuple[ReleaseState, ReleaseState]] = deque(maxlen=_MOST_UNKNOWN)
        """The state before, and the one that was sent."""

    async def act(self, decided: Decided, before: ReleaseState, state: ReleaseState) -> None:
        """Publish a state and its event. Raises SetupError when another state was first: then nothing has changed.

        Its kind OutcomeUnknown is raised when the broker was lost after the state was sent.
        """
        settings = self._settings
        try:
            await publish_state(settings.kafka, f"{settings.prefix}.models", state, producer=settings.producer)
        except OutcomeUnknown:
            self._unknown.append((before, state))
            raise
        log.warning("an experiment was decided", model=state.name, action=decided.action, why=decided.why)
        self._emit(before, state)

    def note_states(self, states: Mapping[str, ReleaseState]) -> None:
        """Emit the events of states that did take hold, now that the newest ones were read."""
        waiting = [*self._unknown]
        self._unknown.clear()
        for before, state in waiting:
            newest = states.get(state.name)
            if newest is None or newest.generation < state.generation:
                self._unknown.append((before, state))
            elif state.history[-1] in newest.history:
                self._emit(before, state)

    def _emit(self, before: ReleaseState, state: ReleaseState) -> None:
        event = event_of_step(before, state)
        if event is not None:
            self._events.emit(event.kind, **event.facts)

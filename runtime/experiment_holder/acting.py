"""Acts on the decision of an experiment: publishes the next release state, as the commands do."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from ...schemas.experiment_state import Decided
from ...schemas.release import ReleaseState, completed, promoted, stopped
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


async def act(
    settings: Settings, decided: Decided, before: ReleaseState, state: ReleaseState, events: ServingEvents
) -> None:
    """Publish a state and its event. Raises SetupError when another state was first: then nothing has changed."""
    await publish_state(settings.kafka, f"{settings.prefix}.models", state, producer=settings.producer)
    log.warning("an experiment was decided", model=state.name, action=decided.action, why=decided.why)
    event = event_of_step(before, state)
    if event is not None:
        events.emit(event.kind, **event.facts)

"""Says what a step of an experiment was: as an event for `murmura.events`, and in a few words. Pure."""

from typing import Any, Final, NamedTuple

from ...schemas.experiment import Experiment
from ...schemas.release import Candidate, ReleaseState, Step
from ...schemas.serving_event import ServingEventKind


class StepEvent(NamedTuple):
    """What to emit after a release state was published."""

    kind: ServingEventKind
    facts: dict[str, Any]
    """Fields of `schemas.ServingEvent`."""


_KINDS: Final = {
    "started": ServingEventKind.EXPERIMENT_STARTED,
    "shadow": ServingEventKind.EXPERIMENT_STARTED,
    "raised": ServingEventKind.EXPERIMENT_RAISED,
    "promoted": ServingEventKind.EXPERIMENT_PROMOTED,
    "completed": ServingEventKind.EXPERIMENT_COMPLETED,
    "stopped": ServingEventKind.EXPERIMENT_STOPPED,
}


def event_of_step(before: ReleaseState | None, state: ReleaseState) -> StepEvent | None:
    """Return the event of the step from `before` to `state`; None where nothing happened to a candidate.

    A release or a rollback ends what ran.
    """
    candidate = state.candidate or (before.candidate if before else None)
    if candidate is None or not state.history:
        return None
    step = state.history[-1]
    if step.experiment is not None:
        kind, what = _KINDS[step.experiment], describe_candidate(state, candidate, step)
    elif state.candidate is None:
        kind = ServingEventKind.EXPERIMENT_STOPPED
        what = f"{_name(candidate)} ended, as {state.name} {state.current.version} was released"
    else:
        return None
    previous = before.current.version if before and step.experiment == "completed" else state.current.version
    reason = f": {step.why}" if step.why else ""
    facts = {
        "name": state.name,
        "version": candidate.version,
        "previous": previous,
        "generation": state.generation,
        "message": f"{what}, by {step.by}{reason}",
    }
    return StepEvent(kind, facts)


def describe_candidate(state: ReleaseState, candidate: Candidate, step: Step) -> str:
    """Return what holds after a step of an experiment, in one line."""
    name, version, current = _name(candidate), f"{state.name} {candidate.version}", state.current.version
    if step.experiment == "stopped":
        return f"{name} is stopped: {state.name} {current} answers all"
    if step.experiment == "completed":
        return f"{name} is completed: {version} answers all"
    if candidate.shadow is not None:
        return f"{name}: {version} is compared with {current} on {format_share(candidate.shadow)} of the requests"
    experiment = candidate.experiment
    held = ", and all after the time that its rules hold back the rest" if experiment and experiment.promoted else ""
    share = format_share(candidate.share or 0.0)
    return f"{name}: {version} answers {share} of the {describe_unit(experiment)} beside {current}{held}"


def describe_step(step: Step) -> str | None:
    """Return what a step in the history did to a candidate, in a few words; None for a release, rollback or switch."""
    if step.experiment is None:
        return None
    share = "" if step.share is None else f", {format_share(step.share)}"
    what = "shadow started" if step.experiment == "shadow" else step.experiment
    return f"candidate {step.candidate} {what}{share}"


def format_share(share: float) -> str:
    """Return a share in per cent: 5 %, 0.25 %."""
    return f"{100.0 * share:.6g} %"


def describe_unit(experiment: Experiment | None) -> str:
    """Return what an experiment divides, in the plural."""
    unit = experiment.unit if experiment else "request"
    return {"key": "keys", "conversation": "conversations", "request": "requests"}.get(unit, f"values of {unit}")


def _name(candidate: Candidate) -> str:
    return f"experiment {candidate.experiment.id}" if candidate.experiment else "shadow"

"""The current version of a model: the value of `murmura.models`, and the steps from one state to the next.

A state is replaced as a whole; its generation says which of two is newer. Going back is one more state, of a higher
generation, with the older version. A candidate runs beside the current version, one at a time; a candidate with a share is in
an experiment.
"""

from datetime import datetime
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from .experiment import Experiment
from .manifest import Name, Sha256
from .result import UtcTime

HISTORY: Final = 50
"""Number of steps to keep: the latest, but of those that leave the version at most half while there are older releases."""
INTENT_CHARACTERS: Final = 200
"""Maximum length of an intent's name."""

Version = Annotated[int, Field(ge=1)]
Generation = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0.0, le=1.0)]
Who = Annotated[str, StringConstraints(max_length=200)]
Why = Annotated[str, StringConstraints(max_length=1000)]
ExperimentStep = Literal["started", "raised", "promoted", "completed", "stopped", "shadow"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Release(_Frozen):
    """A version of the model in the store."""

    version: Version
    digest: Sha256
    """SHA-256 of its manifest, which names all other files by digest."""


class Candidate(Release):
    """A version that runs in addition to the current one: it answers a share, or is only compared."""

    share: Share | None = None
    """The part of the requests that it answers."""
    shadow: Share | None = None
    """The part of the requests on which it is compared; its answers are not sent."""
    experiment: Experiment | None = None
    """What a candidate with a share is in. Only states of programs before experiments have a share without one."""
    since: UtcTime | None = None
    """Since when a shadow runs."""

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if (self.share is None) == (self.shadow is None):
            raise ValueError("a candidate has either a share or a shadow")
        if self.experiment is not None and self.share != self.experiment.share_now:
            raise ValueError(
                f"the candidate's share is {self.share}, its experiment's is {self.experiment.share_now:g}"
            )
        return self


class GeneratedReplies(_Frozen):
    """Which replies of conversations the model may word."""

    off: Literal["all"] | list[Annotated[str, Field(min_length=1, max_length=INTENT_CHARACTERS)]] = []
    """The intents whose replies are sent as their policy has them, or all."""

    def allows(self, intent: str | None) -> bool:
        """Return whether the model may word a reply about an intent; None: one about none."""
        return self.off != "all" and intent not in self.off

    def __str__(self) -> str:
        return f"off for {self.off if self.off == 'all' else ', '.join(self.off)}" if self.off else "on"


class Step(_Frozen):
    """One release, rollback, switch or step of an experiment: what became or stayed current, and by whom."""

    version: Version
    generation: Generation
    by: Who
    why: Why
    at: UtcTime
    digest: Sha256 | None = None
    restores: Generation | None = None
    """A rollback: the generation that it went back to. A step that leaves the version repeats that of the step before."""
    generated_replies: GeneratedReplies | None = None
    """A switch of generated replies: what holds from now on. The version stays."""
    experiment: ExperimentStep | None = None
    """What happened to the candidate. `completed`: it became current; with all others the version stays."""
    candidate: Version | None = None
    """The version that the step of an experiment is about."""
    share: Share | None = None
    """Its share, or that of its shadow, from now on."""

    @property
    def leaves_version(self) -> bool:
        """Whether the current version is that of the step before."""
        return self.generated_replies is not None or self.experiment not in (None, "completed")


class ReleaseState(_Frozen):
    """The releases of one model."""

    name: Name
    generation: Generation
    current: Release
    candidate: Candidate | None = None
    generated_replies: GeneratedReplies = GeneratedReplies()
    """Kept by releases and rollbacks."""
    history: list[Step] = []
    """Oldest first; the last one made this state."""


def released(
    state: ReleaseState | None, name: str, version: int, digest: str, *, by: str, why: str, at: datetime
) -> ReleaseState:
    """Return the state in which `version` is current; `state` is the one before, None for a model's first release.

    A candidate is dropped: what it was measured against is no longer current.
    """
    if state is not None and state.name != name:
        raise ValueError(f"a state of {state.name} cannot become one of {name}")
    generation = state.generation + 1 if state else 1
    step = Step(version=version, generation=generation, by=by, why=why, at=at, digest=digest)
    return _after(state, name, step, Release(version=version, digest=digest))


def rolled_back(state: ReleaseState, *, by: str, why: str, at: datetime) -> ReleaseState:
    """Return the state in which the version before is current again.

    Going back twice goes two versions back. LookupError when nothing is left to go back to.
    """
    before = _before(state)
    if before is None:
        raise LookupError(f"{state.name} has no version before {state.current.version} to go back to")
    release = Release.model_validate({"version": before.version, "digest": before.digest})
    step = Step(
        version=release.version,
        generation=state.generation + 1,
        by=by,
        why=why,
        at=at,
        digest=release.digest,
        restores=before.restores or before.generation,
    )
    return _after(state, state.name, step, release)


def switched(state: ReleaseState, replies: GeneratedReplies, *, by: str, why: str, at: datetime) -> ReleaseState:
    """Return the state with the same versions in which these replies may be generated."""
    after = _keep(state, state.candidate, by=by, why=why, at=at, generated_replies=replies)
    return after.model_copy(update={"generated_replies": replies})


def started(
    state: ReleaseState, version: int, digest: str, experiment: Experiment, *, by: str, why: str, at: datetime
) -> ReleaseState:
    """Return the state in which `version` answers the experiment's share. ValueError while there is a candidate."""
    _check_free(state, version)
    candidate = Candidate(version=version, digest=digest, share=experiment.share_now, experiment=experiment)
    return _tried(state, candidate, "started", by=by, why=why, at=at)


def shadowed(
    state: ReleaseState, version: int, digest: str, share: float, *, by: str, why: str, at: datetime
) -> ReleaseState:
    """Return the state in which `version` is compared on a share of the requests. ValueError while there is a candidate."""
    _check_free(state, version)
    candidate = Candidate(version=version, digest=digest, shadow=share, since=at)
    return _tried(state, candidate, "shadow", by=by, why=why, at=at)


def raised(state: ReleaseState, share: float, *, by: str, why: str, at: datetime) -> ReleaseState:
    """Return the state in which the candidate has a larger share. ValueError without one, for a smaller share, or after the
    promotion.
    """
    candidate, experiment = _in_experiment(state)
    if experiment.promoted is not None:
        raise ValueError(f"experiment {experiment.id} of {state.name} is promoted already: its share stays to the end")
    return _tried(state, _with(candidate, experiment.raised(share, at)), "raised", by=by, why=why, at=at)


def promoted(state: ReleaseState, *, by: str, why: str, at: datetime) -> ReleaseState:
    """Return the state in which the candidate has all but the rules' `hold_back`. ValueError without one, or a second time."""
    candidate, experiment = _in_experiment(state)
    if experiment.promoted is not None:
        raise ValueError(f"experiment {experiment.id} of {state.name} is promoted already")
    share = 1.0 - experiment.rules.hold_back
    larger = experiment.raised(share, at) if share > experiment.share_now else experiment
    after = larger.model_copy(update={"promoted": max(at, larger.changed)})
    return _tried(state, _with(candidate, after), "promoted", by=by, why=why, at=at)


def completed(state: ReleaseState, *, by: str, why: str, at: datetime) -> ReleaseState:
    """Return the state in which the experiment's candidate is current. ValueError without an experiment."""
    candidate, _ = _in_experiment(state)
    current = Release(version=candidate.version, digest=candidate.digest)
    step = Step(
        version=current.version,
        generation=state.generation + 1,
        by=by,
        why=why,
        at=at,
        digest=current.digest,
        experiment="completed",
        candidate=candidate.version,
    )
    return _after(state, state.name, step, current)


def stopped(state: ReleaseState, *, by: str, why: str, at: datetime) -> ReleaseState:
    """Return the state without the candidate, of an experiment or of a shadow. ValueError without one."""
    if state.candidate is None:
        raise ValueError(f"{state.name} has no candidate: nothing to stop")
    version = state.candidate.version
    return _keep(state, None, by=by, why=why, at=at, experiment="stopped", candidate=version)


def is_switch_only(before: ReleaseState, state: ReleaseState) -> bool:
    """Return whether nothing but generated replies was switched since the state before: there is nothing to load."""
    since = [step for step in state.history if step.generation > before.generation]
    kept = (before.current, before.candidate) == (state.current, state.candidate)
    return kept and bool(since) and all(step.generated_replies is not None for step in since)


def keeps_current(before: ReleaseState, state: ReleaseState) -> bool:
    """Return whether only the candidate changed, or replies were switched, since the state before: the current version stays."""
    since = [step for step in state.history if step.generation > before.generation]
    return before.current == state.current and bool(since) and all(step.leaves_version for step in since)


def _check_free(state: ReleaseState, version: int) -> None:
    running = state.candidate
    if running is not None:
        what = f"experiment {running.experiment.id} with version" if running.experiment else "candidate"
        raise ValueError(f"{state.name} has {what} {running.version} already: one at a time, stop it first")
    if version == state.current.version:
        raise ValueError(f"{state.name} {version} is current: a candidate is another version")


def _in_experiment(state: ReleaseState) -> tuple[Candidate, Experiment]:
    candidate = state.candidate
    if candidate is None or candidate.experiment is None:
        raise ValueError(f"{state.name} has no experiment{', only a shadow' if candidate and candidate.shadow else ''}")
    return candidate, candidate.experiment


def _with(candidate: Candidate, experiment: Experiment) -> Candidate:
    return candidate.model_copy(update={"experiment": experiment, "share": experiment.share_now})


def _tried(
    state: ReleaseState, candidate: Candidate, step: ExperimentStep, *, by: str, why: str, at: datetime
) -> ReleaseState:
    share = candidate.share or candidate.shadow
    return _keep(state, candidate, by=by, why=why, at=at, experiment=step, candidate=candidate.version, share=share)


def _after(state: ReleaseState | None, name: str, step: Step, current: Release) -> ReleaseState:
    history = _bound_history([*(state.history if state else ()), step])
    replies = state.generated_replies if state else GeneratedReplies()
    return ReleaseState(
        name=name, generation=step.generation, current=current, generated_replies=replies, history=history
    )


def _keep(
    state: ReleaseState, beside: Candidate | None, *, by: str, why: str, at: datetime, **facts: object
) -> ReleaseState:
    """Return the state with the same current version and `beside` it a candidate; `facts` are further fields of its step."""
    reached = _reached(state)
    current = state.current
    restores = reached.restores if reached else None
    step = Step.model_validate(
        {
            "version": current.version,
            "generation": state.generation + 1,
            "by": by,
            "why": why,
            "at": at,
            "digest": current.digest,
            "restores": restores,
            **facts,
        }
    )
    return _after(state, state.name, step, current).model_copy(update={"candidate": beside})


def _bound_history(steps: list[Step]) -> list[Step]:
    """Drop the oldest step beyond HISTORY; of more than half that leave the version the oldest, so that releases can be gone back to."""
    if len(steps) <= HISTORY:
        return steps
    leaving = [step for step in steps if step.leaves_version]
    dropped = leaving[0] if len(leaving) > HISTORY // 2 else steps[0]
    return [step for step in steps if step is not dropped]


def _before(state: ReleaseState) -> Step | None:
    """The newest step to another version, before the one that the current version really came from."""
    reached = _reached(state)
    if reached is None:
        return None
    came_from = reached.restores or reached.generation
    earlier = (s for s in reversed(state.history) if s.generation < came_from)
    return next((s for s in earlier if s.version != state.current.version and s.digest is not None), None)


def _reached(state: ReleaseState) -> Step | None:
    """The step that made this state."""
    return next((s for s in reversed(state.history) if s.generation == state.generation), None)

"""The current version of a model: the value of `murmura.models`, and the steps from one state to the next.

A state is replaced as a whole; its generation says which of two is newer. Going back is one more state, of a higher
generation, with the older version.
"""

from datetime import datetime
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from .manifest import Name, Sha256
from .result import UtcTime

HISTORY: Final = 50
"""Number of steps to keep: the latest, but of switches at most half of them while there are older releases."""
INTENT_CHARACTERS: Final = 200
"""Maximum length of an intent's name."""

Version = Annotated[int, Field(ge=1)]
Generation = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0.0, le=1.0)]
Who = Annotated[str, StringConstraints(max_length=200)]
Why = Annotated[str, StringConstraints(max_length=1000)]


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

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if (self.share is None) == (self.shadow is None):
            raise ValueError("a candidate has either a share or a shadow")
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
    """One release, rollback or switch: what became current, and by whom."""

    version: Version
    generation: Generation
    by: Who
    why: Why
    at: UtcTime
    digest: Sha256 | None = None
    restores: Generation | None = None
    """A rollback: the generation that it went back to. A switch repeats that of the step before."""
    generated_replies: GeneratedReplies | None = None
    """A switch of generated replies: what holds from now on. The version stays."""


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
    reached = _reached(state)
    step = Step(
        version=state.current.version,
        generation=state.generation + 1,
        by=by,
        why=why,
        at=at,
        digest=state.current.digest,
        restores=reached.restores if reached else None,
        generated_replies=replies,
    )
    after = _after(state, state.name, step, state.current)
    return after.model_copy(update={"candidate": state.candidate, "generated_replies": replies})


def is_switch_only(before: ReleaseState, state: ReleaseState) -> bool:
    """Return whether nothing but generated replies was switched since the state before: there is nothing to load."""
    since = [step for step in state.history if step.generation > before.generation]
    kept = (before.current, before.candidate) == (state.current, state.candidate)
    return kept and bool(since) and all(step.generated_replies is not None for step in since)


def _after(state: ReleaseState | None, name: str, step: Step, current: Release) -> ReleaseState:
    history = _bound_history([*(state.history if state else ()), step])
    replies = state.generated_replies if state else GeneratedReplies()
    return ReleaseState(
        name=name, generation=step.generation, current=current, generated_replies=replies, history=history
    )


def _bound_history(steps: list[Step]) -> list[Step]:
    """Drop the oldest step beyond HISTORY; of more than half switches the oldest of these, so that releases can be gone back to."""
    if len(steps) <= HISTORY:
        return steps
    switches = [step for step in steps if step.generated_replies is not None]
    dropped = switches[0] if len(switches) > HISTORY // 2 else steps[0]
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

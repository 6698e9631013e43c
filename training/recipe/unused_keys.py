"""Keys that have no effect where they stand: whoever wrote one expects what does not happen, so they are refused."""

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from ...runtime.model.kinds.forms import TEXT_KEYS
from .reading import Source
from .thresholds import OutOfScope, ThresholdRule

KEYS_OF_SOME_KINDS: Final = TEXT_KEYS | {
    *("thresholds.accept", "thresholds.data", "thresholds.label", "thresholds.max_flagged", "thresholds.out_of_scope")
}
"""Keys of a task, its sources and its thresholds that a kind uses if its `recipe_keys` says so."""
OF_TRAINING: Final = ("repeat", "typo_copies", "soft")
"""Keys of a source that change training rows only."""


class Kind(Protocol):
    """The serving half of a kind, as far as it is asked here."""

    @property
    def name(self) -> str: ...

    @property
    def recipe_keys(self) -> frozenset[str]: ...


class Task(Protocol):
    """What is asked of a recipe's task, beside the keys of a `Reading`."""

    @property
    def thresholds(self) -> ThresholdRule: ...

    @property
    def out_of_scope(self) -> OutOfScope | None: ...

    def parts(self) -> Iterator[tuple[str, list[Source]]]: ...


def explain_unused_key(task: Task, kind: Kind) -> str | None:
    """Return which key of a task has no effect, and why; None where each has one."""
    used = kind.recipe_keys
    for key in _keys_of_some_kinds(task):
        if key not in used:
            others = ", ".join(sorted(used & KEYS_OF_SOME_KINDS)) or "none"
            return (
                f"a task of kind {kind.name} does not use `{key}`; of the keys that only some kinds use it has {others}"
            )
    return _explain_thresholds(task) or _explain_parts(task)


def _keys_of_some_kinds(task: Task) -> Iterator[str]:
    all_sources = [source for _, sources in task.parts() for source in sources]
    for key in ("one_of", "label_separator"):
        if any(getattr(reading, key) is not None for reading in (task, *all_sources)):
            yield key
    if any(source.label is not None for source in all_sources):
        yield "label"
    if any(source.typo_copies for source in all_sources):
        yield "typo_copies"
    yield from (f"thresholds.{name}" for name, value in task.thresholds if value is not None)


def _explain_thresholds(task: Task) -> str | None:
    rule, scope = task.thresholds, task.out_of_scope
    if scope is None:
        unused = next((key for key in ("max_flagged", "out_of_scope", "data") if getattr(rule, key) is not None), None)
        return f"`thresholds.{unused}` has no effect without an `out_of_scope` label" if unused else None
    if rule.out_of_scope is not None and not scope.learn:
        return "`thresholds.out_of_scope` is that of a class, and `learn: false` makes none; set `thresholds.accept`"
    chosen = "out_of_scope" if scope.learn else "accept"
    if rule.max_flagged is not None and getattr(rule, chosen) is not None:
        return f"`thresholds.max_flagged` chooses `thresholds.{chosen}`, which is given; leave one of them out"
    return None


def _explain_parts(task: Task) -> str | None:
    for part, sources in task.parts():
        if part != "train" and (key := _find_training_key(sources)):
            return f"`{key}` changes training rows only; leave it out of {part!r}"
    return None


def _find_training_key(sources: Sequence[Source]) -> str | None:
    defaults = Source.model_fields
    keys = ((key, source) for source in sources for key in OF_TRAINING)
    return next((key for key, source in keys if getattr(source, key) != defaults[key].default), None)

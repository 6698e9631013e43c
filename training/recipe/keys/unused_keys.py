"""Keys that have no effect where they stand: whoever wrote one expects what does not happen, so they are refused.

The recipe of a finished training cannot be changed any more: there they are left out, and named in notes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ....runtime.model.kinds.forms import HEADS_OF_TEXTS, TEXT_KEYS
from .head import Head
from .reading import Source
from .thresholds import OutOfScope, ThresholdRule

KEYS_OF_REPLIES: Final = frozenset(
    {"acts", "context", "layers", "mask_names", "mask_values", "objective", "vocabulary"}
)
KEYS_OF_LABELS: Final = frozenset({"class_weights", "focal", "verbaliser"})
"""How rows of one label count in the loss of a task, and what stands for labels."""
KEYS_OF_SOME_KINDS: Final = (
    TEXT_KEYS
    | KEYS_OF_LABELS
    | KEYS_OF_REPLIES
    | HEADS_OF_TEXTS
    | {
        *(
            "thresholds.accept",
            "thresholds.data",
            "thresholds.label",
            "thresholds.max_flagged",
            "thresholds.out_of_scope",
        )
    }
)
"""Keys of a task, its sources, its head and its thresholds that a kind uses if its `recipe_keys` says so."""
_UNUSED_BY_REPLIES: Final = ("columns", "merge", "rest")
"""Keys of a task and its sources that say how labels and texts are read."""
OF_TRAINING: Final = ("repeat", "typo_copies", "soft")
"""Keys of a source that change training rows only."""
_PARTS: Final = ("train", "validation", "calibration", "test")
VALIDATION_SHARE: Final = 0.1
"""The `validation_share` of a task that sets none."""


class Kind(Protocol):
    """The serving half of a kind, as far as it is asked here."""

    @property
    def name(self) -> str: ...

    @property
    def recipe_keys(self) -> frozenset[str]: ...

    @property
    def generates(self) -> bool: ...

    @property
    def out_of_scope(self) -> bool: ...


class Task(Protocol):
    """What is asked of a recipe's task, beside the keys of a `Reading`."""

    @property
    def thresholds(self) -> ThresholdRule: ...

    @property
    def head(self) -> Head | None: ...

    @property
    def out_of_scope(self) -> OutOfScope | None: ...

    @property
    def validation(self) -> list[Source] | None: ...

    @property
    def validation_share(self) -> float: ...

    @property
    def calibration(self) -> list[Source] | None: ...

    def parts(self) -> Iterator[tuple[str, list[Source]]]: ...


@dataclass(frozen=True)
class UnusedKey:
    """A key of a task, or of its sources, that has no effect. `problem` says why."""

    key: str
    problem: str
    but_in: str | None = None
    """The part in whose sources it has one."""


def find_unused_key(task: Task, kind: Kind) -> UnusedKey | None:
    """Return the first key of a task that has no effect; None where each has one."""
    used = kind.recipe_keys
    for key in _keys_of_some_kinds(task):
        if key not in used:
            others = ", ".join(sorted(used & KEYS_OF_SOME_KINDS)) or "none"
            return UnusedKey(
                key,
                f"a task of kind {kind.name} does not use `{key}`; of the keys that only some kinds use it has {others}",
            )
    own = _find_for_replies(task) if kind.generates else None
    chosen = "accept" if kind.generates else "label"
    own = own or (_find_in_thresholds(task) if kind.out_of_scope else _find_beside_given(task, chosen))
    return own or _find_in_parts(task) or _find_share(task)


def without_key(task: dict[str, Any], unused: UnusedKey) -> dict[str, Any]:
    """Return the document of a task, its sources as lists, without the key."""
    section, _, key = unused.key.rpartition(".")
    if section:
        return {**task, section: _without({**task[section]}, key)}
    kept = _without(task, key)
    for part, sources in kept.items():
        if part in _PARTS and part != unused.but_in and sources:
            kept[part] = [_without(source, key) for source in sources]
    if kept.get("reports"):
        kept["reports"] = {name: [_without(source, key) for source in each] for name, each in kept["reports"].items()}
    if (kept.get("thresholds") or {}).get("data"):
        rows = [_without(source, key) for source in kept["thresholds"]["data"]]
        kept["thresholds"] = {**kept["thresholds"], "data": rows}
    return kept


def _without(mapping: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != key}


def _keys_of_some_kinds(task: Task) -> Iterator[str]:
    all_sources = [source for _, sources in task.parts() for source in sources]
    for key in ("one_of", "label_separator"):
        if any(getattr(reading, key) is not None for reading in (task, *all_sources)):
            yield key
    if any(source.label is not None for source in all_sources):
        yield "label"
    if any(source.typo_copies for source in all_sources):
        yield "typo_copies"
    yield from sorted(key for key in KEYS_OF_REPLIES | KEYS_OF_LABELS if getattr(task, key) is not None)
    yield from (f"head.{name}" for name, value in task.head or () if value is not None)
    yield from (f"thresholds.{name}" for name, value in task.thresholds if value is not None)


def _find_for_replies(task: Task) -> UnusedKey | None:
    readings = [task, *(source for _, sources in task.parts() for source in sources)]
    for key in _UNUSED_BY_REPLIES:
        if any(getattr(reading, key) is not None for reading in readings):
            problem = (
                f"`{key}` has no effect in a task that generates replies, whose rows have fixed columns and no labels"
            )
            return UnusedKey(key, f"{problem}; leave it out")
    if task.calibration is not None:
        problem = "`calibration` has no effect in a task that generates replies: its threshold is chosen on the validation part"
        return UnusedKey("calibration", f"{problem}; leave it out")
    return None


def _find_beside_given(task: Task, chosen: str) -> UnusedKey | None:
    if task.thresholds.max_flagged is None or getattr(task.thresholds, chosen) is None:
        return None
    problem = f"`thresholds.max_flagged` chooses `thresholds.{chosen}`, which is given; leave one of them out"
    return UnusedKey("thresholds.max_flagged", problem)


def _find_in_thresholds(task: Task) -> UnusedKey | None:
    rule, scope = task.thresholds, task.out_of_scope
    if scope is None:
        for key in ("max_flagged", "out_of_scope", "data"):
            if getattr(rule, key) is not None:
                name = f"thresholds.{key}"
                return UnusedKey(name, f"`{name}` has no effect without an `out_of_scope` label")
        return None
    if rule.out_of_scope is not None and not scope.learn:
        problem = "`thresholds.out_of_scope` is that of a class, and `learn: false` makes none; set `thresholds.accept`"
        return UnusedKey("thresholds.out_of_scope", problem)
    return _find_beside_given(task, "out_of_scope" if scope.learn else "accept")


def _find_in_parts(task: Task) -> UnusedKey | None:
    for part, sources in task.parts():
        if part != "train" and (key := _find_training_key(sources)):
            return UnusedKey(key, f"`{key}` changes training rows only; leave it out of {part!r}", "train")
    return None


def _find_share(task: Task) -> UnusedKey | None:
    if task.validation is None or task.validation_share == VALIDATION_SHARE:
        return None
    problem = "`validation_share` has no effect beside `validation`; leave one of them out"
    return UnusedKey("validation_share", problem)


def _find_training_key(sources: Sequence[Source]) -> str | None:
    defaults = Source.model_fields
    keys = ((key, source) for source in sources for key in OF_TRAINING)
    return next((key for key, source in keys if getattr(source, key) != defaults[key].default), None)

"""Examples become token ids and targets; what is wrong with the data as a whole is found here, before any step."""

import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from torch import Tensor

from ..runtime.errors import SetupError
from ..schemas.manifest import TaskSpec
from .data.example import Example
from .data.reading import read_part
from .hold import Held
from .kinds import KINDS, Kind
from .recipe import Recipe, Task

log = logging.getLogger(__name__)
MOSTLY: Final = 1 / 3
"""From this share of unknown tokens on a text is called mostly unknown: a third of the words is what a reader misses."""
TOLERATED: Final = 0.02
"""Share of such texts that a task may have: chat has messages of one emoji."""


@dataclass(frozen=True)
class TaskData:
    """The examples of one task.

    `outside` are validation rows of an out-of-scope label that has no class of its own, `choosing` the rows to choose
    thresholds on where the recipe names some.
    """

    name: str
    task: Task
    kind: Kind
    labels: list[str]
    train: list[Example]
    validation: list[Example]
    outside: list[Example]
    test: list[Example]
    choosing: list[Example]

    @property
    def spec(self) -> TaskSpec:
        """The task as it stands in a manifest, uncalibrated."""
        scope = self.task.out_of_scope
        return TaskSpec(
            name=self.name,
            kind=self.task.kind,
            labels=self.labels,
            out_of_scope=scope.label if scope and scope.learn else None,
            words="text" if self.kind.per_token else "tokenizer",
            open=self.task.open,
        )


def read_tasks(recipe: Recipe, folder: Path) -> list[TaskData]:
    """Read every task's parts, also those that are needed only after training: a mistake in them is found now.

    SetupError for labels that training never sees.
    """
    return [_read_task(name, task, recipe, folder) for name, task in recipe.tasks.items()]


def _read_task(name: str, task: Task, recipe: Recipe, folder: Path) -> TaskData:
    kind, seed = KINDS[task.kind], recipe.data_seed
    train = read_part(task.train, task, folder, seed=seed, training=True)
    if task.validation is not None:
        validation = read_part(task.validation, task, folder, seed=seed)
    else:
        train, validation = _split(train, task.validation_share, seed, kind)
    test = read_part(task.test, task, folder, seed=seed) if task.test else []
    train, _ = inside_and_outside(train, task)
    validation, outside = inside_and_outside(validation, task)
    choosing = read_part(task.thresholds.data, task, folder, seed=seed) if task.thresholds.data else []
    reports = [e for sources in task.reports.values() for e in read_part(sources, task, folder, seed=seed)]
    asked, _ = inside_and_outside([*test, *reports], task)
    if not train or not validation:
        raise SetupError(
            f"task {name}: {len(train)} rows to train on and {len(validation)} to validate; both need some"
        )
    labels = task.labels or kind.labels(train)
    known = frozenset(labels)
    for example in [*train, *validation, *asked]:
        if unknown := kind.unknown(example, known):
            raise SetupError(
                f"{example.place}: label {unknown!r} of task {name} does not occur in its training rows; "
                "add rows, or name it in `labels`, `merge` or `unless`"
            )
    if len(labels) < 2:
        raise SetupError(f"task {name}: the training rows know one label only ({labels[0]!r}); expected two or more")
    _refuse_one_sided(name, task, choosing)
    return TaskData(name, task, kind, labels, train, validation, outside, test, choosing)


def _refuse_one_sided(name: str, task: Task, choosing: list[Example]) -> None:
    if not choosing:
        return
    scope = task.out_of_scope
    if scope is None:
        raise SetupError(f"task {name}: thresholds.data needs an out_of_scope label to tell its rows apart by")
    others = sum(scope.label in example.labels for example in choosing)
    if others in {0, len(choosing)}:
        raise SetupError(
            f"task {name}: thresholds.data needs rows labelled {scope.label!r} and others; {others} of {len(choosing)} are"
        )


def inside_and_outside(examples: list[Example], task: Task) -> tuple[list[Example], list[Example]]:
    """Set apart the rows of an out-of-scope label that is not learned."""
    scope = task.out_of_scope
    if scope is None or scope.learn:
        return examples, []
    outside = [example for example in examples if scope.label in example.labels]
    return [example for example in examples if scope.label not in example.labels], outside


def _split(examples: list[Example], share: float, seed: int, kind: Kind) -> tuple[list[Example], list[Example]]:
    """Hold rows back for validation: whole rows, so that a repeat or a copy never stands on the other side.

    A row that has a label's only examples is not held back: what is never trained on cannot be validated.
    """
    rows = list(dict.fromkeys(example.place for example in examples))
    random.Random(seed).shuffle(rows)
    held = set(rows[: max(1, round(share * len(rows)))])
    known = frozenset(kind.labels([example for example in examples if example.place not in held]))
    for example in examples:
        if example.place in held and kind.unknown(example, known):
            held.discard(example.place)
            known |= frozenset(kind.labels([example]))
    train = [example for example in examples if example.place not in held]
    # Read backwards, so that of a row and its copies the first stays: the text as it was written.
    validation = {example.place: example for example in reversed(examples) if example.place in held}
    return train, [validation[row] for row in rows if row in held]


@dataclass(frozen=True)
class Part:
    """Encoded examples: ids with special tokens, and what each should be answered."""

    ids: list[NDArray[np.int64]]
    targets: list[NDArray[Any]]
    held: dict[int, Held] = field(default_factory=dict)
    """By row: what the model answered when it began, for rows that are learned from that."""

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each text."""
        return [len(ids) for ids in self.ids]


def encode_part(examples: Sequence[Example], data: TaskData, tokenizer: Tokenizer) -> tuple[Part, list[Encoding]]:
    """Tokenise as serving does (the tokenizer's truncation is set by the caller)."""
    encodings = tokenizer.encode_batch([example.text for example in examples])
    index = {label: number for number, label in enumerate(data.labels)}
    targets = [data.kind.target(example, enc, index) for example, enc in zip(examples, encodings, strict=True)]
    return Part([np.array(enc.ids) for enc in encodings], targets), encodings


def pad(texts: Sequence[NDArray[np.int64]]) -> tuple[Tensor, Tensor]:
    """Return ids and mask [B, S], S as long as the longest text and no longer.

    Padding is masked, so its id does not matter; the first token of the batch is one that a narrowed word table has.
    """
    width = max(len(tokens) for tokens in texts)
    ids = np.full((len(texts), width), texts[0][0], np.int64)
    mask = np.zeros((len(texts), width), np.int64)
    for at, tokens in enumerate(texts):
        ids[at, : len(tokens)] = tokens
        mask[at, : len(tokens)] = 1
    return torch.from_numpy(ids), torch.from_numpy(mask)


def in_order(texts: Sequence[NDArray[np.int64]], batch_size: int) -> Iterator[list[int]]:
    """Yield all rows once, shortest first: for scoring, where order is free."""
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def unknown_share(encodings: Sequence[Encoding], unknown_ids: frozenset[int]) -> float | None:
    """Return the share of texts that are mostly unknown tokens; None where the tokenizer has none."""
    if not unknown_ids:
        return None
    return round(sum(_is_mostly_unknown(enc, unknown_ids) for enc in encodings) / max(1, len(encodings)), 4)


def _is_mostly_unknown(encoding: Encoding, unknown_ids: frozenset[int]) -> bool:
    words = len(encoding.ids) - sum(encoding.special_tokens_mask)
    # The mask counts [UNK] as special in some tokenizers, so unknown tokens are counted by their id.
    unknown = sum(token in unknown_ids for token in encoding.ids)
    return unknown > MOSTLY * max(words, unknown)


def refuse_unknown(found: dict[str, float | None], *, allow: bool) -> None:
    """Stop when a task's texts are not in the vocabulary's language. SetupError gives the share for each task."""
    shares = {name: share for name, share in found.items() if share is not None}
    if allow or all(share <= TOLERATED for share in shares.values()):
        return
    said = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    raise SetupError(
        f"texts that are mostly unknown to the encoder's vocabulary: {said}; take an encoder of their language, "
        "`encoder: scratch`, or set `allow_unknown: true`"
    )


def overlap(train: Sequence[Example], test: Sequence[Example]) -> int:
    """Count test texts that also occur in training, letter case and white space apart."""
    seen = {_plain(example.text) for example in train}
    return sum(_plain(example.text) in seen for example in test)


def _plain(text: str) -> str:
    return " ".join(text.lower().split())

"""Reads the tasks of a recipe: what is wrong with the rows of one as a whole is found here, before any step."""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Final

from ...runtime.agent.default_agents import default_agents
from ...runtime.errors import SetupError
from ...runtime.model.folders.folder import read_manifest
from ...schemas.manifest import MANIFEST_NAME, HeadForm, TaskSpec
from ..data.counts import ReadCounts
from ..data.example import Example, labels_of
from ..kinds.kind import Kind
from ..kinds.registry import KINDS
from ..recipe.keys.reading import Source
from ..recipe.keys.tasks import Task
from ..recipe.recipe import Recipe
from .data_checks import find_equal_names, is_like, list_names, suggest
from .data_report import CALIBRATION, TEST, THRESHOLDS, TRAIN, VALIDATION
from .format_keys import refuse_keys_without_format
from .reading import read_counted
from .splits import hold_back, units_of


@dataclass(frozen=True)
class TaskData:
    """The examples of one task.

    `outside` are rows of an out-of-scope label that has no class of its own, from the training, the validation and the
    calibration part; `choosing` are the rows to choose thresholds on where the recipe names some.
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
    reports: dict[str, list[Example]]
    counts: dict[str, ReadCounts]
    """What was read from files, by part."""
    calibration: list[Example] = field(default_factory=list)
    """The rows to choose calibration and thresholds on where the recipe names some."""
    form: HeadForm | None = None
    """The form of the head where it depends on the encoder."""

    @property
    def form_of_head(self) -> HeadForm | None:
        """The form of the head before anything is learned; None for a linear layer on the mean."""
        return self.form or self.task.form_of_head

    @property
    def names(self) -> list[str]:
        """The labels as rows name them: of a tagging task the types of spans."""
        return self.kind.name_labels(self.labels)

    @cached_property
    def class_weights(self) -> list[float] | None:
        """How much the rows of each label count in the loss; None where all count alike. Rows with soft targets count 1."""
        asked = self.task.class_weights
        if asked is None:
            return None
        if isinstance(asked, dict):
            return [asked.get(label, 1.0) for label in self.labels]
        rows = Counter(example.labels[0] for example in self.train if not example.soft)
        return [rows.total() / (len(rows) * rows[label]) if rows[label] else 1.0 for label in self.labels]

    @property
    def calibrating(self) -> list[Example]:
        """The rows that calibration and thresholds are chosen on."""
        return self.calibration or self.validation

    @property
    def rows(self) -> Iterator[Example]:
        """All rows of all parts."""
        own = (self.train, self.validation, self.calibration, self.outside, self.test, self.choosing)
        for part in (*own, *self.reports.values()):
            yield from part

    @property
    def spec(self) -> TaskSpec:
        """The task as it stands in a manifest, uncalibrated."""
        scope = self.task.out_of_scope
        spec = TaskSpec(
            name=self.name,
            kind=self.task.kind,
            labels=self.labels,
            out_of_scope=scope.label if scope and scope.learn else None,
            words="text" if self.kind.per_token else "tokenizer",
            default_for=self.task.default_for,
            open=self.task.open,
            generation=self.task.generation(self.kind.name_slots(self.labels)),
            head=self.form_of_head,
        )
        return spec.model_copy(update={"default_for": default_agents(spec)}) if spec.default_for is None else spec


_ONE_GROUP: Final = "every row has the same value in column {!r}, so all rows belong together and none can be held back; leave `group` out, or name a column that tells groups apart"
_WITHOUT_VALIDATION: Final = "no row can be held back: each one, or its group, has the last rows of some label; add rows, or name a validation part"


def read_tasks(recipe: Recipe, folder: Path) -> list[TaskData]:
    """Read every task's parts, also those that are needed only after training: a mistake in them is found now.

    SetupError for labels that training never sees.
    """
    return [read_task(name, recipe, folder) for name in recipe.tasks]


def read_task(name: str, recipe: Recipe, folder: Path) -> TaskData:
    """Read the parts of one task, and hold rows back for validation where the recipe names none."""
    task, kind = recipe.tasks[name], KINDS.get(recipe.tasks[name].kind)
    counts: dict[str, ReadCounts] = {}

    def read(part: str, sources: Sequence[Source] | None, *, training: bool = False) -> list[Example]:
        if not sources:
            return []
        found, counts[part] = read_counted(sources, task, folder, seed=recipe.data_seed, training=training)
        return found

    reports = {each: read(each, sources) for each, sources in task.reports.items()}
    test, choosing = read(TEST, task.test), read(THRESHOLDS, task.thresholds.data)
    train, apart = inside_and_outside(read(TRAIN, task.train, training=True), task)
    validation, outside = inside_and_outside(read(VALIDATION, task.validation), task)
    calibration, further = inside_and_outside(read(CALIBRATION, task.calibration), task)
    labels = task.labels or [*kind.labels(train), *label_by_distance(task)]
    every_part = (train, validation, test, calibration, choosing, *reports.values())
    # Rows of a named validation part are not divided: only the test rows may have groups.
    needs_groups = task.validation is None or not _has_groups(chain.from_iterable(every_part), task.group)
    groups = groups_of(train, task.group) if needs_groups else {}
    if task.validation is None:
        if len(groups) > 1 and len(set(groups.values())) == 1:
            raise recipe.refusal(("tasks", name, "group"), _ONE_GROUP.format(task.group))
        train, validation = divide(train, task.validation_share, recipe.data_seed, groups)
    outside = [*originals(apart), *outside, *further]
    refuse_keys_without_format(name, recipe, folder)
    data = TaskData(name, task, kind, labels, train, validation, outside, test, choosing, reports, counts, calibration)
    refuse_mistakes(data, recipe)
    weighed = task.class_weights if isinstance(task.class_weights, dict) else {}
    if unknown := [label for label in weighed if label not in labels]:
        raise recipe.refusal(
            ("tasks", name, "class_weights"), f"no label {unknown[0]!r}; expected some of {list_names(labels)}"
        )
    return data


def groups_of(examples: Iterable[Example], column: str | None) -> dict[str, Hashable]:
    """Return by place the group of each row; none without a column. SetupError for a row without a value in it."""
    groups: dict[str, Hashable] = {}
    if column is None:
        return groups
    for example in examples:
        if group_of(example, column) is None:
            raise SetupError(f"{example.place}: column {column!r}, the group of a row, is missing or empty")
        groups[example.place] = group_of(example, column)
    return groups


def _has_groups(examples: Iterable[Example], column: str | None) -> bool:
    return column is not None and any(group_of(example, column) is not None for example in examples)


def group_of(example: Example, column: str) -> str | None:
    """Return the group of a row by a column; None where it has none."""
    value = example.meta.get(column)
    return None if value is None or value == "" else str(value)


def originals(examples: Iterable[Example]) -> list[Example]:
    """Return each row once, without its repeats and typo copies, which stand behind it."""
    rows: dict[object, Example] = {}
    for at, example in enumerate(examples):
        rows.setdefault((example.place or at, example.labels, example.spans), example)
    return [*rows.values()]


def divide(
    examples: Sequence[Example], share: float, seed: int, groups: Mapping[str, Hashable] | None = None
) -> tuple[list[Example], list[Example]]:
    """Hold rows back for validation: whole rows, with all that belongs to them, and never the last of a label.

    Rows with equal texts stand on both sides only where each label has one text alone; what was read then says so.
    """
    rows = originals(examples)
    group = groups or {}
    keys = [list(_keys(example, group)) for example in rows]
    labels = [frozenset(labels_of(example)) for example in rows]
    texts = [example.given for example in rows]
    held = hold_back(units_of(texts, labels, keys, seed), share) or hold_back(
        units_of(texts, labels, keys, seed, by_text=False), share
    )
    validation = [rows[at] for at in sorted(held)]
    places = {example.place for example in validation}
    return [example for example in examples if example.place not in places], validation


def _keys(example: Example, groups: Mapping[str, Hashable]) -> Iterator[tuple[str, Hashable]]:
    if example.place:
        yield "place", example.place
    if example.place in groups:
        yield "group", groups[example.place]


def label_by_distance(task: Task) -> list[str]:
    """Return the out-of-scope label that no row teaches, though it has a class."""
    scope = task.out_of_scope
    return [scope.label] if scope is not None and scope.by == "distance" else []


def inside_and_outside(examples: list[Example], task: Task) -> tuple[list[Example], list[Example]]:
    """Set apart the rows of an out-of-scope label that is not learned."""
    scope = task.out_of_scope
    if scope is None or scope.is_taught:
        return examples, []
    outside = [example for example in examples if scope.label in example.labels]
    return [example for example in examples if scope.label not in example.labels], outside


def refuse_mistakes(data: TaskData, recipe: Recipe) -> None:
    """Raise SetupError in one line for what cannot be learned, or be scored afterwards."""
    place = ("tasks", data.name)
    if problem := _problem_of_scope(data):
        raise recipe.refusal((*place, "out_of_scope"), problem)
    if problem := _problem_of_training(data) or _problem_of_one_label(data, recipe):
        raise recipe.refusal((*place, "train"), problem)
    if problem := _problem_of_names(data):
        raise recipe.refusal((*place, "train"), problem)
    if not data.validation:
        raise recipe.refusal((*place, "validation"), _WITHOUT_VALIDATION)
    if problem := _problem_of_choosing(data):
        raise recipe.refusal((*place, "thresholds", "data"), problem)
    _refuse_unknown_labels(data)


def _problem_of_scope(data: TaskData) -> str | None:
    scope = data.task.out_of_scope
    if scope is None or scope.label in data.labels or (not scope.learn and _has_label(data.rows, scope.label)):
        return None
    found = [name for name in data.names if name != scope.label]
    which = "training row" if scope.learn else "row"
    return f"no {which} has the label {scope.label!r}; found {list_names(found) or 'none'}{suggest(scope.label, found)}"


def _problem_of_training(data: TaskData) -> str | None:
    if not data.train:
        return "no row to train on"
    if data.kind.generates:
        return None
    if not data.names:
        return f"no row has a {data.kind.counted.removesuffix('s')}: there is nothing to learn"
    if len(data.labels) < 2 and data.kind.several:
        named = sum(bool(example.labels) for example in data.train)
        missing = "with" if not named else "without" if named == len(data.train) else None
        return missing and f"no training row is {missing} the only label, {data.labels[0]!r}; expected some"
    if len(data.labels) < 2:
        who = "the training rows know" if data.task.labels is None else "`labels` names"
        return f"{who} one label only ({data.labels[0]!r}); expected two or more"
    return None


def _problem_of_one_label(data: TaskData, recipe: Recipe) -> str | None:
    """Explain that only one of the labels has rows, where nothing else teaches the others: no teacher, no soft rows, and no model
    that knows them. A class by distance needs none.
    """
    taught = recipe.smaller is not None or (recipe.teachers is not None and recipe.teachers.teaches(data.name))
    found = {label for row in data.train for label in row.labels}
    if data.kind.several or taught or len(found) != 1 or any(row.soft for row in data.train):
        return None
    others = {*found, *label_by_distance(data.task), *_labels_to_go_on_with(data, recipe)}
    if not (without := [label for label in data.labels if label not in others]):
        return None
    return f"all rows have the label {found.pop()!r}, and none has {list_names(without)}; expected rows of two labels or more"


def _labels_to_go_on_with(data: TaskData, recipe: Recipe) -> Sequence[str]:
    """Return the labels that the task's head knows before training; none unless it goes on from a model of ours."""
    folder, form, spoken = Path(recipe.encoder.source), data.form_of_head, data.task.verbaliser is not None
    for spec in read_manifest(folder).tasks if (folder / MANIFEST_NAME).is_file() else ():
        same_form = spoken or (spec.head and spec.head.untrained) == form
        if (spec.name, spec.kind) == (data.name, data.kind.name) and same_form and {*spec.labels} <= {*data.labels}:
            return spec.labels
    return ()


def _problem_of_names(data: TaskData) -> str | None:
    equal = find_equal_names(data.names)
    if data.task.labels is not None or equal is None:
        return None
    one, other = (f"{label!r} ({_first_place(data.train, label)})" for label in equal)
    return (
        f"labels {one} and {other} differ only in case, blanks, letter forms or invisible characters: write one of them in the data, or add "
        f"`merge: {{{equal[0]}: [{equal[1]}]}}` and `rest: keep`; where both are meant, name all in `labels`"
    )


def _problem_of_choosing(data: TaskData) -> str | None:
    scope = data.task.out_of_scope
    if not data.choosing or scope is None:
        return None
    others = sum(scope.label in example.labels for example in data.choosing)
    if others in {0, len(data.choosing)}:
        return f"needs rows labelled {scope.label!r} and others; {others} of {len(data.choosing)} are"
    return _problem_of_other_spelling(data.choosing, scope.label, data.labels)


def _problem_of_other_spelling(rows: Iterable[Example], scope: str, known: Sequence[str]) -> str | None:
    """Explain a label that looks like the out-of-scope one. Others may differ from the task's: they only are in scope."""
    for example in rows:
        for label in example.labels:
            if label != scope and label not in known and is_like(label, scope):
                return (
                    f"{example.place} has the label {label!r}, which would count as in scope; did you mean {scope!r}?"
                )
    return None


def _refuse_unknown_labels(data: TaskData) -> None:
    known, scope = frozenset(data.labels), data.task.out_of_scope
    for example in (
        *data.train,
        *data.validation,
        *data.calibration,
        *data.test,
        *(e for part in data.reports.values() for e in part),
    ):
        if scope is not None and scope.label in example.labels:
            continue
        if unknown := data.kind.unknown(example, known):
            problem, add = "does not occur in its training rows", "add rows, or "
            if data.task.labels is not None:
                problem, add = "is not among its `labels`", ""
            raise SetupError(
                f"{example.place}: label {unknown!r} of task {data.name} {problem}; "
                f"{add}name it in `labels`, `merge` or `unless`{suggest(unknown, data.names)}"
            )


def _has_label(examples: Iterable[Example], label: str) -> bool:
    return any(label in example.labels for example in examples)


def _first_place(examples: Iterable[Example], label: str) -> str:
    return next(example.place for example in examples if label in labels_of(example))

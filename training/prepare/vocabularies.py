"""The pieces of replies, which are the labels of a task that generates: made when the encoder's tokenizer is known."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tokenizers import Tokenizer

from ...runtime.errors import SetupError
from ...runtime.generation.reply_vocabulary import build_labels, list_slots
from ...schemas.manifest import GenerationSpec, ModelManifest, TaskSpec
from .tasks import TaskData


def with_pieces(tasks: Sequence[TaskData], tokenizer: Tokenizer, before: ModelManifest | None) -> list[TaskData]:
    """Return the tasks, those that generate with their labels. A decoder of the model before keeps its pieces."""
    known = {spec.name: spec for spec in before.tasks} if before is not None else {}
    return [_with_pieces(data, tokenizer, known.get(data.name)) if data.kind.generates else data for data in tasks]


def _with_pieces(data: TaskData, tokenizer: Tokenizer, before: TaskSpec | None) -> TaskData:
    replies = [example.reply or "" for example in data.train]
    try:
        labels = build_labels(replies, tokenizer, find_slots(data), data.task.vocabulary)
    except ValueError as error:
        raise SetupError(f"task {data.name}: {error}") from error
    if before is not None and before.generation is not None:
        _refuse_other_depth(data, before.generation)
        labels = list(dict.fromkeys([*before.labels, *labels]))
    return replace(data, labels=labels)


def find_slots(data: TaskData) -> set[str]:
    """Return the slots that acts and replies of all parts name: those that training lacks begin as their words."""
    return set(_slots_of(data))


def _slots_of(data: TaskData) -> Iterator[str]:
    for example in data.rows:
        yield from list_slots(example.reply or "")
        yield from (act.slot for act in example.acts if act.slot)


def _refuse_other_depth(data: TaskData, before: GenerationSpec) -> None:
    own = data.task.generation()
    if own is not None and own.layers != before.layers:
        raise SetupError(
            f"task {data.name}: its decoder in the model to begin with has {before.layers} layers, the recipe {own.layers}; "
            f"set `layers` to {before.layers}, or give the task another name"
        )

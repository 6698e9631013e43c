"""Checks what is asked of the model before it is encoded."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from ....schemas.deadletter import DeadLetterReason
from ....schemas.manifest import POOLED, GenerationSpec, ModelManifest, TaskSpec
from ...agent.prediction import Prediction
from ...agent.result_envelope import Variant
from ...errors import RecordError
from ...generation.input_format import exceeds_bytes, format_input
from ...model.inputs import Input, TextPair, choose_input, find_pair_tasks, missing_pair
from ...model.texts.long_texts import Windows
from ...model.vectors import Embedded, Vectors
from ..device.runs import BatchModel
from ..queues.entry import Entry, ReplyRequest


class EngineModel(BatchModel, Protocol):
    """A model for the engine; `encode` is called in the tokeniser's thread on whole chunks."""

    @property
    def device(self) -> str: ...
    @property
    def manifest(self) -> ModelManifest: ...
    @property
    def tasks(self) -> Mapping[str, TaskSpec]: ...
    def encode(self, texts: Sequence[Input], /) -> Sequence[Any]: ...
    def embed(self, texts: Sequence[str], /) -> Vectors: ...
    def encode_windows(self, texts: Sequence[Input], windows: Sequence[Windows | None], /) -> Sequence[Any]: ...


class RequestChecks:
    """Validation of texts and tasks, and construction of predictions; shared by the engine and its fake."""

    def __init__(self, model: EngineModel) -> None:
        self.model: Any = model

    def untimed(self) -> AbstractContextManager[None]:
        """Return a context that does nothing: outside of a record there is no deadline to pause."""
        return nullcontext()

    def check(
        self, text: str, tasks: Iterable[str] | None = None, text_pair: str | None = None
    ) -> tuple[tuple[str, ...], Input]:
        """Return the tasks to answer (None: all of the model's that read what is given), and what they read.

        Raises RecordError `unknown_task`, or `invalid` for a second text that is missing or that no task reads, an empty text
        and a lone surrogate, which would fail the whole chunk in the tokenizer.
        """
        known = self.model.tasks
        pair_tasks = find_pair_tasks(known.values())
        wanted = tuple(known) if tasks is None else tuple(tasks)
        for number, task in enumerate(wanted, 1):
            if task not in known:
                # The name may come from a request, so it is not quoted.
                raise RecordError(
                    DeadLetterReason.UNKNOWN_TASK,
                    f"task {number} of the {len(wanted)} asked for is not one of the model's, which are {', '.join(known)}",
                )
        _check_text(text, "the text")
        if text_pair is not None:
            _check_text(text_pair, "the second text")
            if pair_tasks.isdisjoint(wanted):
                raise RecordError(DeadLetterReason.INVALID, "no task that is asked reads two texts")
        elif not pair_tasks.isdisjoint(wanted):
            left = tuple(task for task in wanted if task not in pair_tasks)
            if tasks is not None or not left:
                raise missing_pair(wanted, pair_tasks)
            wanted = left
        return wanted, choose_input(text, text_pair, wanted, pair_tasks)

    def check_vector(self, text: str) -> str:
        """Return the text of which a vector is asked. Raises RecordError `unknown_task` for a model without the pooled output,
        `invalid` as `check` does.
        """
        if not self.model.manifest.pooled:
            raise RecordError(
                DeadLetterReason.UNKNOWN_TASK, "the model gives no vectors of texts: it has no pooled output"
            )
        _check_text(text, "the text")
        return text

    def check_all(
        self, text: str, tasks: Iterable[str] | None, text_pair: str | None, with_vector: bool
    ) -> tuple[tuple[str, ...], Input]:
        """Return what `check` does, with the pooled output among the tasks if the vector is asked, too."""
        wanted, given = self.check(text, tasks, text_pair)
        if with_vector:
            self.check_vector(text)
        return (*wanted, POOLED) if with_vector else wanted, given

    def make_embedded(self, outputs: dict[str, dict[str, Any]], model: Any) -> Embedded:
        """Return the vector in outputs that `model` gave."""
        return Embedded(outputs[POOLED]["vector"], (model.manifest.name, model.manifest.version))

    def renew(self, entry: Entry) -> None:
        """Assign the serving model to an entry. Raises RecordError when it cannot answer it."""
        if entry.reply is not None:
            entry.text = self.check_reply(entry.reply, entry.tasks[0])
        else:
            with_vector = POOLED in entry.tasks and entry.model.manifest.pooled
            tasks = tuple(task for task in entry.tasks if task != POOLED or not with_vector)
            text, second = (entry.text, None) if isinstance(entry.text, str) else entry.text[:2]
            if tasks:
                _, entry.text = self.check_all(text, tasks, second, with_vector)
            else:
                entry.text = self.check_vector(text)
        entry.model, entry.variant = self.model, "current"

    def make_prediction(
        self, outputs: dict[str, dict[str, Any]], encoded: Any, model: Any = None, variant: Variant = "current"
    ) -> Prediction:
        """Return outputs as a Prediction; `model` is the one that produced them (default: the serving one)."""
        manifest = (model or self.model).manifest
        version = manifest.name, manifest.version
        vector = Embedded(outputs.pop(POOLED)["vector"], version) if POOLED in outputs and manifest.pooled else None
        return Prediction(outputs, encoded.truncated, version, vector, variant)

    def check_reply(self, request: ReplyRequest, task: str) -> TextPair:
        """Return what a task that generates reads. Raises RecordError `unknown_task` for any other task, and what
        `is_forbidden` raises: its answers are remembered, so it is not asked between the steps of others.
        """
        spec = self._find_spec(task)
        if spec is None:
            raise RecordError(DeadLetterReason.UNKNOWN_TASK, "the task asked for is none of the model's that generate")
        if task in self.model.decoders:
            self.model.decoders[task].forbid(request.slots, request.is_forbidden)
        return format_input(request.turns, request.acts, spec)

    def exceeds_bytes(self, request: ReplyRequest, task: str) -> bool:
        """Return whether the newest turn is longer than what the serving model reads of it."""
        spec = self._find_spec(task)
        return spec is not None and exceeds_bytes(request.turns, spec)

    def _find_spec(self, task: str) -> GenerationSpec | None:
        found: TaskSpec | None = self.model.tasks.get(task)
        return found.generation if found is not None else None


def _check_text(text: str, what: str) -> None:
    if not text:
        raise RecordError(DeadLetterReason.INVALID, f"{what} is empty")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RecordError(
                DeadLetterReason.INVALID, f"{what} holds a lone surrogate at character {error.start}"
            ) from None

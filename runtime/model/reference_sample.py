"""The reference sample of a model folder: a few texts (and pairs of texts, where a task reads them), and their logits from when the model was exported.

A model is served only when it reproduces them: the same decisions, and scores within 1e-3.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

import numpy as np

from ...schemas.manifest import TaskSpec
from ...schemas.serving_event import RejectReason
from ..errors import ModelRefused
from .decoding import Floats
from .inputs import Input, TextPair
from .kinds.kind import Kind
from .kinds.registry import kind_of

TOLERANCE: Final = 1e-3
Reference = dict[str, Any]


class Answering(Protocol):
    """A model that can run a reference sample."""

    tasks: dict[str, TaskSpec]

    def batches(self, texts: Sequence[Input], /) -> Iterable[tuple[Any, Any]]: ...

    def run(self, texts: Any, /) -> Any: ...

    def split_rows(self, task: str, logits: Any, /) -> Sequence[Any]: ...


def make_reference(model: Answering, texts: Sequence[Input]) -> Reference:
    """Return `{"texts", "outputs": {task: logits per text}}`: [C] per text, or [tokens, C]. JSON-ready.

    Of a task that generates [pieces, 2], for each piece of the reply its number and log-probability. Where the model has the
    pooled output, `vectors` is [H] per text.
    """
    vectors: list[Any] = []
    outputs: dict[str, list[Any]] = {name: [] for name in model.tasks}
    for batch, _ in model.batches(texts):
        logits = model.run(batch)
        for name in model.tasks:
            rows = model.split_rows(name, logits)
            outputs[name] += [np.round(row.astype(np.float64), 6).tolist() for row in rows]
        if logits.vectors is not None:
            vectors += np.round(logits.vectors.astype(np.float64), 6).tolist()
    named = [text if isinstance(text, str) else list(text[:2]) for text in texts]
    return {"texts": named, "outputs": outputs} | ({"vectors": vectors} if vectors else {})


def read_reference(data: bytes) -> Reference:
    """Parse `reference.json`. Raises ModelRefused when it is invalid."""
    try:
        reference = json.loads(data)
        texts, outputs = reference["texts"], reference["outputs"]
        sound = isinstance(texts, list) and all(map(_is_input, texts))
        sound = sound and isinstance(outputs, dict) and all(isinstance(rows, list) for rows in outputs.values())
    except (ValueError, KeyError, TypeError, RecursionError):
        sound = False
    if not sound:
        message = "reference.json has no texts and outputs; export the model again"
        raise ModelRefused(message, RejectReason.NOT_REPRODUCED)
    return dict(reference)


def _is_input(value: Any) -> bool:
    """Whether it is a text, or a list of two."""
    texts = value if isinstance(value, list) and len(value) == 2 else [value]
    return all(isinstance(text, str) for text in texts)


def missing_sample_error(origin: str) -> ModelRefused:
    """Return the error for a model without a reference sample."""
    message = f"{origin}: it has no reference sample, or an empty one, to be checked by; export the model again"
    return ModelRefused(message, RejectReason.NOT_REPRODUCED)


def check_reference(model: Answering, reference: Reference) -> None:
    """Raise ModelRefused unless the model gives the stored decisions, and the stored scores within `TOLERANCE`.

    A model that ends none of its replies to the sample is refused, too.
    """
    try:
        texts = [text if isinstance(text, str) else TextPair(*text) for text in reference["texts"]]
        sample = make_reference(model, texts)
    except ValueError as error:  # a text that cannot be encoded
        raise ModelRefused(f"the reference sample cannot be run: {error}", RejectReason.NOT_REPRODUCED) from error
    found = sample["outputs"]
    _check_vectors(sample.get("vectors", []), reference.get("vectors", []))
    for name, spec in model.tasks.items():
        stored = reference["outputs"].get(name, [])
        if len(stored) != len(found[name]):
            raise ModelRefused(
                f"the reference sample has {len(stored)} answers of task {name}; export the model again",
                RejectReason.NOT_REPRODUCED,
            )
        answers = [np.asarray(got, np.float64) for got in found[name]]
        for index, (want, logits) in enumerate(zip(stored, answers, strict=True)):
            stored_logits = _numbers(name, want)
            problem = _difference(kind_of(spec), stored_logits, logits)
            if problem:
                same = stored_logits.shape == logits.shape or kind_of(spec).generates
                raise ModelRefused(
                    f"task {name} does not reproduce reference text {index}: {problem}; "
                    "the graph, tokenizer and manifest do not belong together, or this device computes differently",
                    RejectReason.NOT_REPRODUCED if same else RejectReason.WRONG_SHAPE,
                )
        if fault := kind_of(spec).find_fault(answers):
            raise ModelRefused(f"task {name}: {fault}", RejectReason.ENDLESS)


def _check_vectors(found: list[Any], stored: Any) -> None:
    if not found:
        return
    want, got = _numbers("pooled", stored), np.asarray(found, np.float64)
    if want.shape != got.shape or not np.abs(want - got).max(initial=0.0) <= TOLERANCE:
        raise ModelRefused(
            "the vectors of the reference sample are not reproduced; export the model again",
            RejectReason.NOT_REPRODUCED,
        )


def _numbers(task: str, stored: Any) -> Floats:
    try:
        return np.asarray(stored, np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        message = f"the reference sample's answers of task {task} are no numbers; export the model again"
        raise ModelRefused(message, RejectReason.NOT_REPRODUCED) from error


def _difference(kind: Kind, want: Floats, got: Floats) -> str | None:
    if want.shape != got.shape:
        return f"{got.shape} logits instead of {want.shape}"
    gap = np.abs(kind.to_scores(got) - kind.to_scores(want)).max(initial=0.0)
    if not gap <= TOLERANCE:
        return f"a score differs by {gap:.2g}"
    return None if np.array_equal(kind.to_decisions(want), kind.to_decisions(got)) else "another label wins"

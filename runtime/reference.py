"""The reference sample of a model folder: a few texts and the logits they gave where the model was made.

A model is served only when it gives them again: the same decisions, and scores within 1e-3.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ..schemas.serving_event import RejectReason
from .decoding import Floats, sigmoid, softmax
from .errors import ModelRefused

if TYPE_CHECKING:
    from .model import Model

TOLERANCE: Final = 1e-3
Reference = dict[str, Any]


def make_reference(model: "Model", texts: Sequence[str]) -> Reference:
    """Return `{"texts", "outputs": {task: logits per text}}`: [C] per text, for tagging [tokens, C]. JSON-ready."""
    outputs: dict[str, list[Any]] = {name: [] for name in model.tasks}
    for batch, _ in model.batches(texts):
        logits = model.run(batch)
        for name, spec in model.tasks.items():
            values = logits.values[name]
            rows = np.split(values, logits.starts[1:-1]) if spec.kind == "tagging" else list(values)
            outputs[name] += [np.round(row.astype(np.float64), 6).tolist() for row in rows]
    return {"texts": list(texts), "outputs": outputs}


def read_reference(data: bytes) -> Reference:
    """Parse `reference.json`; ModelRefused when it is not one."""
    try:
        reference = json.loads(data)
        sound = isinstance(reference["texts"], list) and isinstance(reference["outputs"], dict)
    except (ValueError, KeyError, TypeError, RecursionError):
        sound = False
    if not sound:
        raise ModelRefused("reference.json holds no texts and outputs; export the model again")
    return dict(reference)


def check_reference(model: "Model", reference: Reference) -> None:
    """Raise ModelRefused unless the model gives the stored decisions, and the stored scores within `TOLERANCE`."""
    found = make_reference(model, reference["texts"])["outputs"]
    for name, spec in model.tasks.items():
        stored = reference["outputs"].get(name, [])
        if len(stored) != len(found[name]):
            raise ModelRefused(
                f"the reference sample has {len(stored)} answers of task {name}; export the model again",
                RejectReason.NOT_REPRODUCED,
            )
        for index, (want, got) in enumerate(zip(stored, found[name], strict=True)):
            stored_logits, logits = np.asarray(want, np.float64), np.asarray(got, np.float64)
            problem = _difference(spec.kind, stored_logits, logits)
            if problem:
                same = stored_logits.shape == logits.shape
                raise ModelRefused(
                    f"task {name} does not reproduce reference text {index}: {problem}; "
                    "the graph, tokenizer and manifest do not belong together, or this device computes differently",
                    RejectReason.NOT_REPRODUCED if same else RejectReason.WRONG_SHAPE,
                )


def _difference(kind: str, want: Floats, got: Floats) -> str | None:
    if want.shape != got.shape:
        return f"{got.shape} logits instead of {want.shape}"
    scale = sigmoid if kind == "multi_label" else softmax
    gap = np.abs(scale(got) - scale(want)).max(initial=0.0)
    if not gap <= TOLERANCE:
        return f"a score differs by {gap:.2g}"
    decided = (want > 0) == (got > 0) if kind == "multi_label" else want.argmax(-1) == got.argmax(-1)
    return None if np.all(decided) else "another label wins"

"""A reply, worded by a decoder from what the encoder makes of the acts and turns of a conversation."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from ....schemas.manifest import EncoderSpec, TaskSpec
from ..decoding import PLACES, Decoder, Floats, Output
from ..generated import Generated
from .forms import Reads
from .kind import Answer, Array, Kind, read_label

END: Final = "{end}"
"""The label of the end of a reply, at index 0."""


class Generation(Kind):
    """Reads two texts: the acts of the reply in words, and the last turns. Labels are the pieces of replies."""

    name = "generation"
    reads = Reads.PAIR
    training = "murmura.training.kinds.generation:Generation"
    generates = True
    correction = "a text of the reply"

    @property
    def recipe_keys(self) -> frozenset[str]:
        own = {"acts", "context", "layers", "mask_names", "mask_values", "objective", "vocabulary"}
        return frozenset(own | {"thresholds.accept", "thresholds.max_flagged"})

    def check(self, task: TaskSpec) -> None:
        super().check(task)
        if task.generation is None:
            raise ValueError(f"task {task.name}: a task of kind {self.name} needs the field `generation`")
        if task.labels[0] != END or len(task.labels) < 2:
            raise ValueError(
                f"task {task.name}: the labels are the pieces of replies and begin with {END!r}, found {task.labels[:2]}"
            )

    def known_labels(self, task: TaskSpec) -> frozenset[str]:
        """Return none: pieces are no labels that rules or corrections may name."""
        return frozenset()

    def head_shapes(self, task: TaskSpec, encoder: EncoderSpec) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the decoder: post-layer-norm blocks with cross attention, as wide as the encoder's.

        `embedding` has the start symbol in its last row; the other rows are the output layer, too. `position` has the
        embedding of the segment added.
        """
        assert task.generation is not None
        hidden, inner, pieces = encoder.hidden_size, encoder.intermediate_size, self.width(task)
        shapes: dict[str, tuple[int, ...]] = {
            "embedding": (pieces + 1, hidden),
            "position": (task.generation.max_tokens, hidden),
            "bias": (pieces,),
        }

        def pair(name: str, *shape: int) -> None:
            shapes[name + ".weight"], shapes[name + ".bias"] = shape, shape[:1]

        for name in ("norm", "transform.norm"):
            pair(name, hidden)
        pair("transform.dense", hidden, hidden)
        for number in range(task.generation.layers):
            layer = f"layers.{number}."
            for attention in ("self.", "cross."):
                for part in ("query", "key", "value", "output"):
                    pair(layer + attention + part, hidden, hidden)
                pair(f"{layer}{attention}norm", hidden)
            pair(layer + "feed_forward.up", inner, hidden)
            pair(layer + "feed_forward.down", hidden, inner)
            pair(layer + "feed_forward.norm", hidden)
        return shapes

    def make_decoder(self, task: TaskSpec) -> Decoder:
        raise TypeError(f"task {task.name} generates replies and has no logits; use Model.generate")

    # Of a reply the reference sample holds one row a piece: its number, and its log-probability.

    def to_scores(self, logits: Floats) -> Floats:
        return np.asarray(np.exp(logits[..., 1]))

    def to_decisions(self, logits: Floats) -> Array:
        return np.asarray(logits[..., 0])

    def find_fault(self, rows: Sequence[Array]) -> str | None:
        """Return that no reply ends; rows are (piece, log-probability) for each piece of a reply."""
        if not rows or any(len(row) and row[-1, 0] == 0 for row in rows):
            return None
        pieces = max(map(len, rows))
        return f"no reply to the reference sample ends before its {pieces} pieces are full; train longer, or look at the rows"

    def format_line(self, output: Answer) -> str:
        return f"{' '.join(output['text'].split())} {output['score']:.2f}"

    def list_answers(self, output: Answer) -> Iterable[tuple[str | None, float]]:
        return ()

    def name_answer(self, output: Answer) -> str:
        return str(output["text"])

    def accepts_correction(self, value: Any) -> bool:
        return isinstance(value, str) and bool(value.strip())

    def target_of_correction(self, value: Any) -> Any:
        return _read_reply(value)

    def target_of_answer(self, output: Answer) -> Any | None:
        return _read_reply(output["text"])

    def labels_of_target(self, target: Any) -> set[str]:
        return set()

    def fields_of_target(self, target: Any) -> dict[str, Any]:
        return {"reply": target}

    def fake_output(self, task: TaskSpec) -> Output:
        return make_output(Generated("", (), 1.0, "end"))


def _read_reply(value: Any) -> str:
    reply = read_label(value).strip()
    if not reply:
        raise ValueError("a reply is nothing but white space")
    return reply


def make_output(reply: Generated) -> Output:
    """Return a reply as an answer; `score` is the geometric mean of its pieces' probabilities."""
    return {"kind": Generation.name, "text": reply.text, "score": round(reply.score, PLACES), "finish": reply.finish}

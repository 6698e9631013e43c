"""A decoder with random weights: its task, and the textbook's formulas in float64, without a cache and without rows."""

from collections.abc import Mapping, Sequence
from math import erf
from typing import Any

import numpy as np
import numpy.typing as npt
from tiny_model import random_weights, tiny_encoder

from murmura.schemas.manifest import EncoderSpec, GenerationSpec, TaskSpec

Array = npt.NDArray[Any]
WORDS = (" Your", " card", " is", " here", ".", "?", " When", "ever", "a", " a", "{", "}")
PIECES = ["{end}", " {date}", "{date}", " {city}", "{city}", *WORDS]


def reply_task(
    *, layers: int = 2, max_tokens: int = 12, labels: Sequence[str] = PIECES, name: str = "reply"
) -> TaskSpec:
    spec = GenerationSpec(context=3, acts=True, layers=layers, max_tokens=max_tokens, slots=["city", "date"])
    return TaskSpec(name=name, kind="generation", labels=list(labels), generation=spec)


def decoder_weights(encoder: EncoderSpec, task: TaskSpec, *, scale: float = 0.3) -> dict[str, Array]:
    return random_weights(encoder, [task], scale=scale)


def end_sooner(*tasks: TaskSpec, by: float = 1.6) -> dict[str, Array]:
    """Return what is added to random weights so that some replies end: a version that ends none is refused."""
    return {f"heads.{task.name}.bias": by * np.eye(1, len(task.labels), dtype=np.float32)[0] for task in tasks}


def decode_by_hand(
    weights: Mapping[str, Array],
    task: TaskSpec,
    hidden: Array,
    pieces: Sequence[int],
    heads: int = 2,
    eps: float = 1e-12,
) -> Array:
    """Return the logits [len(pieces) + 1, V] after the start and after each piece, for a text's states [T, H]."""
    assert task.generation is not None
    w = {n.removeprefix(f"heads.{task.name}."): v.astype(np.float64) for n, v in weights.items()}
    table = w["embedding"]

    def norm(x: Array, name: str) -> Array:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
        return np.asarray(x * w[name + ".weight"] + w[name + ".bias"])

    def linear(x: Array, name: str) -> Array:
        return np.asarray(x @ w[name + ".weight"].T + w[name + ".bias"])

    def gelu(x: Array) -> Array:
        return np.asarray(x * 0.5 * (1 + np.vectorize(erf)(x / np.sqrt(2))))

    def attend(x: Array, source: Array, name: str, causal: bool) -> Array:
        q, k, v = (linear(each, name + part) for each, part in ((x, "query"), (source, "key"), (source, "value")))
        size = q.shape[1] // heads
        parts = []
        for h in range(heads):
            cut = slice(h * size, (h + 1) * size)
            scores = q[:, cut] @ k[:, cut].T / np.sqrt(size)
            if causal:
                scores = np.where(np.tri(len(x), dtype=bool), scores, -np.inf)
            shares = np.exp(scores - scores.max(-1, keepdims=True))
            parts.append(shares / shares.sum(-1, keepdims=True) @ v[:, cut])
        return linear(np.concatenate(parts, -1), name + "output")

    states = hidden.astype(np.float64)
    x = norm(table[[len(task.labels), *pieces]] + w["position"][: len(pieces) + 1], "norm")
    for i in range(task.generation.layers):
        x = norm(x + attend(x, x, f"layers.{i}.self.", True), f"layers.{i}.self.norm")
        x = norm(x + attend(x, states, f"layers.{i}.cross.", False), f"layers.{i}.cross.norm")
        inner = gelu(linear(x, f"layers.{i}.feed_forward.up"))
        x = norm(x + linear(inner, f"layers.{i}.feed_forward.down"), f"layers.{i}.feed_forward.norm")
    y = norm(gelu(linear(x, "transform.dense")), "transform.norm")
    return np.asarray(y @ table[:-1].T + w["bias"])


ENCODER = tiny_encoder(hidden=16, layers=2, heads=2)

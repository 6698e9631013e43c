"""A tiny model that words replies, too: different ones to different turns, each with an end."""

from pathlib import Path

import numpy as np
from tiny_model import TASKS, random_weights, tiny_encoder, write_tiny_model

from murmura.schemas.manifest import GenerationSpec, TaskSpec

WORDS = [f" {first}{rest}" for first in "bcdfg" for rest in ("ar", "ell", "ing", "ord", "umm")]
REPLY = TaskSpec(
    name="reply",
    kind="generation",
    labels=["{end}", " {place}", "{place}", " {time}", "{time}", *WORDS],
    generation=GenerationSpec(context=3, acts=True, layers=2, max_tokens=24, slots=["place", "time"]),
)
_SHRINK, _END_BIAS = 0.5, 0.3
"""Found by trial: with them replies have from two to a dozen words."""


def write_talker(folder: Path, seed: int = 10, end_bias: float = _END_BIAS) -> Path:
    """Write the model's folder and return it."""
    tasks = [*TASKS, REPLY]
    weights = random_weights(tiny_encoder(), tasks, seed)
    decoder = {name: each for name, each in weights.items() if name.startswith("heads.reply.") and "norm" not in name}
    added = {name: -_SHRINK * each for name, each in decoder.items()}
    added["heads.reply.bias"] = (
        np.eye(1, len(REPLY.labels), dtype=np.float32)[0] * end_bias - decoder["heads.reply.bias"]
    )
    return write_tiny_model(folder, tasks, seed=seed, added=added)

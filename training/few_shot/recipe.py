"""The recipe of a model from a few examples: an ordinary one, which `murmura train` and `murmura retrain` read, too."""

from math import ceil
from pathlib import Path
from typing import Any, Final, NamedTuple

from ...runtime.model.folders.folder import read_manifest
from ...schemas.manifest import MANIFEST_NAME
from ..recipe.recipe import DEFAULT_ENCODER

MAX_TOKENS: Final = 128
ALWAYS: Final = 100_000
"""`few_rows`: so many rows a label are few here."""


class Wanted(NamedTuple):
    """What a model is made of. Paths are those of files and folders."""

    examples: Path
    test: Path | None = None
    text: str = "text"
    label: str = "label"
    task: str = "intent"
    out_of_scope: str | None = "out_of_scope"
    """The label of texts that lie far from all others; None: every text gets a label."""
    encoder: str = DEFAULT_ENCODER
    seed: int = 0
    tune_encoder: bool = False
    """Whether the encoder first learns to put the examples of a label near each other."""
    max_tokens: int | None = None
    """Without it that of a model of ours whose encoder it is, else 128."""


EPOCHS: Final = 3
"""Passes of the contrastive step, whose texts each bring another one of their label."""
LEAST_STEPS: Final = 20
BATCH: Final = 32
RATE: Final = 1e-4
SMALL: Final = 200
"""With fewer examples a fifth of them is held back from the encoder, else a tenth."""


def make_recipe(name: str, wanted: Wanted, examples: int) -> dict[str, Any]:
    """Return the recipe for so many examples: an encoder that stays as it is, or learns from the labels alone, and one step,
    behind which the head is fitted to all rows.
    """
    task: dict[str, Any] = {
        "columns": {"text": wanted.text, "label": wanted.label},
        "train": wanted.examples.name,
        "open": True,
    }
    if wanted.test is not None:
        task["test"] = str(wanted.test.resolve())
    if wanted.out_of_scope is not None:
        task["out_of_scope"] = {"label": wanted.out_of_scope, "by": "distance"}
    encoder: dict[str, Any] = {"encoder": {"source": wanted.encoder, "frozen": True}}
    if wanted.tune_encoder:
        task["validation_share"] = 0.2 if examples < SMALL else 0.1
        steps = max(LEAST_STEPS, ceil(EPOCHS * examples / BATCH))
        stage = {"objectives": {"labelled_texts": {}}, "steps": steps, "batch_size": BATCH, "lr": RATE}
        encoder = {"encoder": wanted.encoder, "pretrain": stage, "freeze": "encoder"}
    return {
        "name": name,
        **encoder,
        "max_tokens": _max_tokens(wanted.encoder) if wanted.max_tokens is None else wanted.max_tokens,
        "seed": wanted.seed,
        "few_rows": ALWAYS,
        "budget": {"steps": 1, "evaluations": 1},
        "precision": "fp32",
        "trackers": [],
        "tasks": {wanted.task: task},
    }


def _max_tokens(encoder: str) -> int:
    """Return the limit of a model of ours, whose tasks stay, or the default."""
    folder = Path(encoder)
    return read_manifest(folder).limits.max_tokens if (folder / MANIFEST_NAME).is_file() else MAX_TOKENS

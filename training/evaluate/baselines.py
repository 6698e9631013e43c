"""Puts baselines of replies beside a model's: what its training rows alone would have answered."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import SetupError
from ...runtime.model.model import Model
from ...schemas.manifest import GenerationSpec
from ..data.example import Example
from ..kinds.answers import Score
from ..kinds.reply_baselines import consensus_replies, most_common_reply, template_replies
from ..kinds.reply_scores import score_replies
from ..prepare.reading import read_part
from ..recipe.recipe import Recipe

MOST_ROWS: Final = 5000
"""At most so many training rows are searched for the nearest contexts."""
SHOWN: Final = ("bleu", "rouge_l")
MEANINGS: Final[Mapping[str, str]] = {
    "most_common_bleu": "BLEU of the most common training reply, always",
    "most_common_rouge_l": "its ROUGE-L",
    "consensus_bleu": "BLEU of the training reply that has most in common with those of the 15 nearest contexts, of at most 5,000",
    "consensus_rouge_l": "its ROUGE-L",
    "template_bleu": "BLEU of the most common training reply to the same acts",
    "template_rouge_l": "its ROUGE-L",
}


def with_baselines(
    score: Score,
    model: Model,
    sizes: GenerationSpec,
    recipe: Recipe,
    task: str,
    data: Path,
    examples: Sequence[Example],
) -> Score:
    """Return the score with the figures of the baselines; as it is, with a line, where the training rows cannot be read."""
    spec = recipe.tasks[task]
    try:
        train = read_part(spec.train, spec, data, seed=recipe.data_seed)
    except SetupError as error:
        return replace(score, table=f"{score.table}\nNo baselines: {error}\n")
    figures = dict(score.figures)
    references = [example.reply or "" for example in examples]
    for name, replies in _answer(model, sizes, train, examples, recipe.data_seed).items():
        found = score_replies(replies, references).figures
        figures |= {f"{name}_{figure}": found[figure] for figure in SHOWN}
    return replace(score, figures=figures)


def _answer(
    model: Model, sizes: GenerationSpec, train: Sequence[Example], rows: Sequence[Example], seed: int
) -> dict[str, list[str]]:
    searched = [*train] if len(train) <= MOST_ROWS else random.Random(seed).sample([*train], MOST_ROWS)
    found = {
        "most_common": [most_common_reply(train)] * len(rows),
        "consensus": consensus_replies(searched, embed(model, searched), embed(model, rows)),
    }
    return found | ({"template": template_replies(train, rows)} if sizes.acts else {})


def embed(model: Model, rows: Sequence[Example]) -> NDArray[Any]:
    """Return the mean of the states of the encoder's tokens [N, H], in the order of the rows, for a model that generates."""
    means = []
    for batch, _ in model.batches([row.given for row in rows]):
        logits = model.run(batch)
        assert logits.hidden is not None, "a model that generates has the states of its tokens"
        sums = np.add.reduceat(logits.hidden, logits.starts[:-1], axis=0)
        means.append(sums / np.diff(logits.starts)[:, None])
    return np.concatenate(means)

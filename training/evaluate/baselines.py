"""Puts baselines of replies beside a model's: what its training rows alone would have answered."""

import random
from collections.abc import Sequence
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
from ..kinds.replies.baselines import Contexts, answer_baselines
from ..kinds.replies.scores import score_bleu_and_rouge
from ..prepare.reading import read_part
from ..recipe.recipe import Recipe

MOST_ROWS: Final = 5000
"""At most so many training rows are searched for the nearest contexts."""


class Baselines:
    """What the training rows of one task would have answered, for all sets that it is scored on. They are read and embedded once."""

    def __init__(self, model: Model, sizes: GenerationSpec, recipe: Recipe, task: str, data: Path) -> None:
        self._model, self._sizes = model, sizes
        self._train: Sequence[Example] = ()
        self._problem = ""
        """Why the training rows cannot be read."""
        try:
            self._train = read_part(recipe.tasks[task].train, recipe.tasks[task], data, seed=recipe.data_seed)
        except SetupError as error:
            self._problem = str(error)
            return
        rows = [*self._train]
        self._searched = rows if len(rows) <= MOST_ROWS else random.Random(recipe.data_seed).sample(rows, MOST_ROWS)
        self._vectors = embed(model, self._searched)

    def add_to(self, score: Score, examples: Sequence[Example]) -> Score:
        """Return the score with the figures of the baselines; with a line instead where the training rows cannot be read."""
        if self._problem:
            return replace(score, table=f"{score.table}\nNo baselines: {self._problem}\n")
        figures = dict(score.figures)
        references = [example.reply or "" for example in examples]
        contexts = Contexts(self._searched, self._vectors, embed(self._model, examples))
        for name, replies in answer_baselines(self._train, examples, acts=self._sizes.acts, contexts=contexts).items():
            found = score_bleu_and_rouge(replies, references)
            figures |= {f"{name}_{figure}": value for figure, value in found.items()}
        return replace(score, figures=figures)


def embed(model: Model, rows: Sequence[Example]) -> NDArray[Any]:
    """Return the mean of the states of the encoder's tokens [N, H], in the order of the rows, for a model that generates."""
    means = []
    for batch, _ in model.batches([row.given for row in rows]):
        logits = model.run(batch)
        assert logits.hidden is not None, "a model that generates has the states of its tokens"
        sums = np.add.reduceat(logits.hidden, logits.starts[:-1], axis=0)
        means.append(sums / np.diff(logits.starts)[:, None])
    return np.concatenate(means)

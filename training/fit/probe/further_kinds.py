"""The probe of tasks that tag words or name several labels: a linear head from logistic regression, scored as validation scores."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from ....schemas.manifest import Calibration
from ...data.example import Example, digest_rows
from ...kinds.calibration import label_threshold
from ...prepare.data_report import ProbeReport, ProbeScore
from ...prepare.tasks import TaskData, originals
from ..rows.encoding import Part
from .frozen import MOST_ROWS, Frozen, draw_rows
from .regression import fit_regression

MOST_TAGGED_ROWS: Final = 2000
"""At most so many training rows of a task that tags words: each of their words is a row of the regression."""
MOST_WORDS: Final = 30_000
"""At most so many of these words, drawn from all of them: of long texts 2,000 rows have some hundred thousand."""
CHUNK: Final = 500
"""So many rows of a set are embedded at once: of a task that tags words, each token has a state."""
NEVER: Final = -1e4
"""The bias of a label that no training row has."""
Array = NDArray[Any]


class Linear:
    """A linear head: `weight` [C, H] and `bias` [C] on the state of a text, or of each token."""

    def __init__(self, labels: int, width: int) -> None:
        self.weight = np.zeros((labels, width), np.float32)
        self.bias = np.full(labels, NEVER, np.float32)

    def __call__(self, states: Array) -> Array:
        return np.asarray(states @ self.weight.T + self.bias)


def probe_further(frozen: Frozen, task: int, data: TaskData, sets: Mapping[str, list[Example]]) -> ProbeReport:
    """Fit a head for tags or for several labels, and score it on the sets as the network is scored in validation."""
    most = MOST_TAGGED_ROWS if data.kind.per_token else MOST_ROWS

    def draw(examples: Sequence[Example], most: int = MOST_ROWS) -> list[Example]:
        return [examples[at] for at in draw_rows([0] * len(examples), most, frozen.run.recipe.data_seed)]

    def answer(examples: Sequence[Example]) -> tuple[list[Array], list[Array]]:
        """Return the logits and the targets of a set."""
        logits, targets, drawn = [], [], draw(examples)
        for begin in range(0, len(drawn), CHUNK):
            states, part = frozen.embed_part(task, data, drawn[begin : begin + CHUNK])
            logits += [head(each) for each in states]
            targets += part.targets
        return logits, targets

    learned = draw(originals(data.train), most)
    head = _fit(*frozen.embed_part(task, data, learned), data, frozen.run.recipe.data_seed)
    if not data.kind.per_token and data.calibrating:
        logits, targets = answer(data.calibrating)
        head.bias -= choose_shift(np.stack(logits), np.stack(targets))
    scores = {}
    for name, examples in sets.items():
        if not examples:
            continue
        logits, targets = answer(examples)
        found = data.kind.metrics(logits, targets, data.spec)
        figures = {each: found[each] for each in ("f1", "micro_f1", "macro_f1") if each in found}
        if figures.keys() & {"f1", "micro_f1"}:
            scores[name] = ProbeScore(rows=len(logits), sha256=digest_rows(examples), **figures)
    return ProbeReport(rows=len(learned), scores=scores)


def _fit(states: list[Array], part: Part, data: TaskData, seed: int) -> Linear:
    if data.kind.per_token:
        return fit_tags(states, part.targets, len(data.labels), seed)
    return fit_flags(np.stack(states), np.stack(part.targets))


def fit_tags(states: Sequence[Array], targets: Sequence[Array], labels: int, seed: int) -> Linear:
    """Fit multinomial logistic regression on at most MOST_WORDS words of texts: states [S, H] and targets of each text."""
    head, asked = Linear(labels, states[0].shape[-1]), [target >= 0 for target in targets]
    features = np.concatenate([each[at[: len(each)]] for each, at in zip(states, asked, strict=True)])
    tags = np.concatenate([target[at] for target, at in zip(targets, asked, strict=True)])
    drawn = draw_rows(tags.tolist(), MOST_WORDS, seed)
    features, tags = features[drawn], tags[drawn]
    if len(np.unique(tags)) < 2:
        head.bias[np.unique(tags)] = 0
        return head
    weight, bias, found = fit_regression(features, tags.tolist())
    head.weight[found], head.bias[found] = weight, bias
    return head


def fit_flags(features: Array, flags: Array) -> Linear:
    """Fit a logistic regression for each label: features [N, H], flags [N, C]."""
    head = Linear(flags.shape[1], features.shape[1])
    for label, given in enumerate((flags > 0.5).T):
        if given.all():
            head.bias[label] = -NEVER
        elif given.any():
            weight, bias, _ = fit_regression(features, given.astype(int).tolist())
            head.weight[label], head.bias[label] = weight[1] - weight[0], bias[1] - bias[0]
    return head


def choose_shift(logits: Array, flags: Array) -> float:
    """Return the logit of the one threshold for all labels with the best micro-F1, as a model chooses its own."""
    return float(logit(np.clip(label_threshold(logits, flags, Calibration()), 1e-4, 1 - 1e-4)))

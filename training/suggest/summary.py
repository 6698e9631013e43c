"""What a choice of texts looks like, for who labels them: how useful they are, what the model guesses, and how surely. Pure."""

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any, Final

from ...runtime.model.kinds.forms import AnswerForm
from ...runtime.model.kinds.registry import kind_of
from ...schemas.manifest import TaskSpec
from .choose import Choice, Wanted
from .rows import guess_of
from .strategy import Strategy, Tokens

NAMED: Final = 8
"""So many labels are named, those guessed most."""
_MEANINGS: Final = {
    Strategy.ENTROPY: "the entropy of the answer, in nats",
    Strategy.K_CENTRE: "the distance to the nearest text that has a label or was chosen before",
    Strategy.DISAGREEMENT: "how far passes with dropout contradict each other, in nats",
}
_MARGINS: Final = {
    AnswerForm.LABELS: "1 less the distance between a score and its threshold, of the nearest label",
    AnswerForm.LABEL: "1 less the distance between the two best scores",
    AnswerForm.SPANS: "1 less the distance between the two best scores",
}
_OF_TOKENS: Final = {Tokens.LEAST: " of the least sure token", Tokens.MEAN: ", the mean of the tokens"}


def describe_choice(found: Choice, wanted: Wanted) -> list[str]:
    """Return lines on the texts that are chosen, of which there is one at least."""
    return [*_usefulness(found, wanted), *_guesses(found, wanted.spec), *_scores(found, wanted.spec)]


def _usefulness(found: Choice, wanted: Wanted) -> Iterator[str]:
    if wanted.strategy is Strategy.RANDOM:
        return  # a number that was drawn
    form = kind_of(wanted.spec).form
    meaning = _MARGINS[form] if wanted.strategy is Strategy.MARGIN else _MEANINGS[wanted.strategy]
    if form is AnswerForm.SPANS and wanted.strategy is not Strategy.K_CENTRE:
        meaning += _OF_TOKENS[wanted.tokens]
    yield f"usefulness: {_range([each.usefulness for each in found.chosen])}: {meaning}"


def _guesses(found: Choice, spec: TaskSpec) -> Iterator[str]:
    counts: Counter[str] = Counter()
    none = withheld = 0
    for each in found.chosen:
        labels = [*_labels(guess_of(spec, each.answer))]
        counts.update(labels)
        none += not labels
        withheld += kind_of(spec).form is AnswerForm.LABEL and each.answer["abstained"]
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{label} {count:,}" for label, count in most[:NAMED]]
    if more := max(0, len(most) - NAMED):
        named.append(f"{more} more label{'' if more == 1 else 's'}")
    named += [f"nothing {none:,}"] if none else []
    yield f"guesses: {', '.join(named)}" + (f"; {withheld:,} of them withheld" if withheld else "")


def _labels(guess: Any) -> Iterator[str]:
    """Yield the labels that a guess names: a label, or a list of labels or spans."""
    for each in [guess] if isinstance(guess, str) else guess:
        yield each if isinstance(each, str) else each["label"]


def _scores(found: Choice, spec: TaskSpec) -> Iterator[str]:
    scores = [score for each in found.chosen for _, score in kind_of(spec).list_answers(each.answer)]
    if scores:
        yield f"scores of the guesses: {_range(scores)}, median {median(scores):.3f}"


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.3f} to {max(values):.3f}"

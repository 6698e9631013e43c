"""Scores of generated replies against one reference each.

BLEU (sacrebleu) and ROUGE-L (F1, mean over the replies) compare words in lower case, cut as everywhere here at blanks and
punctuation, with a slot as one word; `bleu_cased` keeps the letter case. chrF compares the characters of lower-case replies.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics import BLEU, CHRF

from ....runtime.generation.reply_vocabulary import list_slots
from ....runtime.model.texts.words import split_words
from ....schemas.acts import SLOT
from ..figures.outcome import Outcome, of_ratio

RESAMPLES: Final = 1000
MEANINGS: Final = {
    "bleu": "BLEU of words in lower case, a slot one word, 0 to 100",
    "bleu_cased": "the same with letter case",
    "chrf": "chrF of lower-case replies, 0 to 100",
    "rouge_l": "ROUGE-L F1 of words in lower case, mean over the replies, 0 to 100",
    "slots_missing": "slots of the references that the replies do not name, as a share of the references' slots",
    "slots_invented": "slots of the replies that the references do not name, as a share of the references' slots",
    "distinct": "different replies, as a share of the rows",
    "length_ratio": "words of the replies for each word of the references",
}
BLEU_OUTCOME: Final = "BLEU"
_ORDERS: Final = 4
Array = NDArray[Any]


@dataclass(frozen=True)
class ReplyScores:
    """`figures` by name, see MEANINGS; `intervals`: the middle 95 % of resampled rows, for all but `chrf` and `distinct`.

    A slot figure is None where the references have no slots.
    """

    rows: int
    figures: Mapping[str, float | None]
    intervals: Mapping[str, tuple[float, float]]
    signature: str
    """Of sacrebleu, for `bleu`."""


def score_replies(
    replies: Sequence[str], references: Sequence[str], groups: Sequence[Hashable] | None = None, *, seed: int = 0
) -> ReplyScores:
    """Score replies. Rows of one group (a dialogue, say) are drawn together for the intervals. ValueError without rows."""
    if not replies or len(replies) != len(references):
        raise ValueError(
            f"expected as many replies as references and at least one, found {len(replies)} and {len(references)}"
        )
    rows = _count_rows(replies, references)
    sums = rows.sum(0)
    figures: dict[str, float | None] = {name: compute(sums) for name, compute in _FIGURES.items()}
    figures["chrf"] = CHRF(lowercase=True).corpus_score([*replies], [[*references]]).score
    figures["distinct"] = len(set(replies)) / len(replies)
    resampled = _resample(_sum_groups(rows, groups), seed)
    intervals = {name: _interval([compute(each) for each in resampled]) for name, compute in _FIGURES.items()}
    return ReplyScores(
        len(replies),
        {name: figures[name] for name in MEANINGS},
        {name: found for name, found in intervals.items() if found is not None},
        _sign_bleu(),
    )


def score_bleu_and_rouge(replies: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return `bleu` and `rouge_l` without intervals."""
    sums = _count_rows(replies, references).sum(0)
    return {"bleu": _bleu_of(sums, 0), "rouge_l": _rouge_of(sums)}


def compare_with_references(replies: Sequence[str], references: Sequence[str]) -> dict[str, Outcome]:
    """Return, for the gate, what replies score row by row: BLEU, and shares of which more is better.

    `slots named` and `slots not invented` are 1 less the shares that MEANINGS has; `distinct` counts each of n equal replies as 1 / n.
    """
    rows, counted = _count_rows(replies, references), Counter(replies)
    missing, invented, slots = (rows[:, _OTHERS + at] for at in (2, 3, 4))
    found = {BLEU_OUTCOME: Outcome(rows[:, :_OF_BLEU], compute_bleu)}
    if slots.any():
        found |= {
            "slots named": of_ratio(slots - missing, slots),
            "slots not invented": of_ratio(slots - invented, slots),
        }
    return found | {"distinct": of_ratio([1 / counted[reply] for reply in replies], np.ones(len(replies)))}


def compute_bleu(sums: Array) -> Array:
    """Return sacrebleu's BLEU [...], 0 to 1, of counts [..., 10]: sequences found, all sequences (each by length), words, and the
    words of the references. Smoothing is sacrebleu's default (`exp`).
    """
    found, every = sums[..., :_ORDERS], sums[..., _ORDERS : 2 * _ORDERS]
    smoothed = np.where(found > 0, found, 0.5 ** np.cumsum(found == 0, -1))
    brevity = np.minimum(0, 1 - sums[..., -1] / np.maximum(sums[..., -2], 1))
    score = np.exp(brevity + np.log(smoothed / np.maximum(every, 1)).mean(-1))
    return np.where((every > 0).all(-1) & found.any(-1), score, 0.0)


def split_reply(reply: str) -> list[str]:
    """Return the words of a reply, a slot one word."""
    words, at = [], 0
    for found in SLOT.finditer(reply):
        words += [*_cut(reply[at : found.start()]), found[0]]
        at = found.end()
    return [*words, *_cut(reply[at:])]


def rouge_l(words: Sequence[str], reference: Sequence[str]) -> float:
    """Return F1 of the longest common subsequence, 0 to 1."""
    common = _longest_common(words, reference)
    return 2 * common / (len(words) + len(reference)) if common else 0.0


def _cut(text: str) -> Iterator[str]:
    return (text[start:end] for start, end in split_words(text))


def _make_bleu(*, lowercase: bool) -> BLEU:
    return BLEU(lowercase=lowercase, tokenize="none", force=True)


def _sign_bleu() -> str:
    """Return the signature of `bleu`, which sacrebleu knows after it has scored something."""
    metric = _make_bleu(lowercase=True)
    metric.corpus_score(["a"], [["a"]])
    return str(metric.get_signature())


def _count_rows(replies: Sequence[str], references: Sequence[str]) -> Array:
    lower, cased = _make_bleu(lowercase=True), _make_bleu(lowercase=False)
    return np.array([[*_count_row(lower, cased, *pair)] for pair in zip(replies, references, strict=True)])


def _count_row(lower: BLEU, cased: BLEU, reply: str, reference: str) -> Iterator[float]:
    """Yield what figures are sums of, in the order that `_FIGURES` reads it."""
    words, expected = split_reply(reply), split_reply(reference)
    for metric in (lower, cased):
        found = metric.corpus_score([" ".join(words)], [[" ".join(expected)]])
        yield from (*found.counts, *found.totals, found.sys_len, found.ref_len)
    said, wanted = Counter(list_slots(reply)), Counter(list_slots(reference))
    yield 1.0
    yield rouge_l([word.lower() for word in words], [word.lower() for word in expected])
    yield from ((wanted - said).total(), (said - wanted).total(), wanted.total(), len(words), len(expected))


_OF_BLEU: Final = 2 * _ORDERS + 2
_OTHERS: Final = 2 * _OF_BLEU


def _bleu_of(sums: Array, at: int) -> float:
    counts, totals = sums[at : at + _ORDERS], sums[at + _ORDERS : at + 2 * _ORDERS]
    lengths = (int(length) for length in sums[at + 2 * _ORDERS : at + _OF_BLEU])
    return float(BLEU.compute_bleu([*counts], [*totals], *lengths, smooth_method="exp").score)


def _ratio(sums: Array, part: int, whole: int) -> float | None:
    return float(sums[_OTHERS + part] / sums[_OTHERS + whole]) if sums[_OTHERS + whole] else None


def _rouge_of(sums: Array) -> float:
    return float(100 * sums[_OTHERS + 1] / sums[_OTHERS])


_FIGURES: Final[dict[str, Callable[[Array], float | None]]] = {
    "bleu": lambda sums: _bleu_of(sums, 0),
    "bleu_cased": lambda sums: _bleu_of(sums, _OF_BLEU),
    "rouge_l": _rouge_of,
    "slots_missing": lambda sums: _ratio(sums, 2, 4),
    "slots_invented": lambda sums: _ratio(sums, 3, 4),
    "length_ratio": lambda sums: _ratio(sums, 5, 6),
}


def _longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    row = [0] * (len(other) + 1)
    for word in one:
        before, row = row, [0]
        for at, each in enumerate(other):
            row.append(before[at] + 1 if word == each else max(before[at + 1], row[-1]))
    return row[-1]


def _sum_groups(rows: Array, groups: Sequence[Hashable] | None) -> Array:
    if groups is None:
        return rows
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    sums = np.zeros((len(numbers), rows.shape[1]))
    np.add.at(sums, [numbers[group] for group in groups], rows)
    return sums


def _resample(units: Array, seed: int) -> Array:
    """Return [RESAMPLES, K]: the sums over as many units as there are, drawn with replacement."""
    draws = np.random.default_rng(seed).multinomial(len(units), np.full(len(units), 1 / len(units)), size=RESAMPLES)
    return np.asarray(draws @ units)


def _interval(values: Sequence[float | None]) -> tuple[float, float] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)

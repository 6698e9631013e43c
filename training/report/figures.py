"""What the figures of a report mean, by name; kinds of tasks share them."""

from collections.abc import Mapping
from typing import Final

from ..kinds.kind import Kind

MEANINGS: Final[Mapping[str, str]] = {
    "rows": "texts of the set, without those that are out of scope",
    "served": "share of texts in scope that are answered with the right label, as a receiver gets it",
    "withheld": "share of texts in scope that are not answered",
    "out_of_scope_rows": "texts that are out of scope",
    "out_of_scope_recall": "share of texts out of scope that are not answered, at the same threshold",
    "accuracy": "forced choice: share of texts in scope whose best label in scope is right, answered or not",
    "probe_accuracy": "the same of logistic regression on the frozen encoder, fitted on the same training rows (at most 5,000)",
    "probe_micro_f1": "the same of logistic regressions on the frozen encoder, one for each label, fitted on the same training rows (at most 5,000), at the best threshold of the validation rows",
    "probe_f1": "the same of logistic regression on the frozen encoder's words, fitted on the same training rows (at most 2,000)",
    "macro_f1": "mean of the labels' F1, each label counts the same; for one label a text by forced choice",
    "ece": "expected calibration error: mean distance between the score of an answer and how often such answers are right, over 15 bins of as many answers each (fewer below 150 answers)",
    "out_of_scope_auroc": "how well the scores tell texts out of scope from others, at all thresholds; 0.5 is chance",
    "micro_f1": "F1 over all labels of all texts, at the thresholds",
    "exact": "share of texts with everything right",
    "false_labels_per_100_texts": "labels named that the text does not have",
    "spans": "spans that the texts have",
    "f1": "F1 of whole spans: right are those with the label and the words; spans behind max_tokens are missed",
    "f1_exact": "the same by characters, as a receiver gets them",
    "precision": "share of served spans that are right",
    "recall": "share of spans that are found",
    "false_spans_per_100_texts": "served spans that are not right",
    "most_common_bleu": "BLEU of the most common training reply, always",
    "most_common_rouge_l": "its ROUGE-L",
    "consensus_bleu": "BLEU of the training reply that has most in common with those of the 15 nearest contexts, of at most 5,000",
    "consensus_rouge_l": "its ROUGE-L",
    "template_bleu": "BLEU of the most common training reply to the same acts",
    "template_rouge_l": "its ROUGE-L",
}
NONE: Final = "none"
"""Stands for a figure that does not exist for these rows: an F1 where nothing was to be found and nothing was, say."""


def meanings_of(kind: Kind) -> Mapping[str, str]:
    """Return what the figures of a kind mean, by name."""
    return {**MEANINGS, **kind.meanings}


def rounded(figures: Mapping[str, float | None]) -> dict[str, float | None]:
    """Round shares to four places; counts become whole numbers."""
    return {name: None if value is None else _rounded(value) for name, value in figures.items()}


def _rounded(value: float) -> float:
    return int(value) if value == int(value) and value > 1 else round(value, 4)


def shown(value: float | None) -> str:
    """Return a rounded figure as text."""
    return NONE if value is None else f"{value:g}"

"""What every kind promises: a new one gets its suite by one line in CASES."""

from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from murmura.runtime.model.decoding import DECODERS
from murmura.schemas.manifest import TaskSpec
from murmura.training.answers import Answer
from murmura.training.data.example import Example, Span
from murmura.training.encoders import train_tokenizer
from murmura.training.kind_classification import calibration_error
from murmura.training.kind_tagging import bio
from murmura.training.kinds import KINDS

TEXTS = ["send money to new york today", "my card was stolen in rome", "hello"]
CASES: dict[str, list[Example]] = {
    "classification": [Example(TEXTS[0], ("a",)), Example(TEXTS[1], ("b",)), Example(TEXTS[2], ("c",))],
    "multi_label": [Example(TEXTS[0], ("a", "b")), Example(TEXTS[1], ("b",)), Example(TEXTS[2])],
    "tagging": [
        Example(TEXTS[0], spans=(Span(14, 22, "place"), Span(23, 28, "time"))),
        Example(TEXTS[1], spans=(Span(22, 26, "place"),)),
        Example(TEXTS[2]),
    ],
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, 120, lowercase=True)


def perfect(kind: str, tokenizer: Tokenizer) -> tuple[TaskSpec, list[Any], list[Any], list[Any]]:
    """Return spec, encodings, targets and logits that say exactly the targets."""
    examples, made = CASES[kind], KINDS[kind]
    spec = TaskSpec(name="t", kind=kind, labels=made.labels(examples))  # type: ignore[arg-type]
    index = {label: number for number, label in enumerate(spec.labels)}
    encodings = tokenizer.encode_batch([example.text for example in examples])
    targets = [made.target(e, enc, index) for e, enc in zip(examples, encodings, strict=True)]
    if kind == "multi_label":
        return spec, encodings, targets, [(t * 2 - 1) * 9 for t in targets]
    return spec, encodings, targets, [np.eye(len(spec.labels))[np.maximum(t, 0)] * 9 for t in targets]


def test_every_kind_has_a_case_and_a_decoder() -> None:
    assert set(CASES) == set(KINDS) == set(DECODERS)


@pytest.mark.parametrize("name", CASES)
class TestEveryKind:
    def test_true_logits_score_one(self, name: str, tokenizer: Tokenizer) -> None:
        spec, _, targets, logits = perfect(name, tokenizer)
        assert KINDS[name].metrics(logits, targets, spec)["main"] == 1.0

    def test_the_loss_is_near_zero_for_true_logits_and_larger_for_others(self, name: str, tokenizer: Tokenizer) -> None:
        _, _, targets, logits = perfect(name, tokenizer)
        width = max(len(t) if t.ndim else 1 for t in targets)
        target = KINDS[name].collate(targets, width)
        padded = logits
        if KINDS[name].per_token:
            padded = [np.pad(rows, ((0, width - len(rows)), (0, 0))) for rows in logits]
        good = KINDS[name].loss(torch.tensor(np.stack(padded)).float(), target, 0.0)
        bad = KINDS[name].loss(-torch.tensor(np.stack(padded)).float(), target, 0.0)
        assert good < 0.01 < bad
        assert KINDS[name].loss(torch.tensor(np.stack(padded)).float(), target, 0.1) > good

    def test_labels_come_sorted_whatever_the_order_of_rows(self, name: str) -> None:
        assert KINDS[name].labels(CASES[name]) == KINDS[name].labels(CASES[name][::-1])

    def test_a_label_that_is_not_known_is_named(self, name: str) -> None:
        stranger = Example("x", ("zz",), (Span(0, 1, "zz"),))
        assert KINDS[name].unknown(stranger, frozenset(KINDS[name].labels(CASES[name]))) == "zz"

    def test_what_the_runtime_decodes_from_true_logits_scores_one(self, name: str, tokenizer: Tokenizer) -> None:
        from murmura.runtime.model.decoding import Rows

        spec, encodings, _, logits = perfect(name, tokenizer)
        bounds = np.cumsum([0, *(len(rows) for rows in logits)])
        values = np.concatenate(logits) if spec.kind == "tagging" else np.stack(logits)
        outputs = DECODERS[name](spec)(Rows(values, bounds, encodings, TEXTS), spec.thresholds)
        answers = [Answer(*parts) for parts in zip(CASES[name], encodings, outputs, logits, strict=True)]
        figures = KINDS[name].score(answers, spec, None).figures
        assert figures[{"classification": "accuracy", "multi_label": "micro_f1", "tagging": "f1_strict"}[name]] == 1.0


def test_only_first_sub_tokens_carry_tags(tokenizer: Tokenizer) -> None:
    _, encodings, targets, _ = perfect("tagging", tokenizer)
    for encoding, tags in zip(encodings, targets, strict=True):
        words = [w for w in encoding.word_ids if w is not None]
        assert (tags != -100).sum() == len(set(words))


def test_a_word_that_a_span_touches_belongs_to_it() -> None:
    words = [(0, 2), (3, 6), (7, 11)]
    assert bio(words, [Span(4, 9, "p")]) == ["O", "B-p", "I-p"]
    assert bio(words, [Span(0, 2, "a"), Span(3, 6, "a")]) == ["B-a", "B-a", "O"]


def test_calibration_error_is_the_distance_of_score_and_accuracy() -> None:
    assert calibration_error(np.full(100, 0.9), np.arange(100) < 70) == pytest.approx(0.2)


def classified(scope: str | None) -> dict[str, float]:
    spec = TaskSpec(name="t", kind="classification", labels=["a", "b", "none"], out_of_scope=scope)
    logits = [np.array(row, float) for row in ([5, 0, 0], [0, 2, 4], [0, 0, 5], [0, 5, 0])]
    labels = ["a", "b", "none", "none"]
    outputs = [{"abstained": row.argmax() == 2, "score": 0.9} for row in logits]
    answers = [
        Answer(Example("x", (label,)), None, output, row)  # type: ignore[arg-type]
        for label, output, row in zip(labels, outputs, logits, strict=True)
    ]
    return KINDS["classification"].score(answers, spec, "none").figures


def test_accuracy_counts_the_best_label_in_scope_and_recall_the_withheld_others() -> None:
    figures = classified("none")
    assert figures["accuracy"] == 1.0
    assert (figures["served"], figures["withheld"]) == (0.5, 0.5)
    assert (figures["out_of_scope_rows"], figures["out_of_scope_recall"]) == (2, 0.5)

"""What every kind promises: a new one gets its suite by one line in CASES."""

from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from murmura.runtime.model.decoding import Rows
from murmura.runtime.model.kinds.registry import KINDS as SERVED
from murmura.runtime.model.kinds.registry import kind_of
from murmura.schemas.manifest import TaskSpec, Thresholds
from murmura.training.data.example import Example, Span
from murmura.training.kinds.answers import Answer
from murmura.training.kinds.figures.calibration_error import calibration_error, sample_calibration_error
from murmura.training.kinds.registry import KINDS
from murmura.training.model.encoders import train_tokenizer
from murmura.training.report.figures import MEANINGS

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

GENERATING = ["generation"]
"""A decoder has no logits for a text: see `test_generation`."""


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, 120, lowercase=True)


def perfect(kind: str, tokenizer: Tokenizer) -> tuple[TaskSpec, list[Any], list[Any], list[Any]]:
    """Return spec, encodings, targets and logits that say exactly the targets."""
    examples, made = CASES[kind], KINDS.get(kind)
    spec = TaskSpec(name="t", kind=kind, labels=made.labels(examples))  # type: ignore[arg-type]
    index = {label: number for number, label in enumerate(spec.labels)}
    encodings = tokenizer.encode_batch([example.text for example in examples])
    targets = [made.target(e, enc, index) for e, enc in zip(examples, encodings, strict=True)]
    if kind == "multi_label":
        return spec, encodings, targets, [(t * 2 - 1) * 9 for t in targets]
    return spec, encodings, targets, [np.eye(len(spec.labels))[np.maximum(t, 0)] * 9 for t in targets]


def test_every_kind_has_a_case_and_a_decoder() -> None:
    assert sorted([*CASES, *GENERATING]) == KINDS.names() == SERVED.names()


@pytest.mark.parametrize("name", CASES)
class TestEveryKind:
    def test_true_logits_score_one(self, name: str, tokenizer: Tokenizer) -> None:
        spec, _, targets, logits = perfect(name, tokenizer)
        assert KINDS.get(name).metrics(logits, targets, spec)["main"] == 1.0

    def test_the_loss_is_near_zero_for_true_logits_and_larger_for_others(self, name: str, tokenizer: Tokenizer) -> None:
        _, _, targets, logits = perfect(name, tokenizer)
        width = max(len(t) if t.ndim else 1 for t in targets)
        target = KINDS.get(name).collate(targets, width)
        padded = logits
        if KINDS.get(name).per_token:
            padded = [np.pad(rows, ((0, width - len(rows)), (0, 0))) for rows in logits]
        good = KINDS.get(name).loss(torch.tensor(np.stack(padded)).float(), target, 0.0)
        bad = KINDS.get(name).loss(-torch.tensor(np.stack(padded)).float(), target, 0.0)
        assert good < 0.01 < bad
        assert KINDS.get(name).loss(torch.tensor(np.stack(padded)).float(), target, 0.1) > good

    def test_labels_come_sorted_whatever_the_order_of_rows(self, name: str) -> None:
        assert KINDS.get(name).labels(CASES[name]) == KINDS.get(name).labels(CASES[name][::-1])

    def test_a_label_that_is_not_known_is_named(self, name: str) -> None:
        stranger = Example("x", ("zz",), (Span(0, 1, "zz"),))
        assert KINDS.get(name).unknown(stranger, frozenset(KINDS.get(name).labels(CASES[name]))) == "zz"

    def test_what_the_runtime_decodes_from_true_logits_scores_one(self, name: str, tokenizer: Tokenizer) -> None:

        spec, encodings, _, logits = perfect(name, tokenizer)
        bounds = np.cumsum([0, *(len(rows) for rows in logits)])
        values = np.concatenate(logits) if spec.kind == "tagging" else np.stack(logits)
        outputs = kind_of(spec).make_decoder(spec)(Rows(values, bounds, encodings, TEXTS), spec.thresholds)
        answers = [Answer(*parts) for parts in zip(CASES[name], encodings, outputs, logits, strict=True)]
        figures = KINDS.get(name).score(answers, spec, None).figures
        assert figures[{"classification": "accuracy", "multi_label": "micro_f1", "tagging": "f1_exact"}[name]] == 1.0


def test_only_first_sub_tokens_carry_tags(tokenizer: Tokenizer) -> None:
    _, encodings, targets, _ = perfect("tagging", tokenizer)
    for encoding, tags in zip(encodings, targets, strict=True):
        words = [w for w in encoding.word_ids if w is not None]
        assert (tags != -100).sum() == len(set(words))


def test_calibration_error_is_the_distance_of_score_and_accuracy() -> None:
    assert calibration_error(np.full(100, 0.9), np.arange(100) < 70) == pytest.approx(0.2)


def test_each_bin_of_the_calibration_error_has_as_many_answers_and_equal_scores_share_one() -> None:
    """In bins of equal width all of these would lie in the last one, where what is too sure and what is too unsure cancel out."""
    scores = np.r_[np.linspace(0.940, 0.942, 100), np.linspace(0.990, 0.992, 100)]
    right = np.r_[np.ones(100), np.tile([1, 1, 1, 1, 1, 1, 1, 1, 1, 0], 10)]
    assert abs(right.mean() - scores.mean()) < 0.02
    mixed = np.random.default_rng(0).permutation(200)
    assert calibration_error(scores[mixed], right[mixed]) == pytest.approx((0.059 + 0.091) / 2, abs=0.005)
    columns = sample_calibration_error(scores, right).columns
    assert columns.shape[1] == 3 * 15
    assert {13, 14} == {*columns.sum(0)[:15].astype(int)}
    tied = np.repeat([0.5, 0.9], [20, 280])
    assert calibration_error(tied, np.arange(300) % 10 != 0) == pytest.approx(20 / 300 * 0.4)


def test_few_answers_have_fewer_bins() -> None:
    draw = np.random.default_rng(0)
    scores = draw.random(45)
    columns = sample_calibration_error(scores, draw.random(45) < scores).columns
    assert columns.sum(0)[: columns.shape[1] // 3].tolist() == [11, 11, 11, 12]
    assert calibration_error(scores[:9], np.ones(9)) == pytest.approx(1 - scores[:9].mean())


def classify(logits: np.ndarray, labels: list[str], spec: TaskSpec) -> dict[str, float | None]:
    """Return the figures of what the real decoder makes of these logits; `none` means out of scope."""
    bounds, texts = np.arange(len(logits) + 1), ["x"] * len(logits)
    outputs = kind_of(spec).make_decoder(spec)(Rows(logits, bounds, [None] * len(logits), texts), spec.thresholds)  # type: ignore[list-item]
    answers = [
        Answer(Example("x", (label,)), None, output, row)  # type: ignore[arg-type]
        for label, output, row in zip(labels, outputs, logits, strict=True)
    ]
    return KINDS.get(spec.kind).score(answers, spec, "none").figures


def scoped(**thresholds: float) -> TaskSpec:
    labels = ["a", "b", "c", "none"]
    limits = Thresholds(**thresholds)
    return TaskSpec(name="t", kind="classification", labels=labels, out_of_scope="none", thresholds=limits)


FOUR = np.array([[5, 0, 0, 0], [0, 2, 0, 4], [0, 0, 0, 5], [0, 5, 0, 0]], float)


def test_a_report_begins_with_what_a_receiver_gets_and_has_the_forced_choice_beside_it() -> None:
    figures = classify(FOUR, ["a", "b", "none", "none"], scoped())
    assert list(figures)[:5] == ["rows", "served", "withheld", "out_of_scope_recall", "accuracy"]
    assert (figures["served"], figures["withheld"], figures["out_of_scope_recall"]) == (0.5, 0.5, 0.5)
    assert figures["accuracy"] == 1.0
    assert (figures["rows"], figures["out_of_scope_rows"]) == (2, 2)


def test_without_thresholds_served_is_the_forced_choice() -> None:
    spec = TaskSpec(name="t", kind="classification", labels=["a", "b", "c", "d"])
    figures = classify(FOUR, ["a", "b", "d", "d"], spec)
    assert figures["served"] == figures["accuracy"] == 0.5
    assert figures["withheld"] == 0.0


def calibrated(rows: int = 4000) -> tuple[np.ndarray, list[str]]:
    """Return logits whose softmax is the probability of the labels."""
    draw = np.random.default_rng(0)
    logits = draw.normal(0, 2, (rows, 4))
    odds = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return logits, [["a", "b", "c", "none"][draw.choice(4, p=row)] for row in odds]


@pytest.mark.parametrize("threshold", [0.02, 0.3, 0.6, None])
def test_a_calibrated_model_has_no_calibration_error_whatever_its_threshold(threshold: float | None) -> None:
    spec = scoped(**({} if threshold is None else {"out_of_scope": threshold}))
    assert classify(*calibrated(), spec)["ece"] < 0.03


def test_scores_that_are_too_high_have_a_calibration_error() -> None:
    logits, labels = calibrated()
    assert classify(logits * 4, labels, scoped(out_of_scope=0.3))["ece"] > 0.1


def test_rows_of_a_label_that_the_model_does_not_have_have_no_calibration() -> None:
    spec = TaskSpec(name="t", kind="classification", labels=["a", "b"], thresholds=Thresholds(accept=0.9))
    sure = np.array([[20.0, 0.0]] * 3)
    assert classify(sure, ["a", "a", "none"], spec)["ece"] == pytest.approx(0.0, abs=1e-6)
    assert classify(sure, ["none"] * 3, spec)["ece"] is None


def test_the_scores_of_several_labels_are_held_against_whether_the_text_has_them() -> None:
    spec = TaskSpec(name="t", kind="multi_label", labels=["a", "b"])
    draw = np.random.default_rng(0)
    logits = draw.normal(0, 2, (3000, 2))
    truth = draw.random((3000, 2)) < 1 / (1 + np.exp(-logits))
    rows = Rows(logits, np.arange(3001), [None] * 3000, ["x"] * 3000)  # type: ignore[list-item]
    made = [Example("x", tuple(np.array(["a", "b"])[row])) for row in truth]

    def figures(factor: float) -> dict[str, float | None]:
        given = Rows(rows.values * factor, rows.bounds, rows.encodings, rows.texts)
        outputs = kind_of(spec).make_decoder(spec)(given, spec.thresholds)
        answers = [Answer(e, None, o, r) for e, o, r in zip(made, outputs, given.values, strict=True)]  # type: ignore[arg-type]
        return KINDS.get("multi_label").score(answers, spec, None).figures

    assert figures(1.0)["ece"] < 0.03
    assert figures(4.0)["ece"] > 0.08


def test_texts_without_labels_have_no_f1() -> None:
    spec = TaskSpec(name="t", kind="multi_label", labels=["a", "b"])
    answer = Answer(Example("x"), None, {"kind": "multi_label", "labels": []}, np.array([-9.0, -9.0]))  # type: ignore[arg-type]
    figures = KINDS.get("multi_label").score([answer], spec, None).figures
    assert (figures["micro_f1"], figures["macro_f1"], figures["ece"]) == (None, None, None)
    assert (figures["exact"], figures["false_labels_per_100_texts"]) == (1.0, 0.0)


@pytest.mark.parametrize("name", CASES)
def test_every_figure_of_a_report_is_explained(name: str, tokenizer: Tokenizer) -> None:
    spec, encodings, _, logits = perfect(name, tokenizer)
    bounds = np.cumsum([0, *(len(rows) for rows in logits)])
    values = np.concatenate(logits) if spec.kind == "tagging" else np.stack(logits)
    outputs = kind_of(spec).make_decoder(spec)(Rows(values, bounds, encodings, TEXTS), spec.thresholds)
    answers = [Answer(*parts) for parts in zip(CASES[name], encodings, outputs, logits, strict=True)]
    for scope in (None, "c"):
        assert set(KINDS.get(name).score(answers, spec, scope).figures) <= set(MEANINGS)

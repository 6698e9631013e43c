"""What the report finds in answers beside their figures, on answers whose outcome is known."""

import numpy as np
import pytest
from tokenizers import Encoding

from murmura.schemas.manifest import TaskSpec
from murmura.training.data.example import Example
from murmura.training.evaluate.evaluate import score_answers
from murmura.training.kinds.answers import Answer
from murmura.training.kinds.classification import Classification
from murmura.training.kinds.examine import cover, divide, examine
from murmura.training.kinds.figures.findings import Choices, Events
from murmura.training.kinds.figures.intervals import auroc_interval, find_interval, sample_outcome, sample_shares
from murmura.training.kinds.figures.label_counts import count_labels, sample_macro_f1
from murmura.training.kinds.figures.outcome import of_ratio
from murmura.training.kinds.registry import KINDS

SPEC = TaskSpec(name="t", kind="classification", labels=["a", "b"])


def answered(label: str, said: str, score: float = 0.9, **meta: str) -> Answer:
    other = "b" if said == "a" else "a"
    output = {
        "label": said,
        "score": score,
        "abstained": False,
        "reason": None,
        "alternatives": [{"label": said, "score": score}, {"label": other, "score": 1 - score}],
    }
    odds = np.log([score, 1 - score] if said == "a" else [1 - score, score])
    return Answer(Example(f"{label}{said}" * (1 + len(meta)), (label,), meta=meta), Encoding(), output, odds)


def test_the_interval_of_a_share_is_wilsons_and_is_wide_where_all_rows_are_right() -> None:
    low, high = find_interval(sample_shares([True] * 90 + [False] * 10)) or (0, 0)
    assert (round(low, 4), round(high, 4)) == (0.8256, 0.9448)
    low, high = find_interval(sample_shares([True] * 10)) or (0, 0)
    assert (round(low, 3), round(high, 3)) == (0.722, 1.0)
    assert find_interval(sample_shares([])) is None


def test_the_interval_of_a_ratio_covers_nineteen_of_twenty_samples() -> None:
    draw, hits = np.random.default_rng(1), 0
    for _ in range(100):
        below = draw.integers(1, 4, 120)
        above = draw.binomial(below, 0.7)
        low, high = find_interval(sample_outcome(of_ratio(above, below))) or (0, 0)
        hits += low <= 0.7 <= high
    assert 88 <= hits <= 99


def test_the_interval_of_an_auroc_covers_nineteen_of_twenty_samples() -> None:
    draw, hits = np.random.default_rng(2), 0
    for _ in range(200):
        found = auroc_interval(draw.normal(0, 1, 60), draw.normal(1, 1, 40))
        assert found is not None
        hits += found.low <= 0.7602 <= found.high  # Phi(1 / sqrt(2))
    assert 180 <= hits <= 199
    assert auroc_interval(np.zeros(1), np.zeros(5)) is None


def test_macro_f1_of_drawn_rows_is_that_of_the_labels() -> None:
    figure = sample_macro_f1({("a", "a"): 6, ("a", "b"): 2, ("b", "b"): 2})
    assert figure.compute(figure.counts @ figure.columns) == pytest.approx((12 / 14 + 4 / 6) / 2)


def test_labels_are_counted_by_what_is_right_wrongly_named_and_missed() -> None:
    found = count_labels([("a", "a"), ("a", "b"), ("b", "b"), ("b", "b")])
    assert (found["a"].right, found["a"].wrong, found["a"].missed) == (1, 0, 1)
    assert (found["b"].right, found["b"].wrong, found["b"].missed) == (2, 1, 0)


def test_bins_hold_as_many_answers_each_and_equal_scores_together() -> None:
    bins = divide(Events(np.repeat([0.5, 0.9, 1.0], [10, 10, 80]), np.repeat([0.0, 1.0], [10, 90])))
    assert [(each.score, each.right, each.answers) for each in bins] == [
        (0.5, 0.0, 10),
        (pytest.approx(0.9), 1.0, 10),
        (1.0, 1.0, 80),
    ]


def test_coverage_goes_from_the_surest_answer_to_all_and_marks_what_is_given() -> None:
    found = cover(Choices(np.array([4.0, 3, 2, 1]), np.array([1.0, 1, 0, 1]), np.array([1.0, 1, 1, 0])))
    assert found is not None
    assert [(each.covered, round(each.right, 3)) for each in found.points] == [
        (0.25, 1.0),
        (0.5, 1.0),
        (0.75, 0.667),
        (1.0, 0.75),
    ]
    assert found.chosen == (0.75, pytest.approx(2 / 3))


def test_mistakes_confusions_and_slices_of_enough_rows_are_found() -> None:
    rows = [answered("a", "a", channel="app")] * 12 + [answered("a", "b", 0.7, channel="mail")] * 6
    rows += [answered("b", "b", channel="mail")] * 5 + [answered("b", "a", 0.99, channel="fax")] * 3
    found = examine(KINDS.get("classification"), rows, SPEC, None)
    assert found.confusions == [("a", "b", 6), ("b", "a", 3)]
    assert (found.wrong, len(found.mistakes)) == (9, 9)
    assert [(each.expected, each.answered, each.score) for each in found.mistakes[2:4]] == [
        ("b", "a", 0.99),
        ("a", "b", 0.7),
    ]
    slices = [(each.value, each.rows, round(each.metric, 3)) for each in found.slices if each.column == "channel"]
    assert slices == [("app", 12, 1.0), ("mail", 11, 0.455)]


def test_columns_of_one_value_or_of_too_many_are_no_slices() -> None:
    rows = [answered("a", "a", id=str(number), one="x", empty="") for number in range(40)]
    found = examine(KINDS.get("classification"), rows, SPEC, None)
    assert not [each for each in found.slices if each.from_rows]


def test_a_kind_that_cannot_say_more_keeps_its_score(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(Classification, "detail", lambda *_: 1 / 0)
    score = score_answers([answered("a", "a")], SPEC, None, said.append)
    assert (score.figures["accuracy"], score.findings) == (1.0, None)
    assert said == ["note: report.html shows no details of t: ZeroDivisionError: division by zero"]

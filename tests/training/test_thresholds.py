import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from murmura.training.thresholds import label_threshold, temperature_of, temperature_of_labels, withholding_threshold

SHARES = st.lists(st.floats(0, 0.999), min_size=1, max_size=50)


def test_a_clear_gap_is_cut_in_its_middle() -> None:
    assert withholding_threshold([0.1, 0.2], [0.8, 0.9], None) == pytest.approx(0.5)


@given(SHARES, SHARES, st.floats(0, 0.9))
def test_no_more_of_the_genuine_are_flagged_than_allowed(inner: list[float], outer: list[float], most: float) -> None:
    cut = withholding_threshold(inner, outer, most)
    rounding = 1e-4
    assert sum(score >= cut + rounding for score in inner) / len(inner) <= most + 1e-9


@given(SHARES, SHARES)
def test_the_balanced_cut_is_never_worse_than_withholding_nothing(inner: list[float], outer: list[float]) -> None:
    cut = withholding_threshold(inner, outer, None)
    rounding = 1e-4
    caught = sum(score >= cut - rounding for score in outer) / len(outer)
    flagged = sum(score >= cut + rounding for score in inner) / len(inner)
    assert caught >= flagged - 1e-9


def overconfident(factor: float) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    logits = draw.normal(0, 2, (4000, 4))
    odds = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return logits * factor, np.array([draw.choice(4, p=row) for row in odds])


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.5])
def test_the_temperature_undoes_over_and_underconfidence(factor: float) -> None:
    assert temperature_of(*overconfident(factor)).temperature == pytest.approx(factor, rel=0.08)


def test_the_temperature_of_labels_does_too() -> None:
    draw = np.random.default_rng(0)
    logits = draw.normal(0, 2, (3000, 3))
    truth = (draw.random((3000, 3)) < 1 / (1 + np.exp(-logits))).astype(float)
    assert temperature_of_labels(logits * 2, truth).temperature == pytest.approx(2, rel=0.08)


def test_the_label_threshold_maximises_micro_f1() -> None:
    logits = np.array([[-1.0], [-0.9], [-3.0], [-3.1]])
    chosen = label_threshold(logits, np.array([[1.0], [1.0], [0.0], [0.0]]), temperature_of_labels(logits, logits > -2))
    scores = 1 / (1 + np.exp(-logits))
    assert chosen < scores[:2].min()

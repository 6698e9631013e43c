"""Thresholds are judged by what the real decoders decide with them, not by their numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from murmura.runtime.model.decoding import Rows, score_labels, sigmoid
from murmura.runtime.model.kinds.registry import kind_of
from murmura.schemas.manifest import BetaCalibration, Calibration, TaskSpec, Thresholds
from murmura.training.kinds.calibration import (
    accept_threshold,
    beta_of_labels,
    label_threshold,
    served_scores,
    temperature_of,
    withholding_threshold,
)
from murmura.training.kinds.figures.calibration_error import calibration_error

# Logits of one doubtful class against the rest: scores from 1e-9 to 1 - 1e-9, with ties.
LOGIT = st.one_of(st.floats(-20, 20), st.sampled_from([-20.0, -9.0, 0.0, 9.0, 20.0]))
LOGITS = st.lists(LOGIT, min_size=1, max_size=40)
LIMIT = st.one_of(st.none(), st.floats(0, 0.9))


def serve(logits: np.ndarray, spec: TaskSpec) -> list[dict]:
    bounds = np.arange(len(logits) + 1)
    return kind_of(spec).make_decoder(spec)(
        Rows(logits, bounds, [None] * len(logits), ["x"] * len(logits)), spec.thresholds
    )


def withheld_out_of_scope(doubts: list[float], cut: float) -> np.ndarray:
    """Return which rows the decoder withholds as out of scope."""
    spec = TaskSpec(
        name="t",
        kind="classification",
        labels=["a", "b", "none"],
        out_of_scope="none",
        thresholds=Thresholds(out_of_scope=cut),
    )
    return np.array([output["reason"] == "out_of_scope" for output in serve(three_logits(doubts), spec)])


def three_logits(doubts: list[float]) -> np.ndarray:
    return np.array([[0.0, -3.0, doubt] for doubt in doubts])


def doubt_scores(doubts: list[float]) -> list[float]:
    return served_scores(three_logits(doubts), Calibration())[:, 2].tolist()


def withheld_below_accept(margins: list[float], least: float) -> np.ndarray:
    spec = TaskSpec(name="t", kind="classification", labels=["a", "b"], thresholds=Thresholds(accept=least))
    return np.array([output["abstained"] for output in serve(two_logits(margins), spec)])


def two_logits(margins: list[float]) -> np.ndarray:
    return np.array([[abs(margin), 0.0] for margin in margins])


def best_scores(margins: list[float]) -> list[float]:
    return served_scores(two_logits(margins), Calibration()).max(-1).tolist()


def choose_out_of_scope(genuine: list[float], others: list[float], most: float | None) -> tuple[np.ndarray, np.ndarray]:
    cut = withholding_threshold(doubt_scores(genuine), doubt_scores(others), most)
    return withheld_out_of_scope(genuine, cut), withheld_out_of_scope(others, cut)


def choose_accept(genuine: list[float], others: list[float], most: float | None) -> tuple[np.ndarray, np.ndarray]:
    least = accept_threshold(best_scores(genuine), best_scores(others), most)
    return withheld_below_accept(genuine, least), withheld_below_accept(others, least)


CHOICES = pytest.mark.parametrize("choose", [choose_out_of_scope, choose_accept])


@CHOICES
@given(genuine=LOGITS, others=LOGITS, most=st.floats(0, 0.9))
def test_no_more_genuine_texts_are_withheld_than_allowed_wherever_that_is_possible(
    choose, genuine: list[float], others: list[float], most: float
) -> None:
    flagged, _ = choose(genuine, others, most)
    fewest = choose(genuine, others, 0.0)[0].mean()
    assert flagged.mean() <= max(most, fewest) + 1e-9


@CHOICES
@given(genuine=LOGITS, others=LOGITS, most=LIMIT)
def test_never_is_everything_withheld_where_the_scores_differ_at_all(
    choose, genuine: list[float], others: list[float], most: float | None
) -> None:
    flagged, _ = choose(genuine, others, most)
    scores = doubt_scores(genuine) if choose is choose_out_of_scope else best_scores(genuine)
    assert not flagged.all() or len(set(scores)) == 1


@CHOICES
@given(genuine=LOGITS, others=LOGITS)
def test_the_balanced_cut_is_never_worse_than_withholding_nothing_and_withholds_nothing_when_it_gains_nothing(
    choose, genuine: list[float], others: list[float]
) -> None:
    flagged, caught = choose(genuine, others, None)
    certain = doubt_scores(genuine) if choose is choose_out_of_scope else [1 - s for s in best_scores(genuine)]
    if max(certain) < 1:  # a genuine text with a score of 1 is withheld by every threshold
        assert caught.mean() >= flagged.mean()
        assert caught.mean() > flagged.mean() or not flagged.any()


@CHOICES
@given(genuine=LOGITS, others=LOGITS, limits=st.tuples(st.floats(0, 0.9), st.floats(0, 0.9)))
def test_a_looser_limit_never_catches_fewer(
    choose, genuine: list[float], others: list[float], limits: tuple[float, float]
) -> None:
    _, tight = choose(genuine, others, min(limits))
    _, loose = choose(genuine, others, max(limits))
    assert loose.sum() >= tight.sum()


def test_a_well_fitted_out_of_scope_class_does_not_withhold_everything() -> None:
    genuine = [-14.0 + i / 20 for i in range(100)]
    flagged, caught = choose_out_of_scope(genuine, [-10.4, 2.0, 3.0], None)
    assert flagged.mean() < 0.5
    assert caught.all()


def test_a_sure_model_does_not_withhold_everything() -> None:
    genuine = [11.6 + i / 100 for i in range(100)]
    flagged, caught = choose_accept(genuine, [11.0, 0.3, 1.0], None)
    assert not flagged.any()
    assert caught.all()


def test_a_limit_that_no_threshold_keeps_withholds_as_few_as_possible() -> None:
    flagged, _ = choose_out_of_scope([-2.0, -1.0, 30.0], [0.0, 2.0], 0.0)
    assert flagged.tolist() == [False, False, True]


def test_scores_that_tell_nothing_apart_withhold_nothing() -> None:
    same = [-3.0, 0.0, 3.0]
    assert not choose_out_of_scope(same, same, None)[0].any()
    assert not choose_accept([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], None)[0].any()


def test_a_clear_gap_is_cut_in_its_middle() -> None:
    assert withholding_threshold([0.1, 0.2], [0.8, 0.9], None) == pytest.approx(0.5)
    assert accept_threshold([0.8, 0.9], [0.1, 0.2], None) == pytest.approx(0.5)


def overconfident(factor: float, rows: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 2, (rows, 4))
    odds = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return logits * factor, np.array([draw.choice(4, p=row) for row in odds])


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.5])
def test_the_temperature_undoes_over_and_underconfidence(factor: float) -> None:
    assert temperature_of(*overconfident(factor)).temperature == pytest.approx(factor, rel=0.08)


def test_a_temperature_of_few_rows_stays_near_one() -> None:
    logits, _ = overconfident(1.0, rows=6)
    assert 0.5 < temperature_of(logits, logits.argmax(-1)).temperature < 1
    found = [temperature_of(*overconfident(1.0, rows=5, seed=seed)).temperature for seed in range(60)]
    assert min(found) > 0.5
    assert max(found) < 2


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("low", "high", "shift"), [(0.5, 0.5, 0.0), (1.0, 0.5, -0.5), (0.7, 1.4, 0.4)])
def test_a_beta_calibration_of_labels_finds_both_slopes_and_the_shift(
    low: float, high: float, shift: float, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    logits = draw.normal(-1, 3, (4000, 5))
    real = high * np.logaddexp(0, logits) - low * np.logaddexp(0, -logits) + shift
    truth = (draw.random(real.shape) < 1 / (1 + np.exp(-real))).astype(float)
    found = beta_of_labels(logits, truth)
    assert (found.beta.low, found.beta.high) == pytest.approx((low, high), rel=0.15)
    assert found.beta.shift == pytest.approx(shift, abs=0.2)
    assert score_labels(logits, found) == pytest.approx(1 / (1 + np.exp(-real)), abs=0.03)


def test_named_labels_are_as_sure_as_they_are_right_where_most_labels_are_rare() -> None:
    """One temperature for all of them leaves those that are named too sure: most of what it sees is far below one half."""
    draw = np.random.default_rng(0)
    logits = draw.normal(-4, 3, (4000, 28))
    real = 0.5 * np.logaddexp(0, logits) - 0.85 * np.logaddexp(0, -logits) - 0.15
    truth = draw.random(real.shape) < 1 / (1 + np.exp(-real))
    half = np.arange(4000) < 2000
    scores = score_labels(logits[~half], beta_of_labels(logits[half], truth[half].astype(float)))
    named = scores > 0.4
    assert calibration_error(scores[named], truth[~half][named]) < 0.02
    before = 1 / (1 + np.exp(-logits[~half]))
    assert calibration_error(before[before > 0.4], truth[~half][before > 0.4]) > 0.1


def test_a_beta_calibration_of_few_rows_stays_near_the_scores_as_they_are() -> None:
    sure = np.array([[8.0], [-8.0]])
    found = beta_of_labels(sure, sure > 0).beta
    assert 1 < found.low < 2
    assert 1 < found.high < 2
    assert abs(found.shift) < 0.2
    draw = np.random.default_rng(0)
    for _ in range(30):
        logits = draw.normal(0, 2, (5, 3))
        found = beta_of_labels(logits, (draw.random((5, 3)) < 1 / (1 + np.exp(-logits))).astype(float)).beta
        assert 0.4 < found.low < 2.5
        assert 0.4 < found.high < 2.5
        assert abs(found.shift) < 1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_equal_slopes_without_a_shift_are_a_temperature(temperature: float) -> None:
    logits = np.linspace(-30, 30, 601)[:, None]
    beta = BetaCalibration(low=1 / temperature, high=1 / temperature, shift=0.0)
    by_temperature = score_labels(logits, Calibration(temperature=temperature))
    assert score_labels(logits, Calibration(beta=beta)) == pytest.approx(by_temperature, abs=1e-12)


def named(logits: np.ndarray, cut: float) -> np.ndarray:
    labels = [f"l{number}" for number in range(logits.shape[1])]
    spec = TaskSpec(name="t", kind="multi_label", labels=labels, thresholds=Thresholds(label=cut))
    found = [{item["label"] for item in output["labels"]} for output in serve(logits, spec)]
    return np.array([[label in each for label in labels] for each in found])


def micro_f1(guess: np.ndarray, truth: np.ndarray) -> float:
    return 2 * (guess & truth).sum() / max(1, guess.sum() + truth.sum())


CELLS = st.lists(st.tuples(LOGIT, LOGIT, st.booleans(), st.booleans()), min_size=1, max_size=20)


@given(CELLS)
def test_no_label_threshold_serves_a_better_micro_f1(rows: list[tuple[float, float, bool, bool]]) -> None:
    logits, truth = np.array([row[:2] for row in rows]), np.array([row[2:] for row in rows])
    cut = label_threshold(logits, truth, Calibration())
    others = [other for other in np.unique(np.round(sigmoid(logits), 7)) if other > 0]
    assert cut > 0
    best = max((micro_f1(named(logits, other), truth) for other in others), default=0.0)
    assert micro_f1(named(logits, cut), truth) >= best - 1e-12


@pytest.mark.parametrize("far", [1.0, 3.0, 8.0])
def test_labels_that_are_told_apart_are_cut_at_one_half(far: float) -> None:
    logits = np.array([[far], [far + 1], [-far], [-far - 1]])
    assert label_threshold(logits, logits > 0, Calibration()) == pytest.approx(0.5, abs=1e-6)


def test_the_label_threshold_lies_between_the_two_where_scores_are_low() -> None:
    logits = np.array([[-1.0], [-0.9], [-3.0], [-3.1]])
    assert named(logits, label_threshold(logits, logits > -2, Calibration())).ravel().tolist() == [
        True,
        True,
        False,
        False,
    ]


def test_of_equally_good_label_thresholds_the_one_nearest_to_one_half_is_taken() -> None:
    scores = np.array([[0.9], [0.7], [0.6], [0.1]])
    truth = np.array([[True], [False], [False], [True]])
    assert label_threshold(np.log(scores / (1 - scores)), truth, Calibration()) == pytest.approx(0.8)


def test_without_a_row_that_has_a_label_the_label_threshold_is_one_half() -> None:
    logits = np.random.default_rng(0).normal(-3, 1, (20, 3))
    assert label_threshold(logits, np.zeros((20, 3)), Calibration()) == 0.5

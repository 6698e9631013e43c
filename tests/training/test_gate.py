"""The gate's statistics, without a model."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from murmura.training.data.example import Example
from murmura.training.data.near_texts import near_form
from murmura.training.gate.held_out import conversations_of
from murmura.training.gate.report import to_markdown
from murmura.training.gate.statistics import Difference, compare, mcnemar, smallest_loss
from murmura.training.gate.verdict import (
    FAMILY_ERROR,
    Compared,
    Comparison,
    GateResult,
    Lift,
    Verdict,
    from_json,
    holm,
    judge,
    judge_target,
)
from murmura.training.kinds.figures.outcome import Outcome, of_accuracy, of_f1

counts = st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=60)


def f1(rows: list[tuple[int, int, int]]) -> Outcome:
    return of_f1(*zip(*rows, strict=True))


@settings(max_examples=30, deadline=None)
@given(rows=counts, strict=st.booleans())
def test_identical_models_are_neither_better_nor_worse(rows, strict):
    found = compare(f1(rows), f1(rows), resamples=200, sign_flips=200)
    assert (found.difference, found.low, found.high, found.discordant) == (0, 0, 0, 0)
    assert (found.p_worse, found.p_better) == (1, 1)
    assert judge([Compared("a", "test", found)], strict=strict)[0].verdict is Verdict.HELD
    assert judge_target("a", "feedback", found, least_rows=1).verdict is Verdict.UNPROVEN


@settings(max_examples=30, deadline=None)
@given(rows=counts, seed=st.integers(0, 9))
def test_the_same_seed_gives_the_same_figures_and_exchanging_the_models_turns_the_sign(rows, seed):
    other = [(hit, extra + 1, missed) for hit, extra, missed in rows]
    found = compare(f1(rows), f1(other), resamples=200, sign_flips=200, seed=seed)
    assert compare(f1(rows), f1(other), resamples=200, sign_flips=200, seed=seed) == found
    turned = compare(f1(other), f1(rows), resamples=200, sign_flips=200, seed=seed)
    assert turned.difference == -found.difference
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), min_size=2, max_size=80), st.lists(st.booleans(), min_size=2, max_size=80))
def test_the_difference_lies_within_what_two_accuracies_can_differ_by(left, right):
    size = min(len(left), len(right))
    found = compare(of_accuracy(left[:size]), of_accuracy(right[:size]), resamples=200)
    assert -1 <= found.low <= found.high <= 1
    assert found.difference == pytest.approx(np.mean(right[:size]) - np.mean(left[:size]))


def accuracy(rows: int, lost: int = 0, won: int = 0, **options) -> Difference:
    """Compare two models that are right on half the rows, of which some are lost and others won."""
    before = np.arange(rows) < rows // 2
    after = before.copy()
    after[:lost] = False
    after[rows // 2 : rows // 2 + won] = True
    return compare(of_accuracy(before), of_accuracy(after), **options)


def corrected(rows: int, right: int, *, lift: Lift | None = None, least_rows: int = 10) -> Comparison:
    found = compare(of_accuracy([False] * rows), of_accuracy([n < right for n in range(rows)]))
    return judge_target("intent", "feedback, corrected", found, least_rows=least_rows, lift=lift)


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_p_of_mcnemar_is_the_exact_tail_of_the_binomial(wins, losses):
    trials = wins + losses
    exact = Fraction(sum(comb(trials, k) for k in range(wins + 1)), 2**trials)
    assert mcnemar(wins, losses) == pytest.approx(float(exact), rel=1e-9)


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (9, 2), (3, 12), (20, 20)])
def test_exchanging_answers_by_row_agrees_with_the_exact_test(lost, won):
    """Two of a conversation's rows that are right or wrong together make the same test as one row."""
    exact = accuracy(100, lost, won)
    before = np.arange(100) < 50
    after = before.copy()
    after[:lost] = False
    after[50 : 50 + won] = True
    both = [of_accuracy(np.repeat(each, 2)) for each in (before, after)]
    flipped = compare(*both, list(np.arange(200) // 2))
    assert (exact.exact, flipped.exact) == (True, lost + won == 0)
    assert (flipped.conversations, flipped.discordant) == (100, lost + won)
    assert flipped.p_worse == pytest.approx(exact.p_worse, abs=0.015)
    assert flipped.p_better == pytest.approx(exact.p_better, abs=0.015)


@pytest.mark.parametrize(("lost", "won"), [(9, 2), (3, 12)])
def test_the_test_is_exact_where_no_conversation_changes_by_more_than_one_row(lost, won):
    before = np.repeat(np.arange(100) < 50, 2)
    after = before.copy()
    after[0 : 2 * lost : 2] = False
    after[100 : 100 + 2 * won : 2] = True
    found, alone = compare(of_accuracy(before), of_accuracy(after), list(np.arange(200) // 2)), accuracy(100, lost, won)
    assert found.exact
    assert (found.p_worse, found.p_better) == (alone.p_worse, alone.p_better)


def answers_to(texts: list[Example], draw: np.random.Generator) -> Difference:
    """Compare two models that are exchangeable: each answers a text right with a chance of 0.8, wherever it stands."""
    right = {near_form(example.text): draw.random(2) < 0.8 for example in texts}
    before, after = zip(*(right[near_form(example.text)] for example in texts), strict=True)
    return compare(of_accuracy(before), of_accuracy(after), conversations_of(texts), resamples=20, sign_flips=2000)


def repeated_texts() -> list[Example]:
    spellings = ("i lost card {}", "I lost  card {}", "I LOST CARD {} ")
    return [Example(spellings[n % 3].format(n // 10)) for n in range(300)]


def conversations_with_greetings() -> list[Example]:
    """Forty conversations of eight texts, of which half are among five that all have."""
    texts = [f"Hello {n % 5}" if n % 2 else f"own {n}" for n in range(320)]
    return [Example(text, meta={"conversation": f"c{n // 8}"}) for n, text in enumerate(texts)]


@pytest.mark.parametrize("make", [repeated_texts, conversations_with_greetings])
def test_models_that_lost_nothing_are_seldom_refused_where_texts_stand_several_times(make):
    """Of 200 runs 5 % are refused on average, 20 in one case of a hundred thousand; by row or conversation alone 60."""
    draw, texts = np.random.default_rng(0), make()
    results = [judge([Compared("a", "test", answers_to(texts, draw))])[0] for _ in range(200)]
    assert sum(each.verdict is Verdict.WORSE for each in results) <= 20


def test_a_text_counts_in_the_conversation_of_its_first_row():
    rows = [("Hello", "c1"), ("my card", "c1"), (" hello", "c2"), ("a loan", "c2"), ("HELLO", None), ("thanks", None)]
    found = conversations_of([Example(text, meta={"conversation": name}) for text, name in rows])
    assert found == ["c1", "c1", "c1", "c2", "c1", b"thanks"]
    assert conversations_of([Example("one"), Example("two")]) is None


def test_rows_of_one_conversation_are_no_evidence_of_their_own():
    """Sixty rows are lost, all of two conversations: by rows that is certain, by conversations it may be chance."""
    before, after = [True] * 600, [False] * 60 + [True] * 540
    rows = compare(of_accuracy(before), of_accuracy(after))
    conversations = compare(of_accuracy(before), of_accuracy(after), [n // 30 for n in range(600)])
    assert rows.p_worse < 1e-9
    assert conversations.p_worse == pytest.approx(0.25, abs=0.02)
    assert conversations.high - conversations.low > 2 * (rows.high - rows.low)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_its_step_down_procedure_rejects(p_values):
    order = sorted(p_values)
    rejected = 0
    while rejected < len(order) and order[rejected] <= FAMILY_ERROR / (len(order) - rejected):
        rejected += 1
    adjusted = holm(p_values)
    assert sum(p <= FAMILY_ERROR for p in adjusted) == rejected
    assert all(p <= q for p, q in zip(p_values, adjusted, strict=True))
    assert sorted(adjusted) == [q for _, q in sorted(zip(p_values, adjusted, strict=True))]


def test_what_is_worse_in_one_set_alone_may_be_chance_among_twenty():
    lost = Compared("a", "own", accuracy(200, lost=8, won=1))
    (alone,) = judge([lost])
    first, *_ = judge([lost, *(Compared("a", f"set {n}", accuracy(200, 3, 3)) for n in range(19))])
    assert (alone.verdict, first.verdict) == (Verdict.WORSE, Verdict.HELD)
    assert first.p == pytest.approx(20 * alone.p)
    assert first.detectable > alone.detectable


def test_strict_is_not_corrected_for_the_number_of_sets():
    sets = [Compared("a", f"set {n}", accuracy(200, 3, 3)) for n in range(20)]
    assert {each.verdict for each in judge(sets, strict=True)} == {Verdict.WORSE}
    assert {each.verdict for each in judge(sets)} == {Verdict.HELD}


@pytest.mark.parametrize(("rows", "changed"), [(60, 0), (60, 6), (1000, 60), (1000, 120)])
def test_the_smallest_detectable_loss_is_found_in_eight_of_ten_draws_and_a_smaller_one_is_not(rows, changed):
    wins = changed // 2
    found = accuracy(rows, changed - wins, wins)
    level = FAMILY_ERROR / 20
    loss = smallest_loss(found, level, 0.005)
    lost = round(loss * rows)
    draw = np.random.default_rng(1)

    def share_found(lost: int) -> float:
        trials = max(changed, lost)
        drawn = draw.binomial(trials, (trials - lost) / (2 * trials), size=2000)
        return np.mean([mcnemar(w, trials - w) <= level and (trials - 2 * w) / rows > 0.005 for w in drawn.tolist()])

    assert share_found(lost) >= 0.78
    assert share_found(max(0, lost - max(2, lost // 6))) < 0.8


def test_a_set_too_small_to_show_any_loss_says_so():
    assert smallest_loss(accuracy(8), FAMILY_ERROR / 20, 0.005) is None
    (only,) = judge([Compared("a", "own", accuracy(4))])
    assert only.detectable is None
    assert "| – | 1 | held |" in to_markdown(GateResult((only,)), {})


def test_a_clearly_better_target_passes_and_a_clearly_worse_task_refuses():
    better = corrected(40, 38)
    (worse,) = judge([Compared("mood", "test", accuracy(80, lost=38))])
    assert (better.verdict, worse.verdict) == (Verdict.BETTER, Verdict.WORSE)
    assert GateResult((better,)).passed
    both = GateResult((better, worse))
    assert not both.passed
    assert both.reason.startswith("mood (test) is worse: -47.50 points [-58.")


def test_the_pairing_finds_a_small_loss_that_is_no_chance():
    """20 of 2,000 rows lost and none won: two independent samples would call it noise."""
    found = accuracy(2000, lost=20)
    assert judge([Compared("a", "test", found)])[0].verdict is Verdict.WORSE
    assert judge([Compared("a", "test", found, 0.02)])[0].verdict is Verdict.HELD


def test_one_row_of_a_small_set_decides_nothing_unless_the_gate_is_strict():
    sets = [Compared("a", "own", accuracy(100, lost=1))]
    assert judge(sets)[0].verdict is Verdict.HELD
    assert judge(sets, strict=True)[0].verdict is Verdict.WORSE


@pytest.mark.parametrize(
    ("rows", "right", "least_rows", "says"),
    [
        (9, 9, 10, "9 of 9 corrected rows are right now, at least 10 rows are needed"),
        (40, 5, 10, "5 of 40 corrected rows are right now, the versions differ on 5, at least 6 are needed"),
    ],
)
def test_a_target_with_few_rows_proves_nothing(rows, right, least_rows, says):
    result = GateResult((corrected(rows, right, least_rows=least_rows),))
    assert not result.passed
    assert says in result.reason


@pytest.mark.parametrize(
    ("right", "flipped", "passes"), [(25, 11, False), (26, 11, True), (45, 31, False), (46, 31, True)]
)
def test_corrections_must_exceed_what_flips_without_feedback_by_thirty_points(right, flipped, passes):
    """Of fifty rows; of fifty others that nobody corrected the candidate is right on some, too."""
    result = GateResult((corrected(50, right, lift=Lift(flipped, 50, 0.3)),))
    assert result.passed is (right - flipped >= 15)
    assert result.passed is passes
    if not passes:
        assert f"so are {flipped} of 50 rows that nobody corrected: at least 30 points more" in result.reason


def test_a_model_that_learned_nothing_does_not_pass_by_flips_alone():
    assert not GateResult((corrected(100, 22, lift=Lift(22, 100, 0.3)),)).passed


def test_without_a_target_nothing_passes():
    result = GateResult(tuple(judge([Compared("a", "test", accuracy(10))])))
    assert result.reason == "there are no held-out rows of the target"


def test_the_report_and_the_json_say_the_same():
    sets = judge([Compared("mood", "test", accuracy(200, 4, 3), versions=7)])
    result = GateResult((*sets, corrected(60, 50, lift=Lift(6, 40, 0.3))), ("places is not compared",))
    again = from_json(result.to_json())
    assert again == result
    assert (again.passed, again.reason) == (True, "")
    shown = to_markdown(result, {"model": "desk"})
    assert "# Gate: passed" in shown
    assert "- places is not compared" in shown
    assert "| mood | test | 200 | 7 | 50.00 | 49.50 | -0.50 |" in shown
    assert "| 7 | held |" in shown
    assert "| intent | feedback, corrected | 60 | 50 (83 %) | < 0.001 | 6 of 40 (15 %) | 45 % | better |" in shown
    assert "accuracy" not in shown[shown.index("## Corrected") :].replace("This is no accuracy", "")


def test_models_that_saw_other_rows_are_not_compared():
    with pytest.raises(ValueError, match="the same rows for both"):
        compare(of_accuracy([True]), of_accuracy([True, False]))

"""Rows held back for validation: what belongs together, what stays learnable, how many, and that it is the same again."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from murmura.training.data.near_texts import near_form
from murmura.training.prepare.splits import hold_back, units_of

words = st.sampled_from(
    [
        "card",
        "Card",
        "CARD ",
        " card",
        "ｃａｒｄ",
        "money",
        "Money",
        "lost",
        "lost  it",
        "Lost it",
        "x",
        "straße",
        "STRASSE",
    ]
)
texts = st.one_of(words, st.integers(0, 200).map(lambda n: f"text {n}"))
label_sets = st.frozensets(st.sampled_from("abcdefg"), max_size=3)
groups = st.one_of(st.none(), st.integers(0, 30))
data_sets = st.lists(st.tuples(texts, label_sets, groups), min_size=1, max_size=120)
shares = st.floats(0.02, 0.6)


def held(rows, share, seed=1):
    units = units_of(
        [text for text, _, _ in rows],
        [labels for _, labels, _ in rows],
        [() if g is None else (g,) for _, _, g in rows],
        seed,
    )
    return hold_back(units, share)


@settings(deadline=None)
@given(data_sets, shares, st.integers(0, 3))
def test_no_near_duplicate_and_no_group_lies_on_both_sides(rows, share, seed):
    chosen = held(rows, share, seed)
    for what in (lambda row: near_form(row[0]), lambda row: row[2]):
        inside = {what(rows[at]) for at in chosen} - {None}
        assert inside.isdisjoint(what(row) for at, row in enumerate(rows) if at not in chosen)


@settings(deadline=None)
@given(data_sets, shares)
def test_every_label_is_trained_on(rows, share):
    chosen = held(rows, share)
    trained = {label for at, (_, labels, _) in enumerate(rows) for label in labels if at not in chosen}
    assert trained == {label for _, labels, _ in rows for label in labels}
    assert len(chosen) < len(rows)


@settings(deadline=None)
@given(data_sets, shares)
def test_something_is_held_back_wherever_every_label_stays_learnable(rows, share):
    if held(rows, share):
        return
    units = units_of(
        [row[0] for row in rows], [row[1] for row in rows], [() if row[2] is None else (row[2],) for row in rows], 1
    )
    count = Counter(label for unit in units for label in unit.labels)
    assert all(any(count[label] == 1 for label in unit.labels) for unit in units)


@settings(deadline=None)
@given(data_sets, shares, st.randoms(use_true_random=False))
def test_the_same_rows_are_held_back_in_whichever_order_they_stand(rows, share, draw):
    shuffled = rows.copy()
    draw.shuffle(shuffled)
    assert Counter(rows[at] for at in held(rows, share)) == Counter(shuffled[at] for at in held(shuffled, share))


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=20, max_size=400), shares)
def test_of_rows_that_stand_alone_each_label_gives_its_share_to_a_row_and_all_give_the_share_exactly(labels, share):
    rows = [(f"text {at}", frozenset({str(label)}), None) for at, label in enumerate(labels)]
    chosen = held(rows, share)
    count, taken = Counter(labels), Counter(labels[at] for at in chosen)
    lone = sum(many == 1 for many in count.values())  # never held back: others stand in for them
    for label, many in count.items():
        assert share * many - 1 < taken[label] < share * many + 1 + lone
    learnable = sum(many - 1 for many in count.values())
    assert abs(len(chosen) - max(1, round(share * len(rows)))) <= lone or len(chosen) == learnable


@settings(deadline=None, max_examples=50)
@given(st.integers(20, 60), st.integers(1, 12), st.floats(0.05, 0.5), st.integers(0, 5))
def test_of_conversations_so_many_are_held_back_that_no_other_comes_nearer_than_half_a_conversation(
    count, longest, share, seed
):
    draw = random.Random(seed)
    rows = [
        (f"turn {number} {turn}", frozenset({draw.choice("abc")}), number)
        for number in range(count)
        for turn in range(draw.randint(1, longest))
    ]
    assert abs(len(held(rows, share)) - share * len(rows)) <= longest / 2 + 1


def test_another_seed_holds_back_other_rows():
    rows = [(f"text {n}", frozenset({"ab"[n % 2]}), None) for n in range(200)]
    assert held(rows, 0.1, seed=1) != held(rows, 0.1, seed=2)


@pytest.mark.parametrize("times", [2, 5])
def test_a_file_in_which_each_text_stands_several_times_leaves_none_on_both_sides(times):
    rows = [(f"text {n % 100}", frozenset({"ab"[n % 2]}), None) for n in range(100 * times)]
    chosen = held(rows, 0.1)
    assert len(chosen) == 10 * times
    assert {rows[at][0] for at in chosen}.isdisjoint(rows[at][0] for at in range(len(rows)) if at not in chosen)

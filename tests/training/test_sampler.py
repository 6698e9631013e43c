import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murmura.training.sampler import bucketed, plan, shares, steps_by_task

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=300)


@given(LENGTHS, st.integers(1, 40), st.integers())
def test_every_row_is_in_exactly_one_batch(lengths: list[int], size: int, seed: int) -> None:
    batches = bucketed(lengths, size, random.Random(seed))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert all(len(batch) <= size for batch in batches)


def test_batches_hold_texts_of_like_length() -> None:
    lengths = [random.Random(0).randint(4, 60) for _ in range(3200)]
    batches = bucketed(lengths, 32, random.Random(1))
    tokens = sum(lengths)
    padded = sum(len(batch) * max(lengths[row] for row in batch) for batch in batches)
    assert padded < 1.1 * tokens


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=6), st.integers(1, 3000))
def test_steps_follow_the_shares_and_add_up(rows: list[int], total: int) -> None:
    parts = shares(rows, [1.0] * len(rows), 1.0)
    steps = steps_by_task(total, parts)
    assert all(count >= 1 for count in steps)
    assert sum(steps) in range(total, total + len(rows) + 1)
    assert all(abs(count - max(1, total * part)) <= 1 for count, part in zip(steps, parts, strict=True))


def test_temperature_makes_tasks_alike() -> None:
    assert shares([100, 10_000], [1, 1], 1) == pytest.approx([0.0099, 0.9901], abs=1e-4)
    assert shares([100, 10_000], [1, 1], 2) == pytest.approx([1 / 11, 10 / 11])
    assert shares([100, 10_000], [1, 1], 1e9) == pytest.approx([0.5, 0.5])


def test_a_sampling_weight_counts_like_rows() -> None:
    assert shares([100, 100], [3, 1], 1) == [0.75, 0.25]


@given(LENGTHS, st.integers(1, 8), st.integers(1, 60), st.integers())
def test_no_row_comes_twice_before_all_came_once(lengths: list[int], size: int, steps: int, seed: int) -> None:
    seen = [row for _, batch in plan([lengths], [steps], size, seed) for row in batch]
    counts = {row: seen.count(row) for row in range(len(lengths))}
    # The order of the batches is shuffled as a whole, so only the counts can be compared.
    assert max(counts.values()) - min(counts.values()) <= 1


def test_the_plan_is_the_same_for_the_same_seed_and_mixes_the_tasks() -> None:
    lengths = [[5] * 320, [9] * 640]
    first = plan(lengths, [10, 20], 32, 7)
    assert first == plan(lengths, [10, 20], 32, 7)
    assert first != plan(lengths, [10, 20], 32, 8)
    tasks = [task for task, _ in first]
    assert (tasks.count(0), tasks.count(1)) == (10, 20)
    assert len(set(tasks[:15])) == 2

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murmura.training.compute.sampler import count_rows, divide, divide_with_least, plan, rows_by_task, shares
from murmura.training.recipe.weights import Sampling

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=300)


@given(LENGTHS, LENGTHS, st.integers(1, 40), st.integers(1, 900), st.integers())
def test_every_row_comes_once_before_any_comes_again(
    one: list[int], other: list[int], size: int, read: int, seed: int
) -> None:
    steps = plan([one, other], [read, 7], size, seed)
    for task, lengths in enumerate((one, other)):
        seen = [row for step in steps for at, rows in step if at == task for row in rows]
        assert len(seen) == (read, 7)[task]
        for start in range(0, len(seen), len(lengths)):
            epoch = seen[start : start + len(lengths)]
            assert len(set(epoch)) == len(epoch)


def test_the_texts_of_a_step_are_of_like_length() -> None:
    draw = random.Random(0)
    lengths = [[draw.randint(4, 60) for _ in range(count)] for count in (3200, 900)]
    steps = plan(lengths, [6400, 1800], 32, 1)
    widths = [[lengths[task][row] for task, rows in step for row in rows] for step in steps]
    assert sum(len(texts) * max(texts) for texts in widths) < 1.15 * sum(sum(texts) for texts in widths)


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=6), st.integers(1, 64))
def test_a_step_has_batch_size_rows_and_the_shares_are_exact_over_the_run(rows: list[int], size: int) -> None:
    counts = list(divide(rows, size))
    assert [sum(count) for count in counts[:-1]] == [size] * (len(counts) - 1)
    assert [sum(count[task] for count in counts) for task in range(len(rows))] == rows
    done = [0] * len(rows)
    for step, count in enumerate(counts, 1):
        done = [before + more for before, more in zip(done, count, strict=True)]
        exact = [total * min(1.0, step * size / sum(rows)) for total in rows]
        assert all(abs(a - b) < len(rows) for a, b in zip(done, exact, strict=True))


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=6), st.integers(1, 90_000))
def test_rows_follow_the_shares_and_add_up(rows: list[int], total: int) -> None:
    parts = shares(rows, [1.0] * len(rows), 1.0)
    counts = rows_by_task(total, parts)
    assert all(count >= 1 for count in counts)
    assert sum(counts) in range(total, total + len(rows) + 1)
    assert all(abs(count - max(1, total * part)) <= 1 for count, part in zip(counts, parts, strict=True))


def test_temperature_makes_tasks_alike() -> None:
    assert shares([100, 10_000], [1, 1], 1) == pytest.approx([0.0099, 0.9901], abs=1e-4)
    assert shares([100, 10_000], [1, 1], 2) == pytest.approx([1 / 11, 10 / 11])
    assert shares([100, 10_000], [1, 1], 1e9) == pytest.approx([0.5, 0.5])


def test_a_sampling_weight_counts_like_rows() -> None:
    assert shares([100, 100], [3, 1], 1) == [0.75, 0.25]


def test_a_small_task_misses_steps() -> None:
    steps = plan([[5] * 320, [9] * 8], [320, 8], 32, 7)
    assert [len(step) for step in steps].count(1) == 3
    assert len(steps) == 11


def test_the_plan_is_the_same_for_the_same_seed() -> None:
    lengths = [[5] * 320, [9] * 640]
    first = plan(lengths, [320, 640], 32, 7)
    assert first == plan(lengths, [320, 640], 32, 7)
    assert first != plan(lengths, [320, 640], 32, 8)


def test_few_rows_are_not_sorted_so_that_short_and_long_labels_meet() -> None:
    lengths = [5] * 48 + [20] * 48
    for step in plan([lengths], [960], 32, 3):
        ((_, rows),) = step
        assert len({lengths[row] for row in rows}) == 2


@given(st.lists(st.integers(1, 900), min_size=1, max_size=5), st.integers(1, 3), st.integers(0, 40))
def test_every_step_has_the_least_rows_of_every_task(rows: list[int], least: int, more: int) -> None:
    size = least * len(rows) + more
    counts = list(divide_with_least(rows, size, least))
    assert len(counts) == -(-sum(rows) // size)
    assert all(min(count) >= least for count in counts)
    assert all(sum(count) == size for count in counts[:-1])
    assert sum(map(sum, counts)) == max(sum(rows), (len(counts) - 1) * size + least * len(rows))


def read_rows(method: Sampling, rows: list[int], least: int = 0) -> list[list[int]]:
    return count_rows(method, sum(rows), rows, [1.0] * len(rows), 20, least)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (Sampling(), [100, 900]),
        (Sampling(method="equal"), [500, 500]),
        (Sampling(method="temperature"), [250, 750]),
        (Sampling(method="temperature", temperature=1), [100, 900]),
    ],
)
def test_a_method_of_sampling_divides_the_rows_of_the_run(method: Sampling, expected: list[int]) -> None:
    counts = read_rows(method, [100, 900])
    assert [sum(count[task] for count in counts) for task in range(2)] == expected


@pytest.mark.parametrize("least", [0, 1])
def test_annealed_sampling_begins_proportional_and_ends_nearly_equal(least: int) -> None:
    counts = read_rows(Sampling(method="annealed"), [100, 1900], least)
    first, last = ([sum(count[task] for count in part) for task in range(2)] for part in (counts[:10], counts[-10:]))
    assert first == [10, 190]
    assert last == [pytest.approx(200 / (1 + 19**0.2), abs=1), pytest.approx(200 / (1 + 19**-0.2), abs=1)]
    assert [sum(count) for count in counts] == [20] * 100

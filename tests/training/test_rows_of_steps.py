import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murmura.training.compute.dealing import StepRows, deal, plan
from murmura.training.compute.sampler import count_rows, divide, divide_with_least, rows_by_task, shares
from murmura.training.recipe.keys.weights import Sampling

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


TASKS = st.lists(
    st.tuples(st.lists(st.integers(0, 200), min_size=1, max_size=150, unique=True), st.integers(0, 600)),
    min_size=2,
    max_size=4,
)


@given(TASKS, st.integers(1, 40), st.integers())
def test_tasks_that_have_texts_in_common_read_the_rows_that_they_should(
    tasks: list[tuple[list[int], int]], size: int, seed: int
) -> None:
    texts = [own for own, _ in tasks]
    counts = list(divide([read for _, read in tasks], size)) if any(read for _, read in tasks) else []
    steps = deal([[1 + text % 9 for text in own] for own in texts], counts, seed, texts)
    for task, (own, read) in enumerate(tasks):
        by_step = [[row for at, rows in step if at == task for row in rows] for step in steps]
        assert [len(rows) for rows in by_step] == [count[task] for count in counts]
        seen = [row for rows in by_step for row in rows]
        assert len(seen) == read
        least, more = divmod(read, len(own))
        assert sorted(seen.count(row) for row in range(len(own))) == [least] * (len(own) - more) + [least + 1] * more


def shared_share(steps: list[StepRows], texts: list[list[int]], task: int, other: int) -> float:
    """Return the share of a task's rows whose texts the other task reads in the same step."""
    read = shared = 0
    for step in (dict(each) for each in steps):
        beside = {texts[other][row] for row in step.get(other, [])}
        read += len(step.get(task, []))
        shared += sum(texts[task][row] in beside for row in step.get(task, []))
    return shared / read


@pytest.mark.parametrize(
    ("passes", "kept", "expected"),
    [
        ((3, 3), 1.0, 0.95),  # two columns of one file
        ((3, 3), 0.9, 0.85),  # rows without the second label
        ((8, 2), 1.0, 0.9),  # fewer passes over one of them
    ],
)
def test_a_text_of_two_tasks_is_read_in_one_step_of_both(passes: tuple[int, int], kept: float, expected: float) -> None:
    draw = random.Random(1)
    texts = [list(range(4000)), [text for text in range(4000) if draw.random() < kept]]
    lengths_of = [draw.randint(4, 60) for _ in range(4000)]
    lengths = [[lengths_of[text] for text in own] for own in texts]
    counts = list(divide([times * len(own) for times, own in zip(passes, texts, strict=True)], 32))
    steps = deal(lengths, counts, 3, texts)
    assert shared_share(steps, texts, 1, 0) > expected
    assert shared_share(deal(lengths, counts, 3), texts, 1, 0) < 0.1
    widths = [[lengths[task][row] for task, rows in step for row in rows] for step in steps]
    assert sum(len(own) * max(own) for own in widths) < 1.15 * sum(map(sum, widths))


def test_rows_of_one_text_do_not_come_together() -> None:
    texts = [[*range(900), *range(1000, 1100)], [*range(900), *range(1000, 1100)]]
    steps = deal([[5] * 1000, [5] * 1000], list(divide([1000, 1000], 40)), 0, texts)
    same = [sum(row >= 900 for task, rows in step if task == 0 for row in rows) for step in steps]
    assert max(same) < 10


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

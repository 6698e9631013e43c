"""The rows of replies: whatever joins, grows and leaves, each row holds its own reply and nothing of another."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from murmura.runtime.model.replies.slot_table import MASKED, Memory, Sizes, SlotTable

SIZES = Sizes(layers=2, heads=2, head_size=3, pieces=5, reply=40, source=70)


def memory(seed: int, length: int) -> Memory:
    random = np.random.default_rng(seed)
    return Memory(*(random.normal(size=(2, length, 6)).astype(np.float32) for _ in range(2)))


def outputs(seeds: list[int]) -> dict[str, np.ndarray]:
    draws = [np.random.default_rng(seed) for seed in seeds]
    new = {
        f"new_{part}_{i}": np.array([d.normal(size=6) for d in draws], np.float32)
        for i in (0, 1)
        for part in ("key", "value")
    }
    return new | {"next": np.array([seed % 5 for seed in seeds])}


class Mirror:
    """What a row should hold, kept the simple way."""

    def __init__(self, seed: int, length: int) -> None:
        self.source, self.steps = memory(seed, length), []

    def check(self, feeds: dict[str, np.ndarray], row: int) -> None:
        at, length = len(self.steps), self.source.keys.shape[1]
        assert feeds["position"][row] == at
        assert feeds["piece"][row] == (self.steps[-1]["next"][0] if at else 5)
        for what, count in (("reply", at), ("source", length)):
            bias = feeds[f"{what}_bias"][row, 0, 0]
            assert bias.tolist() == [0.0] * count + [MASKED] * (len(bias) - count)
        for i in range(2):
            assert np.array_equal(
                feeds[f"source_keys_{i}"][row, ..., :length],
                self.source.keys[i].reshape(length, 2, 3).transpose(1, 2, 0),
            )
            assert np.array_equal(
                feeds[f"source_values_{i}"][row, :, :length],
                self.source.values[i].reshape(length, 2, 3).transpose(1, 0, 2),
            )
            keys = np.array([step[f"new_key_{i}"][0] for step in self.steps]).reshape(at, 2, 3)
            values = np.array([step[f"new_value_{i}"][0] for step in self.steps]).reshape(at, 2, 3)
            assert np.array_equal(feeds[f"reply_keys_{i}"][row, ..., :at], keys.transpose(1, 2, 0))
            assert np.array_equal(feeds[f"reply_values_{i}"][row, :, :at], values.transpose(1, 0, 2))
            assert not feeds[f"reply_keys_{i}"][row, ..., at:].any()
            assert not feeds[f"source_values_{i}"][row, :, length:].any()


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["add", "step", "step", "row", "release"]), st.integers(1, 70)), max_size=70))
def test_rows_hold_their_own_replies(actions):
    table, rows = SlotTable(SIZES, 4), []
    for number, (action, value) in enumerate(actions):
        if action == "add" and len(rows) < 4:
            assert table.add(memory(number, value)) == len(rows)
            rows.append(Mirror(number, value))
        elif action == "step" and rows and all(len(row.steps) < SIZES.reply for row in rows):
            seeds = [1000 * number + row for row in range(max(len(rows), 2))]
            table.write_all(outputs(seeds))
            for row, seed in zip(rows, seeds, strict=False):
                row.steps.append(outputs([seed]))
        elif action == "row" and rows and len(rows[value % len(rows)].steps) < SIZES.reply:
            table.write(value % len(rows), outputs([number]), 0)
            rows[value % len(rows)].steps.append(outputs([number]))
        elif action == "release" and rows:
            at = value % len(rows)
            moved = table.release(at)
            last = rows.pop()
            assert moved == (None if at == len(rows) else len(rows))
            if moved is not None:
                rows[at] = last
        assert table.count == len(rows)
        feeds = table.feeds()
        assert all(len(array) == max(2, len(rows)) for array in feeds.values())
        assert all(array.flags.c_contiguous for array in feeds.values())
        assert table.bytes <= table.max_bytes
        for row, mirror in enumerate(rows):
            mirror.check(feeds, row)
            mirror.check(table.feeds_of(row), 1)


def test_a_full_table_takes_no_more():
    table = SlotTable(SIZES, 1)
    table.add(memory(0, 3))
    with pytest.raises(ValueError, match="all 1 rows are in use"):
        table.add(memory(1, 3))


def test_rows_are_as_wide_as_the_longest_text_needs_and_narrow_again():
    table = SlotTable(SIZES, 3)
    widths = []
    table.add(memory(0, 5))
    widths.append(table.feeds()["source_bias"].shape[-1])
    table.add(memory(1, 70))
    widths.append(table.feeds()["source_bias"].shape[-1])
    table.release(1)
    widths.append(table.feeds()["source_bias"].shape[-1])
    assert widths == [16, 70, 16]

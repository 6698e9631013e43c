"""The index of latest values: what it keeps, and what leaves."""

from murmura.console.reading.bounded_index import ENTRY_BYTES, BoundedIndex


def test_the_oldest_leave_when_there_are_too_many():
    index: BoundedIndex[str, int] = BoundedIndex(2, 10**6)
    assert [index.put(key, number, 1) for number, key in enumerate("abc")] == [[], [], [0]]
    assert (list(index.newest()), len(index), index.dropped, index.get("a")) == ([2, 1], 2, 1, None)


def test_the_oldest_leave_when_they_are_too_large_even_the_new_one():
    index: BoundedIndex[str, str] = BoundedIndex(100, 1000 + 2 * ENTRY_BYTES)
    index.put("a", "small", 400)
    assert index.put("b", "larger", 700) == ["small"]
    assert index.put("c", "too large", 5000) == ["larger", "too large"]
    assert (len(index), index.bytes) == (0, 0)


def test_a_key_that_comes_again_is_counted_once_and_one_that_is_removed_not_at_all():
    index: BoundedIndex[str, str] = BoundedIndex(100, 10**6)
    index.put("a", "first", 100)
    index.put("b", "other", 100)
    index.put("a", "second", 50)
    assert (list(index.newest()), index.bytes) == (["other", "second"], 150 + 2 * ENTRY_BYTES)
    assert (index.remove("b"), index.remove("b"), index.bytes) == ("other", None, 50 + ENTRY_BYTES)

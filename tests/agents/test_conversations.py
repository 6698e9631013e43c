"""What is kept of conversations: the newest state, so many of them, until they expire; never one that is under way."""

import asyncio
import json

import pytest

from murmura.agents.dialogue.conversations import ENDINGS, QUIET_S, Conversations
from murmura.runtime.errors import Closed
from murmura.runtime.testing.fakes import ManualClock

HOUR = 3_600_000


def state(number: int, at: int = 0) -> bytes:
    return json.dumps({"number": number, "source": {"timestamp": at}, "more": ["x"]}).encode()


def make(most: int = 100) -> tuple[Conversations, ManualClock]:
    clock = ManualClock()
    return Conversations(most, HOUR, clock), clock


async def number(kept: Conversations, key: bytes, partition: int = 0) -> int | None:
    found = await kept.enter((partition, key))
    kept.leave((partition, key))
    return found.number if found else None


async def test_the_later_state_counts_a_tombstone_ends_and_a_late_write_of_a_zombie_does_not():
    kept, _ = make()
    for key, value in [
        (b"a", state(1)), (b"a", state(2)), (b"b", state(4)), (b"b", None), (b"c", state(9)), (b"c", state(7)),
        (b"d", state(5)), (b"d", None), (b"d", state(1)),
    ]:  # fmt: skip
        kept.restore(0, key, value)
    assert [await number(kept, key) for key in (b"a", b"b", b"c", b"d")] == [2, None, 9, 1]
    assert (len(kept), kept.unreadable) == (3, 0)


@pytest.mark.parametrize("bad", [b"", b"\xff", b"{", b"[]", b"{}", b'{"number": "x"}', b"[" * 100_000])
async def test_a_state_that_cannot_be_read_ends_its_conversation_and_no_other(bad):
    kept, _ = make()
    kept.restore(0, b"a", state(3))
    kept.restore(0, b"b", state(3))
    kept.restore(0, b"a", bad)
    kept.restore(0, None, state(1))
    assert [await number(kept, key) for key in (b"a", b"b")] == [None, 3]
    assert kept.unreadable == 2


async def test_reading_the_log_twice_gives_the_same():
    kept, _ = make()
    records = [(b"a", state(5)), (b"a", None), (b"a", state(1)), (b"b", state(2))]
    for key, value in records * 2:
        kept.restore(0, key, value)
    assert [await number(kept, b"a"), await number(kept, b"b")] == [1, 2]


async def test_beyond_the_limit_of_a_partition_the_one_silent_for_longest_goes():
    kept, _ = make(most=2)
    for partition in (0, 1):
        for n in range(2):
            kept.put((partition, b"%d" % n), b"{}", 1, n)
    kept.put((0, b"0"), b"{}", 2, 5)
    assert kept.take_ended(0) == []
    kept.put((0, b"new"), b"{}", 1, 6)
    assert kept.take_ended(0) == [(0, b"1")]
    assert kept.take_ended(1) == []


async def test_restored_conversations_stand_in_the_order_in_which_they_fell_silent():
    kept, _ = make(most=1)
    kept.restore(0, b"late", state(1, at=50))
    kept.restore(0, b"early", state(1, at=20))
    kept.restore(0, b"of the future", state(1, at=10**15))
    kept.finish_restore(now_ms=100)
    assert kept.take_ended(0) == [(0, b"early"), (0, b"late")]


async def test_expired_conversations_end_a_few_at_a_time_by_the_partitions_own_time():
    kept, clock = make()
    for n in range(ENDINGS + 3):
        kept.restore(0, b"%d" % n, state(1, at=n))
    kept.restore(1, b"elsewhere", state(1, at=0))
    kept.finish_restore(now_ms=100 * HOUR)
    clock.advance(QUIET_S + 1)
    kept.put((0, b"x"), b"{}", 1, HOUR)
    assert kept.take_ended(0) == []  # nothing is older than an hour by what has been said
    kept.put((0, b"x"), b"{}", 2, 2 * HOUR)
    assert len(kept.take_ended(0)) == ENDINGS
    assert len(kept.take_ended(0)) == 3
    assert len(kept) == 2


async def test_what_was_touched_a_moment_ago_does_not_expire():
    """Turns that waited in an outage are handled together: the times between them mean nothing here."""
    kept, clock = make()
    kept.put((0, b"a"), b"{}", 1, 0)
    kept.put((0, b"b"), b"{}", 1, 3 * HOUR)
    assert kept.take_ended(0) == []
    clock.advance(QUIET_S + 1)
    assert kept.take_ended(0) == [(0, b"a")]


async def test_a_conversation_under_way_does_not_end():
    kept, clock = make(most=1)
    await kept.enter((0, b"a"))
    kept.put((0, b"a"), b"{}", 1, 0)
    kept.put((0, b"b"), b"{}", 1, 9 * HOUR)
    clock.advance(QUIET_S + 1)
    assert (0, b"a") not in kept.take_ended(0)
    kept.leave((0, b"a"))
    kept.put((0, b"b"), b"{}", 2, 9 * HOUR)
    assert kept.take_ended(0) == [(0, b"a")]


async def entering_an_ended_one():
    """Two conversations where one may be kept: the first was ended, and its next turn waits for the tombstone."""
    kept, _ = make(most=1)
    kept.put((0, b"a"), b"{}", 1, 0)
    kept.put((0, b"b"), b"{}", 1, 1)
    ended = kept.take_ended(0)
    entering = asyncio.create_task(kept.enter((0, b"a")))
    await asyncio.sleep(0.01)
    return kept, ended, entering


async def test_an_ended_conversation_is_not_begun_anew_before_its_tombstone_is_written():
    kept, ended, entering = await entering_an_ended_one()
    assert not entering.done()
    kept.mark_acknowledged(ended)
    assert await entering is None


def at(number: int, offset: int, time: int, newest: int = 0) -> bytes:
    source = {"topic": "turns", "partition": 0, "offset": offset, "timestamp": time}
    return json.dumps({"number": number, "source": source, "newest": newest}).encode()


@pytest.mark.parametrize(
    ("written", "newest", "late"),
    [
        ([at(1, 1, 1), at(2, 2, 2)], 2, False),
        ([at(5, 5, 5), at(6, 6, 6), at(7, 7, 7), at(5, 5, 5)], 7, True),
        # A zombie's last state comes after the conversation was forgotten and begun anew.
        ([at(9, 90, 90), None, at(1, 100, 100), at(10, 95, 95), at(2, 101, 101), at(3, 102, 102)], 3, False),
        ([at(9, 90, 90), None, at(1, 100, 100), at(10, 95, 95)], 1, True),
        ([at(9, 90, 90), None, at(9, 90, 90), at(1, 100, 100)], 1, False),
        # The topic of turns was made anew: its offsets begin again, numbers and times do not.
        ([at(7, 700, 70), at(8, 3, 80)], 8, False),
        # The sender's clock goes back and forth.
        ([at(1, 1, 9, 9), at(2, 2, 5, 9), at(1, 1, 9, 9)], 2, True),
        ([at(1, 1, 9, 9), at(2, 2, 5, 9), at(3, 3, 7, 9), at(2, 2, 5, 9)], 3, True),
    ],
)
async def test_the_newest_state_is_found_and_written_again_where_an_older_one_follows(written, newest, late):
    for times in (1, 2):  # the second time as after an error in mid-reading
        kept, _ = make()
        for value in written * times:
            kept.restore(0, b"a", value)
        again = kept.finish_restore(now_ms=1000)
        assert await number(kept, b"a") == newest
        assert [place for place, _ in again] == ([(0, b"a")] if late else [])
        assert all(json.loads(value)["number"] == newest for _, value in again)


async def test_what_was_given_up_is_not_entered_again():
    kept, ended, entering = await entering_an_ended_one()
    kept.give_up([(0, b"b"), *ended])
    for place in (b"a", b"b"):
        with pytest.raises(Closed):
            await (entering if place == b"a" else kept.enter((0, place)))

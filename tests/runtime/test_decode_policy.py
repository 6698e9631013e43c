"""When replies join and leave, and which turn is next: rules without a clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murmura.runtime.model.replies.decode_policy import DecodePolicy, Turn


def test_replies_join_first_come_first_served_as_rows_become_free():
    policy = DecodePolicy[str](max_rows=2)
    for key in "abcd":
        policy.add(key)
    assert [*policy.admit()] == ["a", "b"]
    assert [*policy.admit()] == []
    policy.retire("a")
    assert [*policy.admit()] == ["c"]
    policy.retire("d")
    policy.retire("b")
    assert [*policy.admit()] == []
    assert (policy.live, policy.waiting) == (1, 0)


def test_a_reply_is_dropped_from_its_deadline_on_wherever_it_is():
    policy = DecodePolicy[str](max_rows=1)
    policy.add("live", deadline=5.0)
    policy.add("waiting", deadline=6.0)
    policy.add("patient")
    assert [*policy.admit()] == ["live"]
    assert policy.drop_late(4.9) == []
    assert policy.drop_late(6.0) == ["live", "waiting"]
    assert [*policy.admit()] == ["patient"]


def test_at_most_two_steps_come_between_two_passes_while_texts_wait():
    policy = DecodePolicy[str](max_rows=4)
    policy.add("a")
    turns = [policy.choose(texts_wait=True) for _ in range(7)]
    assert turns == [Turn.STEP, Turn.STEP, Turn.PASS, Turn.STEP, Turn.STEP, Turn.PASS, Turn.STEP]


def test_steps_go_on_while_no_text_waits_and_a_text_that_comes_is_next():
    policy = DecodePolicy[str](max_rows=4)
    policy.add("a")
    assert [policy.choose(texts_wait=False) for _ in range(5)] == [Turn.STEP] * 5
    assert policy.choose(texts_wait=True) is Turn.PASS
    policy.retire("a")
    assert policy.choose(texts_wait=True) is Turn.PASS
    assert policy.choose(texts_wait=False) is Turn.IDLE


@pytest.mark.parametrize(("rows", "steps"), [(0, 2), (4, 0)])
def test_a_policy_without_rows_or_steps_is_refused(rows, steps):
    with pytest.raises(ValueError, match="expected a row and a step or more"):
        DecodePolicy(max_rows=rows, steps_between_passes=steps)


def test_a_reply_that_is_there_already_is_refused():
    policy = DecodePolicy[str](max_rows=4)
    policy.add("a")
    with pytest.raises(ValueError, match="reply 'a' is there already"):
        policy.add("a")


@given(st.lists(st.tuples(st.sampled_from(["add", "retire", "admit", "late", "turn"]), st.integers(0, 9)), max_size=60))
def test_never_more_replies_than_rows_and_none_is_lost_or_answered_twice(actions):
    policy, known, live = DecodePolicy[int](max_rows=3), set(), set()
    for number, (action, value) in enumerate(actions):
        if action == "add":
            policy.add(number, deadline=float(value) if value % 2 else None)
            known.add(number)
        elif action == "retire" and known:
            gone = sorted(known)[value % len(known)]
            policy.retire(gone)
            known.discard(gone)
            live.discard(gone)
        elif action == "admit":
            admitted = [*policy.admit()]
            assert not live & {*admitted}
            live |= {*admitted}
        elif action == "late":
            late = policy.drop_late(float(value))
            assert {*late} <= known
            known -= {*late}
            live -= {*late}
        else:
            assert (policy.choose(texts_wait=False) is Turn.STEP) == bool(known)
        assert len(live) == policy.live <= 3
        assert policy.live + policy.waiting == len(known)

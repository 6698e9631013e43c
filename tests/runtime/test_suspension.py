"""The rule of suspended agents, by arithmetic alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from murmura.runtime.kafka.offset_tracker import OpenParts, Progress
from murmura.runtime.output.suspension import Suspension, SuspensionLimits, Suspensions

LIMITS = SuspensionLimits(max_waiting=3, max_waiting_bytes=100, first_pause_s=1.0, longest_pause_s=4.0, latest=10)


def suspended(limits=LIMITS, now=0.0):
    agent = Suspension(limits)
    assert agent.suspend("topic out is missing", now)
    return agent


def parts(held):
    return [item.part for item in held]


def test_an_agent_is_suspended_once_more_than_half_of_its_latest_records_fail():
    agent = Suspension(LIMITS)
    assert [agent.note(failed=True) for _ in range(6)] == [False] * 5 + [True]


def test_records_that_lie_too_far_back_do_not_count():
    agent = Suspension(LIMITS)
    for _ in range(5):
        agent.note(failed=True)
    for _ in range(10):
        agent.note(failed=False)
    assert [agent.note(failed=True) for _ in range(6)] == [False] * 5 + [True]


def test_after_it_has_resumed_earlier_failures_do_not_count():
    agent = Suspension(LIMITS)
    for _ in range(6):
        agent.note(failed=True)
    agent.suspend("most records fail", 0.0)
    assert agent.probe(1.0)
    assert agent.end_probe(1, 1, "", 1.0)
    assert not agent.note(failed=True)


def test_pauses_between_probes_double_up_to_the_longest():
    agent, now, pauses = suspended(), 0.0, []
    for _ in range(5):
        assert not agent.probe(agent.wake_at() - 0.01)
        pauses.append(agent.wake_at() - now)
        now = agent.wake_at()
        assert agent.probe(now)
        assert agent.wake_at() is None, "a probe is under way"
        assert not agent.end_probe(0, 1, "still missing", now)
    assert pauses == [1.0, 2.0, 4.0, 4.0, 4.0]
    assert (agent.why, agent.since) == ("still missing", 0.0)


def test_one_that_is_suspended_again_before_it_has_answered_waits_longer():
    agent = suspended()
    assert agent.probe(1.0)
    assert agent.end_probe(1, 0, "", 1.0)
    agent.suspend("topic out is forbidden", 2.0)
    assert agent.wake_at() == 4.0
    assert agent.probe(4.0)
    assert agent.end_probe(1, 0, "", 4.0)
    agent.note(failed=False)
    agent.suspend("topic out is missing", 5.0)
    assert agent.wake_at() == 6.0, "it has answered, so the pauses begin anew"


def test_a_probe_of_which_less_than_half_passes_leaves_it_suspended():
    agent = suspended()
    assert agent.probe(1.0)
    assert not agent.end_probe(9, 11, "9 of 20 passed", 1.0)
    assert agent.state == "suspended"


def test_a_probe_takes_the_oldest_and_the_newest_parts_of_all_partitions():
    agent = suspended(SuspensionLimits(probe_parts=5))
    for number in range(20):
        assert agent.hold(number % 3, number, 1)
    assert parts(agent.sample()) == [0, 1, 2, 18, 19]
    assert agent.waiting == 20, "what is probed stays held until it is settled"
    agent.settle(agent.sample())
    assert parts(agent.sample()) == [3, 4, 5, 16, 17]


def test_a_full_partition_holds_no_more_and_its_neighbours_do():
    agent = suspended()
    assert [agent.hold("a", number, 1) for number in range(5)] == [True, True, True, False, False]
    assert agent.hold("b", 5, 1)


def test_parts_are_bounded_in_bytes_and_one_always_fits():
    agent = suspended()
    assert agent.hold("a", "large", 5000)
    assert not agent.hold("a", "small", 1)
    assert agent.hold("b", "half", 60)
    assert not agent.hold("b", "half too", 60)
    assert (agent.held_bytes("a"), agent.held_bytes("b")) == (5000, 60)


def test_a_partition_without_room_takes_one_part_of_each_agent():
    agent = suspended()
    assert agent.hold("a", "first", 5, has_room=False)
    assert not agent.hold("a", "second", 5, has_room=False)
    assert agent.hold("a", "forced", 5, has_room=False, force=True)


def test_a_part_of_an_agent_that_answers_is_not_held():
    with pytest.raises(RuntimeError, match="not held"):
        Suspension(LIMITS).hold("a", "part", 1)


def test_parts_of_partitions_that_are_given_up_are_forgotten():
    agent = suspended()
    agent.hold("a", 1, 1)
    agent.hold("b", 2, 1)
    (sample, _) = agent.sample()
    agent.forget(["a", "c"])
    agent.settle([sample])
    assert parts(agent.release()) == [2]
    assert agent.held_bytes("b") == 0


def test_parts_need_not_wait_beyond_the_time_that_is_set():
    agent = suspended(SuspensionLimits(give_up_s=60.0))
    assert not agent.is_over(59.9)
    assert agent.is_over(60.0)
    assert not suspended().is_over(1e9)


@pytest.mark.parametrize(
    "wrong",
    [{"first_pause_s": 0}, {"first_pause_s": 100.0}, {"max_waiting": 0}, {"failing_share": 0}, {"failing_share": 1.1}],
)
def test_limits_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match="must"):
        SuspensionLimits(**wrong)


ACTIONS = st.lists(st.tuples(st.sampled_from(["hold", "settle", "forget", "probe", "fail"]), st.integers(0, 3)))


@given(ACTIONS)
def test_a_held_part_leaves_once_and_in_order(actions):
    agent, now, held, gone = suspended(), 0.0, [], []
    for number, (action, partition) in enumerate(actions):
        now += 1.0
        if action == "hold" and agent.hold(partition, (partition, number), 7):
            held.append((partition, number))
        elif action == "settle":
            sample = agent.sample()[:1]
            agent.settle(sample + sample)
            gone += parts(sample)
        elif action == "forget":
            agent.forget([partition])
            gone += [part for part in held if part[0] == partition and part not in gone]
        elif action == "probe":
            agent.probe(now)
        elif action == "fail":
            agent.end_probe(0, 1, "no", now)
        assert agent.waiting == len(held) - len(gone)
        assert sum(map(agent.held_bytes, range(4))) == 7 * agent.waiting
    assert parts(agent.release()) == [part for part in held if part not in gone]
    assert agent.waiting == 0


def test_agents_are_suspended_probed_and_described_apart():
    agents = Suspensions({"triage": LIMITS, "mood": LIMITS})
    assert agents.wake_at() is None
    assert agents.suspend("mood", "topic moods is missing", 10.0)
    assert not agents.suspend("mood", "topic moods is forbidden", 11.0)
    assert agents["mood"].hold("a", "part", 1)
    assert (agents.suspended, agents.waiting, agents.wake_at()) == ({"mood"}, 1, 11.0)
    assert agents.describe(12.5) == {"mood": {"why": "topic moods is forbidden", "seconds": 2.5, "waiting": 1}}
    assert agents.probe(11.0) == ["mood"]
    assert agents.end_probe("mood", 1, 0, "", 11.0)
    assert (agents.suspended, agents.describe(12.0)) == (set(), {})


def test_the_record_that_makes_most_fail_suspends_its_agent():
    agents = Suspensions({"triage": LIMITS})
    noted = [agents.note("triage", failed=True, why="6 of 10 failed", now=1.0) for _ in range(7)]
    assert noted == [False] * 5 + [True, False]
    assert agents["triage"].why == "6 of 10 failed"


def test_a_record_is_finished_when_all_its_parts_are():
    progress = Progress()
    progress.begin(7)
    parts_of_record = OpenParts(progress, 2)
    parts_of_record.finish(7)
    assert progress.committable == 7
    parts_of_record.finish(7)
    assert progress.committable == 8


def test_parts_that_are_added_are_waited_for_too():
    progress = Progress()
    progress.begin(7)
    parts_of_record = OpenParts(progress, 1)
    parts_of_record.add()
    parts_of_record.finish(7)
    assert progress.committable == 7
    parts_of_record.finish(7)
    assert progress.committable == 8

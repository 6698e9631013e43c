"""Which partitions are fetched, which are blocked and for how long, and whether results keep their partition number."""

from dataclasses import replace

from murmura.agents.classification import agent as classification
from murmura.runtime.flow.fetching.fetch_watch import FIRST_PAUSE_S, LONGEST_PAUSE_S, Blocked, FetchTimes
from murmura.runtime.observe.health import LIVE_PATIENCE, HealthState
from murmura.runtime.output.alignment import Alignment, PartitionCounts


def test_a_partition_is_fetched_when_its_stamp_moves():
    times: FetchTimes[str] = FetchTimes()
    times.update({"a": None, "b": 1}, (), 0.0)
    assert times.update({"a": 5, "b": 1}, (), 10.0) == ["a"]
    assert times.seconds(12.0) == {"a": 2.0, "b": 12.0}
    assert times.shortest_s(12.0) == 2.0


def test_a_partition_that_waits_for_room_is_not_overdue():
    times: FetchTimes[str] = FetchTimes()
    times.update({"a": 1}, (), 0.0)
    times.update({"a": 1}, {"a"}, 50.0)
    assert times.seconds(51.0) == {"a": 1.0}
    assert FetchTimes().shortest_s(99.0) == 0.0


def test_what_is_fetched_in_the_background_while_every_poll_fails_is_not_fetched():
    times: FetchTimes[str] = FetchTimes()
    times.update({"a": 1}, (), 0.0)
    times.note_failure(1.0)
    times.note_failure(4.0)
    times.update({"a": 5}, (), 5.0)
    assert (times.seconds(6.0), times.shortest_s(6.0), times.is_failing) == ({"a": 5.0}, 5.0, True)
    times.note_poll()
    assert (times.shortest_s(6.0), times.is_failing) == (1.0, False)
    times.update({}, (), 7.0)
    times.note_failure(7.0)
    assert times.shortest_s(9.0) == 2.0


def test_a_blocked_partition_is_tried_after_pauses_that_double_up_to_a_bound():
    blocked: Blocked[str] = Blocked()
    now, pauses = 0.0, []
    for number in range(8):
        assert blocked.add("a", "denied", now) is (number == 0)
        until = now
        while not blocked.due(until):
            until += 0.5
        pauses.append(until - now)
        now = until
    assert pauses[0] == FIRST_PAUSE_S
    assert pauses == [min(FIRST_PAUSE_S * 2**n, LONGEST_PAUSE_S) for n in range(8)]
    assert blocked.clear("a")
    assert blocked.add("a", "denied", now)


def test_results_keep_their_partition_only_while_both_topics_have_as_many_now():
    agent = replace(classification, topics=("in",), output="out")
    consumer: dict[str, int] = {}
    producer: dict[str, int] = {}
    alignment = Alignment([agent], PartitionCounts({"in": 2, "out": 2}, consumer.get, producer.get))
    assert alignment.aligned_pairs() == {("in", "out")}
    consumer["in"] = 4
    assert not alignment.aligned_pairs()
    producer["out"] = 4
    assert alignment.aligned_pairs()
    del producer["out"]  # a new producer knows nothing yet
    assert alignment.aligned_pairs()
    consumer["in"] = 6
    assert not alignment.aligned_pairs()


def test_without_a_successful_fetch_a_process_is_not_ready_and_is_left_alive():
    state = HealthState(overdue_s=10, model_loaded=True, group_joined=True, unfetched_s=11)
    assert state.ready(0) == ["no fetch has succeeded for 11 s"]
    assert state.live(0) == []


def test_time_with_the_broker_away_does_not_count_for_a_restart():
    state = HealthState(overdue_s=10, model_loaded=True, group_joined=True)
    state.set_work(True, 0.0)
    late = LIVE_PATIENCE * 10 + 1.0
    assert state.live(late)
    state.last_away = late
    assert state.live(late + 1) == []
    assert state.ready(late + 1)

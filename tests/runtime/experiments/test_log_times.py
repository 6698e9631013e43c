"""The time of an experiment, which is that of its logs."""

from murmura.runtime.experiments.log_times import IDLE_MINUTES, LogTimes


def test_time_is_that_of_the_slowest_log_and_passes_while_all_are_idle() -> None:
    times = LogTimes()
    assert times.find_minute({}, {"a": 0, "b": 0}, 100) == 100 - IDLE_MINUTES
    assert times.find_minute({}, {"a": 1, "b": 0}, 100) is None
    times.note("a", 70)
    times.note("b", 98)
    assert times.find_minute({"a": 1, "b": 5}, {"a": 2, "b": 5}, 100) == 70
    assert times.find_minute({"a": 2, "b": 5}, {"a": 2, "b": 5}, 100) == 98
    assert times.find_minute({"a": 2, "b": 5}, {"a": 2, "b": 5}, 200) == 200 - IDLE_MINUTES
    times.note("a", 230)
    assert times.find_minute({"a": 2, "b": 5}, {"a": 3, "b": 5}, 200) == 200, "a clock that is ahead moves nothing"

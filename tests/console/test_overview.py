"""The overview: figures from records, and what is unknown."""

import json
from types import SimpleNamespace

from screens_by_hand import ByHand
from test_live import browse

from murmura.console.overview.figures import AgentFigures, percentile_ms
from murmura.console.overview.process_metrics import read_metrics
from murmura.console.overview.screen import make_row
from murmura.console.reading.follower import Feed, Follower
from murmura.runtime.settings.settings import Settings

NOW = 1_000_000.0


def result(seconds_ago: float, took_ms: int, **outputs):
    at = int((NOW - seconds_ago) * 1000)
    value = {"agent": "desk", "source": {"timestamp": at - took_ms}, "model": {"name": "m", "version": 3}}
    return SimpleNamespace(timestamp=at, value=json.dumps(value | {"outputs": outputs}).encode())


def test_figures_come_from_records_of_their_window_and_what_no_topic_says_is_unknown():
    figures = AgentFigures()
    figures.take_results([result(1, 100) for _ in range(60)] + [result(20, 7000, intent={"abstained": True})] * 20)
    figures.take_results([result(2 * 3600, 1), SimpleNamespace(timestamp=0, value=b"{")])
    feedback = [{"agent": "desk", "verdict": verdict} for verdict in ("correction", "confirmed", "reward")]
    figures.take_feedback([SimpleNamespace(timestamp=NOW * 1000, value=json.dumps(each).encode()) for each in feedback])
    row = make_row("desk", figures, None, ["in"], NOW)
    assert (row.rate, row.withheld, row.corrections, row.verdicts, row.version) == (80 / 60, 0.25, 1, 2, "m 3")
    assert 7000 <= row.p95_ms <= 1.2 * 7000
    assert (row.lag, row.suspended, set(row.wrong)) == (None, None, {"p95"})


def test_records_of_a_producer_whose_clock_is_ahead_do_not_displace_the_others():
    figures = AgentFigures(clock=lambda: NOW)
    figures.take_results([result(1, 100), *(result(-3600 - 10 * number, 100) for number in range(400)), result(1, 100)])
    assert figures.counts("desk", NOW, 60)["answered"] == 402
    assert figures.counts("desk", NOW + 3600, 60)["answered"] == 0


def test_a_record_of_lists_in_lists_is_left_out():
    figures, deep = AgentFigures(), b"[" * 5000 + b"]" * 5000
    result_of_another = b'{"agent": "desk", "source": {"timestamp": 1}, "outputs": {"x": ' + deep + b"}}"
    figures.take_results([SimpleNamespace(timestamp=1, value=result_of_another)])
    figures.take_feedback(
        [SimpleNamespace(timestamp=1, value=b'{"agent": "desk", "verdict": "up", "value": ' + deep + b"}")]
    )
    assert figures.agents == []


def test_a_feed_that_fails_at_records_stops_neither_the_others_nor_the_console():
    taken = []

    def fail(records):
        raise KeyError("x")

    follower = Follower(Settings().kafka, [Feed("t", fail, 9), Feed("t", taken.extend, 9)])
    follower._take([SimpleNamespace(topic="t", partition=0, offset=offset) for offset in (3, 4)])
    assert ([each.offset for each in taken], follower.left_out) == ([3, 4], 2)


def test_lag_and_suspension_are_those_of_all_processes_that_answer():
    page = 'murmura_consumer_lag_records{topic="in",partition="0"} 70\nmurmura_suspended_agents{agent="desk"} 1\n'
    metrics = read_metrics([page, page, None, "{"], ["a", "b", "c", "d"])
    row = make_row("desk", AgentFigures(), metrics, ["in"], NOW)
    assert (row.lag, row.suspended, set(row.wrong), metrics.unanswered) == (140, True, {"lag", "suspended"}, ("c", "d"))
    assert make_row("other", AgentFigures(), metrics, ["else"], NOW).lag is None


def test_a_percentile_of_nothing_is_unknown():
    assert percentile_ms(AgentFigures().counts("none", NOW, 60), 0.95) is None


def test_the_overview_says_what_is_unknown(browse):
    page = browse().get("/")
    assert page.status_code == 200
    assert "classification" in page.text
    assert page.text.count("unknown") >= 2


def test_the_overview_says_how_many_records_are_left_out():
    made = ByHand()
    made.follower.left_out = 1200
    assert "1,200 records could not be read" in browse(made).get("/").text


def test_the_version_is_the_current_one_though_a_candidate_answers_and_both_are_counted():
    figures = AgentFigures()
    beside = result(1, 100)
    beside.value = beside.value.replace(b'"version": 3', b'"version": 4, "variant": "candidate"')
    figures.take_results([beside, result(1, 100), result(2, 100), beside])
    assert figures.version("desk") == "m 3"
    served = figures.served("desk", NOW, 60)
    assert {(each.version, each.variant): count for each, count in served.items()} == {
        (3, "current"): 2,
        (4, "candidate"): 2,
    }


def test_what_is_red_has_a_link_into_the_runbook():
    made = ByHand(console={"runbooks": "https://docs.example/operations.html"}).fill(int(NOW * 1000))
    page = browse(made).get("/").text
    assert 'href="https://docs.example/operations.html#when"' in page

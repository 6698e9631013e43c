"""The screen of experiments: the latest state of each, and the report of one."""

from datetime import timedelta
from types import SimpleNamespace

from screens_by_hand import AT, ByHand, experiment_state, shadow_records
from test_live import browse

from murmura.console.experiments.index import MOST_EXPERIMENTS, ExperimentIndex
from murmura.console.experiments.shadow_index import MOST_CHANGES, MOST_REPORTS, ShadowIndex
from murmura.schemas.experiment import Experiment
from murmura.schemas.release import released, started


def record(state, name="desk-3"):
    return SimpleNamespace(key=f"{name}#state".encode(), value=state and state.model_dump_json().encode())


def test_the_latest_state_of_each_is_kept_without_its_units_and_bounded():
    index = ExperimentIndex()
    first, later = experiment_state(tail="AAAA"), experiment_state(minute=99, tail="AAAA")
    index.take([record(first), record(later), SimpleNamespace(key=b"desk-3#7", value=b"{}"), record(first, "other")])
    assert [(each.minute, each.tail) for each in index.states()] == [(first.minute, ""), (99, "")]
    index.take([record(None), SimpleNamespace(key=b"x", value=b"y"), SimpleNamespace(key=b"a#state", value=b"y")])
    assert index.get("desk-3") is None
    index.take([record(first, f"e-{number}") for number in range(MOST_EXPERIMENTS + 3)])
    assert len(index.states()) == MOST_EXPERIMENTS


def test_the_report_has_effects_with_intervals_and_what_runs_can_be_stopped():
    made = ByHand()
    made.experiments.take([record(experiment_state())])
    browser = browse(made)
    page = browser.get("/experiments/one?id=desk-3").text
    assert "+0.1000" in page
    assert "withheld/intent" in page
    assert "35 ms" in page, "the median latency"
    assert "▄" in page, "the scores"
    assert "models shadow" in page
    assert "agreement is better" in page
    assert "nothing is concluded" not in page
    assert "Stop version" not in page
    running = Experiment(id="desk-3", share=0.5, started=AT)
    release = released(None, "desk", 2, "0" * 64, by="ann", why="", at=AT)
    made.versions.note_release(started(release, 3, "1" * 64, running, by="ann", why="", at=AT + timedelta(hours=1)))
    assert "Stop version 3" in browser.get("/experiments/one?id=desk-3").text
    assert "50 %" in browser.get("/experiments").text
    assert browser.get("/experiments/one?id=none").status_code == 404


def test_sides_that_are_filled_unevenly_are_said_first():
    made = ByHand()
    made.experiments.take([record(experiment_state(units={"control": 2000, "candidate": 2500}, expected=2250))])
    assert "filled so unevenly" in browse(made).get("/experiments/one?id=desk-3").text


def test_a_version_that_is_only_compared_has_the_page_of_its_report():
    made = ByHand()
    made.shadows.take([SimpleNamespace(key=None, value=b"{"), *shadow_records(after="<b>praise")])
    browser = browse(made)
    assert "/experiments/shadow?model=desk&amp;version=3" in browser.get("/experiments").text
    page = browser.get("/experiments/shadow?model=desk&version=3").text
    for cell in (
        "2026-01-02 00:00",
        "75.0%",
        "96.7%",
        "refund",
        "&lt;b&gt;praise",
        "Not compared: 8 dropped, 2 too_long.",
    ):
        assert cell in page
    for query in ("model=desk&version=4", "model=desk&version=x", ""):
        assert "Nothing about this version" in browser.get(f"/experiments/shadow?{query}").text


def test_reports_of_compared_versions_are_bounded_in_number_and_changes():
    index = ShadowIndex()
    for number in range(MOST_CHANGES + 5):
        index.take(shadow_records(after=f"{number}")[1:])
    report = index.get("desk", 3)
    assert (len(report.changes), report.other_changes) == (MOST_CHANGES, 5)
    for number in range(MOST_REPORTS):
        index.take([*shadow_records(candidate=9 + number), *shadow_records(name="n" * 400)])
    assert index.get("desk", 3) is None
    assert [each.candidate for each in index.reports()] == [*reversed(range(9, 9 + MOST_REPORTS))]

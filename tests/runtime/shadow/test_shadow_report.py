"""The report by hour, from records of several processes."""

from datetime import UTC, datetime

from murmura.runtime.shadow.report import ShadowReport, format_report, report_shadow
from murmura.schemas.shadow import ShadowRecord

MODEL = {"name": "desk", "current": 1, "candidate": 2}
COUNTS = {"compared": 30, "agreed": 29, "answered": 100, "chosen": 40, "dropped": 8, "too_long": 2, "failed": 0}


def counts(at, candidate=2, **changed):
    found = {**COUNTS, "tasks": {"intent": {"compared": 30, "agreed": 29}}, **changed}
    model = {**MODEL, "candidate": candidate}
    return ShadowRecord.model_validate(
        {"kind": "counts", "model": model, "instance": "a", "since": at, "until": at, **found}
    )


def difference(before, after):
    answers = {name: {"answer": answer, "labels": []} for name, answer in (("current", before), ("candidate", after))}
    source = {"topic": "in", "partition": 0, "offset": 1, "timestamp": 1}
    tasks = {"intent": {"agrees": False, **answers}}
    return ShadowRecord.model_validate(
        {
            "kind": "difference",
            "model": MODEL,
            "request_id": "r",
            "predictions": {},
            "source": source,
            "tasks": tasks,
            "time": "2026-05-03T10:00:00Z",
        }
    )


def test_the_compared_share_is_of_each_hour_over_all_processes_and_of_one_version():
    report = report_shadow(
        [
            counts("2026-05-03T11:59:30Z"),
            counts("2026-05-03T10:01:00Z"),
            counts("2026-05-03T10:59:59Z", compared=10, agreed=5),
            counts("2026-05-03T10:02:00Z", candidate=3),
            difference("refund", "praise"),
        ],
        "desk",
        2,
    )
    ten, eleven = (datetime(2026, 5, 3, hour, tzinfo=UTC) for hour in (10, 11))
    assert sorted(report.hours) == [ten, eleven]
    assert [report.hours[hour].compared_share for hour in (ten, eleven)] == [0.5, 0.75]
    assert report.tasks == {"intent": (90, 87)}
    assert report.changes == {("intent", "refund", "praise"): 1}
    text = "\n".join(format_report(report))
    assert "| 2026-05-03 10:00 | 200 | 80 | 40 | 50.0% | 85.0% |" in text
    assert "Not compared: 24 dropped, 6 too_long." in text


def test_rows_beyond_those_listed_and_those_kept_are_counted():
    report = ShadowReport("desk", 2, most_changes=25)
    for number in range(30):
        report.add(difference("a|b", f"label {number}"))
    lines = format_report(report)
    assert r"| intent | a\|b | label 0 | 1 |" in lines
    assert lines[-1] == "Other changes: 10."

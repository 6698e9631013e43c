"""The list of dead letters: what is counted and found, and what a person may select."""

from datetime import UTC, datetime, timedelta

import pytest

from murmura.console.dead_letters.filters import Filters
from murmura.console.dead_letters.index import DeadLetterIndex
from murmura.console.web.people import Refused
from murmura.runtime.wire.dead_letter_records import OriginalRecord, marker
from murmura.schemas.deadletter import DeadLetter, DeadLetterReason

TOPIC = "murmura.deadletters"


def letter(
    offset: int,
    reason: DeadLetterReason = DeadLetterReason.AGENT_FAILED,
    agent: str | None = "desk",
    *,
    partition: int = 0,
    second: int | None = None,
):
    time = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=offset if second is None else second)
    fields = DeadLetter(
        reason=reason,
        message="it failed",
        agent=agent,
        topic="requests",
        partition=0,
        offset=offset,
        timestamp=0,
        time=time,
    )
    return OriginalRecord(TOPIC, partition, offset, 0, b"k", b"{}" * 1000, tuple(fields.headers()))


def marked(offset: int, at: int):
    sent = marker(letter(offset))
    return OriginalRecord(TOPIC, 0, at, 0, sent.key, None, tuple(sent.headers))


@pytest.fixture
def index() -> DeadLetterIndex:
    index = DeadLetterIndex(3, 10**6)
    index.take([letter(0), letter(1, DeadLetterReason.NOT_JSON, None), letter(2), marked(2, 3)])
    return index


def test_letters_are_counted_by_group_and_marked_when_they_are_sent_again(index):
    counts = {
        (group.reason, group.agent): (n.letters, n.redriven) for group, n in index.count(Filters().selection()).items()
    }
    assert counts == {("agent_failed", "desk"): (2, 1), ("not_json", None): (1, 0)}


def test_the_newest_come_first_by_pages_and_those_that_wait_alone(index):
    def offsets(filters: Filters, **pages: int) -> list[int]:
        found = index.find(filters.selection(), waiting_only=filters.waiting, **{"first": 0, "most": 9, **pages})
        return [each.record.offset for each in found]

    assert offsets(Filters()) == [2, 1, 0]
    assert offsets(Filters(), first=1, most=1) == [1]
    assert offsets(Filters(waiting=True)) == [1, 0]
    assert offsets(Filters(agent="-")) == [1]
    assert offsets(Filters(place="0/1")) == [1]


def test_the_newest_come_first_whichever_partition_is_read_first():
    index = DeadLetterIndex(40, 10**6)
    for partition in (2, 0, 1):
        reasons = [DeadLetterReason.AGENT_FAILED, DeadLetterReason.NOT_JSON]
        index.take([letter(n, reasons[n % 2], partition=partition, second=3 * n + partition) for n in range(9)])
    found = index.find(Filters().selection(), waiting_only=False, first=0, most=99)
    assert [(each.record.partition, each.record.offset) for each in found] == [
        (n % 3, n // 3) for n in range(26, -1, -1)
    ]


def test_counts_by_group_are_those_of_the_letters_whatever_came_and_left():
    index = DeadLetterIndex(40, 10**6)
    reasons = list(DeadLetterReason)[:3]
    for n in range(100):
        index.take([letter(n, reasons[n % 3], "ab"[n % 2])])
        if n % 5 == 0:
            index.take([marked(max(0, n - 7), 1000 + n)])
    kept = index.find(Filters().selection(), waiting_only=False, first=0, most=99)
    assert [each.record.offset for each in kept] == list(range(99, 59, -1))
    for filters in (Filters(), Filters(reason=reasons[1].value), Filters(agent="b"), Filters(place="0/70")):
        chosen = [each for each in kept if filters.selection().has(each)]
        waiting = [each for each in chosen if not each.redriven]
        counts = index.count(filters.selection()).values()
        assert sum(each.letters for each in counts) == len(chosen)
        assert sum(each.redriven for each in counts) == len(chosen) - len(waiting)
        assert index.find(filters.selection(), waiting_only=False, first=0, most=99) == chosen
        assert index.find(filters.selection(), waiting_only=True, first=2, most=5) == waiting[2:7]


def test_the_oldest_leave_and_a_record_that_is_none_is_only_counted(index):
    index.take([letter(4), OriginalRecord(TOPIC, 0, 5, 0, None, b"x", ())])
    assert (index.dropped, index.foreign, index.get((0, 0))) == (1, 1, None)


@pytest.mark.parametrize(
    "query", [{"reason": "none"}, {"place": "0"}, {"place": "0/x"}, {"place": "٣/1"}, {"agent": "a" * 250}]
)
def test_a_filter_that_is_none_is_refused(query):
    with pytest.raises(Refused):
        Filters.read(query)


def test_a_filter_survives_its_url(browse):
    filters = Filters.read({"reason": "not_json", "agent": "a&b", "waiting": "1"})
    assert filters.query(first=50) == "?reason=not_json&agent=a%26b&waiting=1&first=50"
    answer = browse().get("/dead-letters" + filters.query(first=50))
    assert answer.status_code == 200
    assert browse().get("/dead-letters?first=-1").status_code == 400


@pytest.mark.parametrize(
    "form", [{"to": "elsewhere"}, {"to": "retries", "rate": "0"}, {"to": "retries", "rate": "nan"}]
)
def test_a_redrive_that_makes_no_sense_is_refused(browse, form):
    assert browse().post("/dead-letters/redrive", data=form).status_code == 400

"""Joins feedback, results and requests in a SQLite database on disk: memory stays the same whatever their number."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from ..runtime.errors import RecordError
from ..runtime.feedback import read_feedback
from ..runtime.records import Record, read_request
from ..schemas.feedback import Feedback, Verdict
from .ingest_manifest import Plan, TaskLabels
from .ingest_places import Filter, Wanted, place
from .ingest_rules import LeftOut, Unfit, check_task, is_held_out, target_of, text_id, unit_of
from .ingest_tables import JOINED, MARK, TABLES, WANT

CACHE_KIB: Final = 32 * 1024
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_ANY_SIZE: Final = 1 << 62


class _Source(msgspec.Struct):
    topic: str
    partition: int
    offset: int
    timestamp: int


class _Result(msgspec.Struct):
    prediction_id: str
    agent: str
    source: _Source
    outputs: msgspec.Raw


_read_result = msgspec.json.Decoder(_Result).decode
_read_outputs = msgspec.json.Decoder(dict[str, dict[str, Any]]).decode


class Keyed(Record, Protocol):
    key: bytes | None


class Join:
    """The records of one ingest. Told feedback, then results, then requests; each stage ends before the next begins.

    Owns the database at `path`, which is scratch: a crash may leave it damaged, and nothing reads it again.
    """

    def __init__(self, path: Path, plan: Plan) -> None:
        self._options = plan.options
        self.feedback_ranges = plan.of("feedback")
        self.request_ranges = plan.of("requests")
        self._request_number = {(r.topic, r.partition): i for i, r in enumerate(self.request_ranges)}
        self._judged = Filter()
        self._wanted: list[Wanted] = []
        self._db = sqlite3.connect(path, isolation_level=None, cached_statements=256)
        for pragma in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{CACHE_KIB}", "temp_store=FILE"):
            self._db.execute(f"PRAGMA {pragma}")
        # Sorting spills to disk: here, where there is room, and not in a /tmp that may be small or not writable.
        self._sort_in(str(path.parent.absolute()))
        self._db.executescript(TABLES)
        self._db.execute("BEGIN")

    def close(self) -> None:
        self._sort_in("")
        self._db.close()

    def _sort_in(self, folder: str) -> None:
        # The setting is the whole process's, so it is taken back.
        quoted = folder.replace("'", "''")
        self._db.execute(f"PRAGMA temp_store_directory = '{quoted}'")

    # -- feedback ----------------------------------------------------------------------------------------------------

    def take_feedback(self, number: int, records: Sequence[Keyed]) -> None:
        rows, bad = [], []
        for record in records:
            here = place(number, record.offset)
            try:
                rows.append(self._feedback_row(here, read_feedback(record.value)))
            except RecordError:
                bad.append((here, LeftOut.INVALID))
        self._db.executemany("INSERT INTO feedback VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)", rows)
        self._leave_out(bad)

    def unreadable_feedback(self, number: int, offset: int) -> None:
        self._leave_out([(place(number, offset), LeftOut.UNREADABLE)])

    def _feedback_row(self, here: int, feedback: Feedback) -> tuple[Any, ...]:
        prediction = bytes.fromhex(feedback.prediction_id)
        self._judged.add(prediction)
        value = feedback.value
        if feedback.verdict is not Verdict.WITHDRAWN and value is not None:
            value = msgspec.json.encode(feedback.model_dump(include={"value"})["value"]).decode()
        at = (feedback.at - _EPOCH) // _MICROSECOND
        return (
            *(here, feedback.id, prediction, feedback.agent, feedback.task, feedback.verdict.value, value),
            *(feedback.by, at, feedback.consent),
        )

    def feedback_done(self) -> None:
        """Settle what was sent twice and what was taken back."""
        self._run(MARK)

    # -- results -----------------------------------------------------------------------------------------------------

    def take_results(self, number: int, records: Sequence[Keyed]) -> None:
        rows = []
        for record in records:
            try:
                result = _read_result(record.value or b"")
                prediction = bytes.fromhex(result.prediction_id)
            except (msgspec.MsgspecError, ValueError, RecursionError):  # not a result: whoever judged it finds none
                continue
            if prediction in self._judged:
                rows.append(self._result_row(place(number, record.offset), prediction, result))
        self._db.executemany("INSERT INTO results VALUES (?, ?, ?, ?, ?, ?)", rows)

    def _result_row(self, here: int, prediction: bytes, result: _Result) -> tuple[Any, ...]:
        source = result.source
        number = self._request_number.get((source.topic, source.partition))
        request = None
        if number is not None and self.request_ranges[number].start <= source.offset < self.request_ranges[number].end:
            request = place(number, source.offset)
        return here, prediction, request, source.timestamp, result.agent, bytes(result.outputs)

    def results_done(self) -> None:
        """Settle which requests are wanted."""
        self._run(WANT)
        self._wanted = [Wanted(self._db, number) for number in range(len(self.request_ranges))]

    # -- requests ----------------------------------------------------------------------------------------------------

    def next_wanted(self, number: int, offset: int) -> int:
        """Return the first offset from `offset` on whose request is wanted, or one behind all records."""
        return self._wanted[number].at_or_after(offset)

    def take_requests(self, number: int, records: Sequence[Keyed]) -> None:
        wanted, rows = self._wanted[number], []
        following = wanted.at_or_after(records[0].offset)
        for record in records:
            if record.offset < following:
                continue
            if record.offset == following:
                rows.append(self._request_row(number, record))
            following = wanted.at_or_after(record.offset + 1)
        self._db.executemany("INSERT INTO requests VALUES (?, ?, ?, ?)", [row for row in rows if row is not None])

    def _request_row(self, number: int, record: Keyed) -> tuple[Any, ...] | None:
        try:
            text = read_request(record, _ANY_SIZE).text
        except RecordError:
            return None
        return place(number, record.offset), record.timestamp, text, unit_of(record.key, text, self._options)

    # -- what comes of it --------------------------------------------------------------------------------------------

    def settle(self) -> Iterator[int]:
        """Turn verdicts into examples; yields how many were looked at, now and then."""
        yield from self._vote()
        self._count_votes()

    def _vote(self) -> Iterator[int]:
        cursor = self._db.execute(JOINED)
        while rows := cursor.fetchmany(1000):
            votes, left = [], []
            for row in rows:
                try:
                    votes.append(self._vote_of(row))
                except Unfit as unfit:
                    left.append((row[0], unfit.reason))
            self._db.executemany("INSERT INTO votes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", votes)
            self._leave_out(left)
            yield len(rows)
        self._db.execute(
            "INSERT INTO left_out SELECT place, 'no_label' FROM feedback WHERE left_out IS NULL AND verdict = 'reward'"
        )

    def _vote_of(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        here, task, agent, verdict, value, person, at, consent, answerer, raw, request, stamp, sent, text, unit = row
        check_task(task, self._options)
        if raw is None:
            raise Unfit(LeftOut.NOT_FOUND)
        if agent != answerer:
            raise Unfit(LeftOut.OTHER_AGENT)
        output = _output(raw, task)
        if text is None or stamp != sent:  # a topic that was made anew has other records at the same offsets
            raise Unfit(LeftOut.REQUEST_NOT_FOUND)
        given = None if value is None else msgspec.json.decode(value)
        kind, target = target_of(verdict, given, output, text, self._labels(task)) or (None, None)
        return task, text_id(text), person, at, here, request, unit, kind, target, consent

    def _labels(self, task: str) -> TaskLabels | None:
        if self._options.labels is None:
            return None
        if task not in self._options.labels:
            raise Unfit(LeftOut.UNKNOWN_TASK)
        return self._options.labels[task]

    def _count_votes(self) -> None:
        """Let each person's last verdict on a text stand, and make an example where those that stand agree."""
        everything = self._db.execute("SELECT * FROM votes ORDER BY task, text_id, person, at, place")
        examples: list[tuple[Any, ...]] = []
        against: list[tuple[Any, ...]] = []
        left: list[tuple[int, LeftOut]] = []
        for (task, _), verdicts in groupby(everything, itemgetter(0, 1)):
            standing, units = _standing(verdicts, left)
            places = [(vote[4], vote[5]) for votes in standing.values() for vote in votes]
            if len(standing) == 1:
                ((kind, target),) = standing
                part = "heldout" if is_held_out(units, self._options) else "train"
                request = min(request for _, request in places)
                examples.append((task, part, request, min(places)[0], kind, target, len(places)))
            elif standing:
                first = min(request for _, request in places)
                for (kind, target), votes in standing.items():
                    against += [(task, first, target, kind, vote[2], vote[4]) for vote in votes]
                left += [(here, LeftOut.CONTRADICTION) for here, _ in places]
            if len(examples) + len(left) >= 1000:
                self._store(examples, against, left)
        self._store(examples, against, left)

    def _store(
        self, examples: list[tuple[Any, ...]], against: list[tuple[Any, ...]], left: list[tuple[int, LeftOut]]
    ) -> None:
        self._db.executemany("INSERT INTO examples VALUES (?, ?, ?, ?, ?, ?, ?)", examples)
        self._db.executemany("INSERT INTO contradictions VALUES (?, ?, ?, ?, ?, ?)", against)
        self._leave_out(left)
        for rows in (examples, against, left):
            rows.clear()

    def tasks(self) -> list[str]:
        return [task for (task,) in self._db.execute("SELECT DISTINCT task FROM examples ORDER BY task")]

    def examples(self, task: str, part: str) -> Iterator[tuple[str, str, str, str, int]]:
        """Yield text, kind, target, prediction id and the number of people, in the order of the requests."""
        yield from self._db.execute(
            "SELECT text, kind, target, lower(hex(prediction)), people FROM examples"
            " JOIN requests ON requests.place = request JOIN feedback ON feedback.place = examples.place"
            " WHERE examples.task = ? AND part = ? ORDER BY request",
            (task, part),
        )

    def contradictions(self) -> Iterator[tuple[str, str, str, str, str, str]]:
        """Yield task, text, kind, target, person and feedback id; those of one text stand together."""
        yield from self._db.execute(
            "SELECT contradictions.task, text, kind, target, contradictions.person, id FROM contradictions"
            " JOIN requests ON requests.place = request JOIN feedback ON feedback.place = contradictions.place"
            " ORDER BY contradictions.task, request, target, contradictions.person"
        )

    def left_out(self) -> Iterator[tuple[int, str | None, str | None, str]]:
        """Yield place, feedback id, prediction id and reason, in the order of the records."""
        yield from self._db.execute(
            "SELECT place, id, lower(hex(prediction)), left_out FROM feedback WHERE left_out IS NOT NULL UNION ALL"
            " SELECT left_out.place, id, lower(hex(prediction)), reason FROM left_out"
            " LEFT JOIN feedback ON feedback.place = left_out.place ORDER BY 1"
        )

    def counts(self) -> dict[str, int]:
        """Return how many feedback records there were, by what became of them."""
        one = self._db.execute(
            "SELECT (SELECT count(*) FROM feedback), (SELECT count(*) FROM left_out WHERE place NOT IN"
            " (SELECT place FROM feedback)), (SELECT count(*) FROM feedback WHERE verdict = 'withdrawn'"
            " AND left_out IS NULL), (SELECT ifnull(sum(people), 0) FROM examples)"
        ).fetchone()
        reasons = self._db.execute(
            "SELECT reason, count(*) FROM (SELECT left_out AS reason FROM feedback WHERE left_out IS NOT NULL UNION ALL"
            " SELECT reason FROM left_out) GROUP BY reason ORDER BY reason"
        )
        return {"feedback": one[0] + one[1], "taking_back": one[2], "used": one[3], **dict(reasons)}

    def _leave_out(self, rows: Iterable[tuple[int, LeftOut]]) -> None:
        self._db.executemany("INSERT INTO left_out VALUES (?, ?)", [(here, why.value) for here, why in rows])

    def _run(self, statements: Iterable[str]) -> None:
        for statement in statements:
            self._db.execute(statement)


def _output(raw: bytes, task: str) -> dict[str, Any]:
    try:
        return _read_outputs(raw)[task]
    except (KeyError, msgspec.DecodeError):
        raise Unfit(LeftOut.UNKNOWN_TASK) from None


def _standing(
    verdicts: Iterable[tuple[Any, ...]], left: list[tuple[int, LeftOut]]
) -> tuple[dict[tuple[str, str], list[tuple[Any, ...]]], int]:
    """Return (kind, target) to the votes that stand for it, and the greatest unit of all; others go to `left`."""
    standing: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
    units = 0
    for _, mine in groupby(verdicts, itemgetter(2)):
        last: tuple[Any, ...] | None = None
        for vote in mine:
            if last is not None:
                left.append((last[4], LeftOut.SUPERSEDED))
            last = vote
            units = max(units, vote[6])
        assert last is not None
        if not last[9]:
            left.append((last[4], LeftOut.NO_CONSENT))
        elif last[8] is None:
            left.append((last[4], LeftOut.NO_LABEL))
        else:
            standing.setdefault((last[7], last[8]), []).append(last)
    return standing, units

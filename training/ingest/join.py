"""Joins feedback, results and requests in a SQLite database on disk: memory stays the same whatever their number."""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from ...runtime.errors import RecordError
from ...runtime.model.inputs import Input
from ...runtime.wire.feedback import read_feedback
from ...runtime.wire.message import Record
from ...runtime.wire.request import read_request
from ...schemas.feedback import Feedback, Verdict
from ...schemas.review import ReviewReason
from ..data.near_texts import near_form, near_id
from .earlier import read_kept
from .manifest import Plan, Role, TaskLabels
from .places import Filter, Wanted, place
from .replies import Replies, read_reply_record
from .results import Result, ResultSource, output_of, read_result, read_review
from .rules import (
    LeftOut,
    Unfit,
    check_task,
    conversation_id,
    held_out_below,
    input_of,
    is_worded,
    spelling_id,
    target_of,
    text_id,
    unit_of,
)
from .settled import EPOCH, MICROSECOND, Settled
from .tables import (
    ASSIGN_CONVERSATIONS,
    ASSIGN_TEXTS,
    COUNT,
    DISAGREE,
    DRAW,
    EXAMPLES,
    HOLD_DRAWN_CONVERSATIONS,
    HOLD_DRAWN_TEXTS,
    INDEX,
    JOINED,
    KEEP,
    KEEP_CONVERSATION,
    MARK,
    MARK_DRAWN,
    TABLES,
    WANT,
    WITHDRAW,
    WITHDRAWALS,
)

CACHE_KIB: Final = 32 * 1024
RANDOM: Final = ReviewReason.RANDOM.value
_ANY_SIZE: Final = 1 << 62


class Keyed(Record, Protocol):
    key: bytes | None


class Join:
    """The records of one ingest: feedback, then reviews, results and requests; each stage ends before the next begins.

    Owns the database at `path`, which is scratch: a crash may leave it damaged, and nothing reads it again.
    """

    def __init__(self, path: Path, plan: Plan) -> None:
        self._options = plan.options
        self._fields = {topic: each.fields for topic, each in plan.options.inputs.items()}
        self.feedback_ranges = plan.of("feedback")
        self.request_ranges = plan.of("requests")
        self._ranges = {
            "feedback": self.feedback_ranges,
            "reviews": plan.of("reviews"),
            "replies": plan.of("replies"),
            "results": plan.of("results"),
            "requests": self.request_ranges,
        }
        self._request_number = {(r.topic, r.partition): i for i, r in enumerate(self.request_ranges)}
        self._judged = Filter()
        self._wanted: list[Wanted] = []
        self._trimmed_spans = 0
        self._db = sqlite3.connect(path, isolation_level=None, cached_statements=256)
        for pragma in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{CACHE_KIB}", "temp_store=FILE"):
            self._db.execute(f"PRAGMA {pragma}")
        # Sorting spills to disk: here, where there is room, and not in a /tmp that may be small or not writable.
        self._sort_in(str(path.parent.absolute()))
        self._db.executescript(TABLES)
        self._replies = Replies(self._db, plan.options)
        self._db.execute("BEGIN")

    def close(self) -> None:
        self._sort_in("")
        self._db.close()

    def _sort_in(self, folder: str) -> None:
        # The setting is the whole process's, so it is taken back.
        quoted = folder.replace("'", "''")
        self._db.execute(f"PRAGMA temp_store_directory = '{quoted}'")

    def unreadable(self, role: Role, number: int, offset: int) -> None:
        """Note a record that the client cannot unpack. Of requests only those that are wanted: which others a read comes
        by depends on how it was fetched.
        """
        if role != "requests" or self.next_wanted(number, offset) == offset:
            self._db.execute("INSERT INTO unreadable VALUES (?, ?)", (role, place(number, offset)))

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

    def _feedback_row(self, here: int, feedback: Feedback) -> tuple[Any, ...]:
        prediction = bytes.fromhex(feedback.prediction_id)
        self._judged.add(prediction)
        value = feedback.value
        if feedback.verdict is not Verdict.WITHDRAWN and value is not None:
            value = msgspec.json.encode(feedback.model_dump(include={"value"})["value"]).decode()
        at = (feedback.at - EPOCH) // MICROSECOND
        return (
            *(here, feedback.id, prediction, feedback.agent, feedback.task, feedback.verdict.value, value),
            *(feedback.by, at, feedback.consent),
        )

    def feedback_done(self) -> None:
        """Settle what was sent twice and what was taken back."""
        people = [(name,) for name in sorted(set(self._options.operators))]
        self._db.executemany("INSERT INTO operators VALUES (?)", people)
        self._run(MARK)
        for place_, value in self._db.execute(WITHDRAWALS):
            self._db.execute(WITHDRAW, {"place": place_, "value": value})
        self._run(INDEX)

    def take_reviews(self, number: int, records: Sequence[Keyed]) -> None:
        """Note which predictions were drawn at random; other reviews, and what is none, say nothing here."""
        rows = []
        for record in records:
            try:
                review = read_review(record.value or b"")
                prediction = bytes.fromhex(review.prediction_id or "")
            except (msgspec.MsgspecError, ValueError, RecursionError):
                continue
            if review.why == RANDOM and prediction and review.sampling_rate:
                self._judged.add(prediction)
                rows.append((prediction, review.task, review.sampling_rate))
        self._db.executemany(DRAW, rows)

    # -- replies and results -----------------------------------------------------------------------------------------------------

    def take_replies(self, number: int, records: Sequence[Keyed]) -> None:
        rows = []
        for record in records:
            try:
                reply = read_reply_record(record.value or b"")
                bytes.fromhex(reply.prediction_id)
            except (msgspec.MsgspecError, ValueError, RecursionError):  # not a reply: whoever judged it finds none
                continue
            rows.append((place(number, record.offset), self._request_place(reply.source), reply))
        self._replies.add(rows)

    def take_results(self, number: int, records: Sequence[Keyed]) -> None:
        rows = []
        for record in records:
            try:
                result = read_result(record.value or b"")
                prediction = bytes.fromhex(result.prediction_id)
            except (msgspec.MsgspecError, ValueError, RecursionError):  # not a result: whoever judged it finds none
                continue
            # An expired one predicted nothing, and another result of its prediction may have.
            if prediction in self._judged and result.status != "expired":
                rows.append(self._result_row(place(number, record.offset), prediction, result))
        self._db.executemany("INSERT INTO results VALUES (?, ?, ?, ?, ?, ?)", rows)

    def _result_row(self, here: int, prediction: bytes, result: Result) -> tuple[Any, ...]:
        request = self._request_place(result.source)
        return here, prediction, request, result.source.timestamp, result.agent, bytes(result.outputs)

    def _request_place(self, source: ResultSource) -> int | None:
        number = self._request_number.get((source.topic, source.partition))
        if number is None or not self.request_ranges[number].start <= source.offset < self.request_ranges[number].end:
            return None
        return place(number, source.offset)

    def results_done(self) -> None:
        """Settle which requests are wanted."""
        self._replies.as_results(place(len(self._ranges["results"]), 0))
        self._run(WANT)
        self._replies.want_before()
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
        self._db.executemany(
            "INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?, ?)", [row for row in rows if row is not None]
        )

    def _request_row(self, number: int, record: Keyed) -> tuple[Any, ...] | None:
        try:
            request = read_request(record, _ANY_SIZE, fields=self._fields.get(record.topic))
        except RecordError:
            return None
        # By the first text alone: what is read of it with any second one stays on one side.
        near = near_form(request.text)
        unit = unit_of(record.key, near, self._options)
        conversation = conversation_id(record.key) if record.key else None
        here = place(number, record.offset)
        return here, record.timestamp, request.text, request.text_pair, near_id(near), unit, conversation

    # -- what comes of it --------------------------------------------------------------------------------------------

    @property
    def settled(self) -> Settled:
        """Return what came of the records, once `settle` has ended."""
        return Settled(self._db, self._options, self._ranges, self._trimmed_spans, self._replies)

    def settle(self) -> Iterator[int]:
        """Turn verdicts into examples. Yields how many feedback records are done, now and then, in all those of the plan."""
        left = sum(each.records for each in self.feedback_ranges)
        for looked_at in self._vote():
            left -= looked_at
            yield looked_at
        self._read_earlier()
        if self._options.split == "conversation":
            self._run((HOLD_DRAWN_CONVERSATIONS,))
        self._run((ASSIGN_CONVERSATIONS, *COUNT, HOLD_DRAWN_TEXTS, ASSIGN_TEXTS, MARK_DRAWN))
        self._db.execute(EXAMPLES, (held_out_below(self._options),))
        self._run(DISAGREE)
        yield left

    def _read_earlier(self) -> None:
        """Take over into which part earlier data sets put texts and conversations."""
        for near, conversation, trained in read_kept(self._options):
            self._db.execute(KEEP, (near, trained))
            if conversation is not None:
                self._db.execute(KEEP_CONVERSATION, (conversation, trained))

    def _vote(self) -> Iterator[int]:
        cursor = self._db.execute(JOINED)
        while rows := cursor.fetchmany(1000):
            votes, left = [], []
            for row in rows:
                try:
                    votes.append(self._vote_of(row))
                except Unfit as unfit:
                    left.append((row[1], unfit.reason))
            self._db.executemany("INSERT INTO votes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", votes)
            self._leave_out(left)
            yield len(rows)
        self._db.execute(
            "INSERT INTO left_out SELECT place, 'no_label' FROM feedback WHERE left_out IS NULL AND verdict = 'reward'"
        )

    def _vote_of(self, row: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return a verdict as a vote. One that is unfit is a vote too, if one for nothing: it may be a person's last."""
        prediction, here, task, agent, verdict, value, person, at, consent, answerer, raw, *asked = row
        request, stamp, sent, text, second = asked
        check_task(task, self._options)
        if raw is None:
            raise Unfit(LeftOut.NOT_FOUND)
        if agent != answerer:
            raise Unfit(LeftOut.OTHER_AGENT)
        if text is None or stamp != sent:  # a topic that was made anew has other records at the same offsets
            raise Unfit(LeftOut.REQUEST_NOT_FOUND)
        given = None if value is None else msgspec.json.decode(value)
        labels = self._labels(task)
        kind = target = unfit = None
        read: Input = text
        ids = text_id(read, ""), spelling_id(read)
        try:
            output = output_of(raw, task)
            answered = str(output.get("kind"))
            read = input_of(output, text, second)
            ids = text_id(read, answered), spelling_id(read)
            if is_worded(answered):
                # Two replies to one text may both be right.
                ids = (prediction, prediction)
                given = self._words_of(prediction, verdict, given, output)
            if found := target_of(verdict, given, output, text, labels):
                kind, target = found.kind, found.value
                self._trimmed_spans += found.trimmed_spans if consent else 0
        except Unfit as why:
            if why.reason is LeftOut.UNKNOWN_TASK:
                raise
            # Down denies what was answered; where that is nothing, it still says that something was wrong.
            unfit = None if verdict == "down" else why.reason.value
        return task, *ids, person, at, here, request, kind, target, verdict == "down", unfit, consent

    def _words_of(self, prediction: bytes, verdict: str, given: Any, output: Mapping[str, Any]) -> Any:
        """Return the value of a verdict on the words of a reply. Unfit where a decoder must not learn them."""
        if verdict == Verdict.CORRECTION and isinstance(given, str):
            return self._replies.read_words(prediction, given)
        if verdict == Verdict.CONFIRMED:
            self._replies.read_words(prediction)
        return given

    def _labels(self, task: str) -> TaskLabels | None:
        if self._options.labels is None:
            return None
        if task not in self._options.labels:
            raise Unfit(LeftOut.UNKNOWN_TASK)
        return self._options.labels[task]

    def _leave_out(self, rows: Iterable[tuple[int, LeftOut]]) -> None:
        self._db.executemany("INSERT INTO left_out VALUES (?, ?)", [(here, why.value) for here, why in rows])

    def _run(self, statements: Iterable[str]) -> None:
        for statement in statements:
            self._db.execute(statement)

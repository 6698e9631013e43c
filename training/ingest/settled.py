"""Reads out of a settled join what becomes of the records: rows, verdicts without a label, and what is left out."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from ...runtime.kafka.offset_ranges import OffsetRange
from .manifest import Options
from .pairs import Judgement, make_pairs
from .places import of_place
from .replies import Replies
from .results import output_of
from .rules import TRIMMED_SPANS, LeftOut, Unfit, check_task, held_out_below, input_of, second_read
from .tables import KEYS, PAIRED, PREFERENCES

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
DRAWN: Final = "drawn_at_random"
"""Among the counts of a data set: predictions that were drawn, each of one task."""
DRAWN_JUDGED: Final = "drawn_and_judged"
"""Held-out texts of these with an agreed answer."""
FEW_KEYS: Final = 6
"""With fewer conversations a share of them is a matter of luck, and no test of a held-out part has p <= 0.025."""
FEW_KEYS_TEXTS: Final = 20
"""Judged texts a key from which on so few keys are rather no conversations."""
_UNREADABLE: Final[dict[str, LeftOut]] = {
    "feedback": LeftOut.UNREADABLE,
    "reviews": LeftOut.UNREADABLE_REVIEW,
    "replies": LeftOut.UNREADABLE_REPLY,
    "results": LeftOut.UNREADABLE_RESULT,
    "requests": LeftOut.UNREADABLE_REQUEST,
}


class Settled:
    """The outcome of a join. Reads the join's database, so it is gone when that is closed."""

    def __init__(
        self,
        db: sqlite3.Connection,
        options: Options,
        ranges: Mapping[str, Sequence[OffsetRange]],
        trimmed_spans: int,
        replies: Replies,
    ) -> None:
        self._db, self._options, self._ranges, self._trimmed_spans = db, options, ranges, trimmed_spans
        self.replies = replies

    def problem(self) -> str | None:
        """Return in a line why a share of the conversations cannot be held out; None when it can, or need not."""
        if self._options.split == "text" or not self._options.heldout:
            return None
        texts, without_key, keys = self._db.execute(KEYS).fetchone()
        if without_key or texts < keys * FEW_KEYS_TEXTS or not 0 < keys < FEW_KEYS:
            return None
        return (
            f"all {texts} judged texts have {'the same key' if keys == 1 else f'one of {keys} keys'}, and texts with one key "
            "stay in one part: choose split by text where keys are no conversations (`--split text`, in a job "
            "`feedback.ingest.split: text`), else hold out nothing (`heldout: 0`)"
        )

    def tasks(self) -> list[str]:
        return [task for (task,) in self._db.execute("SELECT DISTINCT task FROM examples ORDER BY task")]

    def examples(self, task: str, part: str) -> Iterator[tuple[str, str | None, str, str, str, int, str, float | None]]:
        """Yield text, second text, kind, target, prediction id, number of people, conversation (or "") and, of held-out texts that were
        drawn at random, the probability of that, by the order of requests.
        """
        for text, second, kind, *rest in self._db.execute(
            "SELECT text, second, kind, target, lower(hex(prediction)), people, lower(hex(conversation)),"
            " CASE WHEN part = 'heldout' THEN rate END FROM examples JOIN requests ON requests.place = request JOIN feedback ON feedback.place = examples.place"
            " WHERE examples.task = ? AND part = ? ORDER BY request",
            (task, part),
        ):
            yield text, second_read(kind, second), kind, *rest

    def preferences(self) -> Iterator[tuple[dict[str, Any], str]]:
        """Yield a row for each up, down and reward of a known answer, with consent, and its conversation (or "").

        In the order of the requests.
        """
        names = (
            "id",
            "prediction_id",
            "agent",
            "task",
            "text",
            "text_pair",
            "output",
            "verdict",
            "value",
            "by",
            "at",
            "part",
        )
        for *fields, conversation in self._db.execute(PREFERENCES, (held_out_below(self._options),)):
            row = dict(zip(names, fields, strict=True))
            try:
                check_task(row["task"], self._options)
                row["output"] = output_of(row["output"], row["task"])
                read = input_of(row["output"], row["text"], row["text_pair"])
            except Unfit:
                continue  # listed among what is left out
            if isinstance(read, str):
                del row["text_pair"]
            row["value"] = None if row["value"] is None else msgspec.json.decode(row["value"])
            row["at"] = (EPOCH + row["at"] * MICROSECOND).isoformat()
            yield row, conversation

    def pairs(self) -> Iterator[tuple[dict[str, Any], str]]:
        """Yield a row for each pair of answers to one text of which one was judged up and the other down, and its
        conversation (or "").
        """
        rows = self._db.execute(PAIRED, (held_out_below(self._options),))
        return make_pairs((Judgement(*row) for row in rows), self._options)

    def contradictions(self) -> Iterator[tuple[str, str, str | None, str, str, int, str, str]]:
        """Yield task, text, second text, kind, target, whether it is denied, person and feedback id; those of one text stand together."""
        for task, text, second, kind, *rest in self._db.execute(
            "SELECT contradictions.task, text, second, kind, target, denies, contradictions.person, id FROM contradictions"
            " JOIN requests ON requests.place = request JOIN feedback ON feedback.place = contradictions.place"
            " ORDER BY contradictions.task, request, target, denies, contradictions.person"
        ):
            yield task, text, second_read(kind, second), kind, *rest

    def left_out(self) -> Iterator[tuple[str, OffsetRange, int, str | None, str | None]]:
        """Yield reason, range, offset, feedback id and prediction id, in the order of the records, feedback first."""
        rows = self._db.execute(
            "SELECT left_out, place, id, lower(hex(prediction)) FROM feedback WHERE left_out IS NOT NULL UNION ALL"
            " SELECT reason, left_out.place, id, lower(hex(prediction)) FROM left_out"
            " LEFT JOIN feedback ON feedback.place = left_out.place UNION ALL"
            " SELECT 'unreadable', place, NULL, NULL FROM unreadable WHERE role = 'feedback' ORDER BY 2"
        )
        for reason, here, name, prediction in rows:
            yield reason, *of_place(here, self._ranges["feedback"]), name, prediction
        others = self._db.execute(
            "SELECT role, place FROM unreadable WHERE role <> 'feedback' ORDER BY role DESC, place"
        )
        for role, here in others:
            yield _UNREADABLE[role], *of_place(here, self._ranges[role]), None, None

    def counts(self) -> dict[str, int]:
        """Return how many feedback records there were, by what became of them, other records that are unreadable, spans that
        were trimmed, and predictions that were drawn at random.
        """
        one = self._db.execute(
            "SELECT (SELECT count(*) FROM feedback), (SELECT count(*) FROM left_out WHERE reason = 'invalid'),"
            " (SELECT count(*) FROM feedback WHERE verdict = 'withdrawn' AND left_out IS NULL),"
            " (SELECT ifnull(sum(people), 0) FROM examples)"
        ).fetchone()
        reasons = self._db.execute(
            "SELECT reason, count(*) FROM (SELECT left_out AS reason FROM feedback WHERE left_out IS NOT NULL UNION ALL"
            " SELECT reason FROM left_out) GROUP BY reason"
        )
        drawn = self._db.execute(
            "SELECT count(*), (SELECT count(*) FROM examples WHERE part = 'heldout' AND rate IS NOT NULL) FROM drawn"
        ).fetchone()
        found = dict(zip((DRAWN, DRAWN_JUDGED), drawn, strict=True)) if drawn[0] else {}
        unreadable = self._db.execute("SELECT role, count(*) FROM unreadable GROUP BY role")
        by_reason = {**dict(reasons), **{_UNREADABLE[role].value: count for role, count in unreadable}}
        feedback = one[0] + one[1] + by_reason.get(LeftOut.UNREADABLE, 0)
        trimmed = {TRIMMED_SPANS: self._trimmed_spans} if self._trimmed_spans else {}
        return {
            "feedback": feedback,
            "taking_back": one[2],
            "used": one[3],
            **trimmed,
            **found,
            **dict(sorted(by_reason.items())),
        }

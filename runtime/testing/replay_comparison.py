"""Compares replayed results with published ones, joined by prediction id, on disk. Pure except for its file."""

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ..errors import SetupError
from ..model.kinds.registry import find_kind
from .replay_reviews import DisagreementSample

SHOWN: Final = 20
"""Number of coordinates of changed results to keep."""
_MOST_PAIRS: Final = 10_000
"""Maximum number of different label pairs to count; further ones are counted together."""
OTHERS: Final = "(others)"


class Comparison:
    """Replayed results by prediction id, and their differences from the published ones.

    Memory is bounded; the file takes about 200 bytes per result. Of a result that was published twice the first counts.
    """

    def __init__(self, file: Path, sample: DisagreementSample | None = None) -> None:
        """`sample`: keeps some of the published results that were contradicted."""
        self._sample = sample
        self._base = sqlite3.connect(file)
        self._base.execute("pragma synchronous = off")
        self._base.execute("pragma journal_mode = off")
        self._base.execute("create table replayed (id blob primary key, place text, answers text) without rowid")
        self.joined = 0
        """Number of results that are replayed and published."""
        self.expired = 0
        """Number of results published as `expired`, which are not compared."""
        self.only_replayed = 0
        """Number of results without a published one; set by `finish`."""
        self.agreed: Counter[str] = Counter()
        """By task."""
        self.compared: Counter[str] = Counter()
        self.pairs: Counter[tuple[str, str, str]] = Counter()
        """Counts of differing answers: task, published label, replayed label."""
        self.changed: list[tuple[str, str]] = []
        """The first differing answers: coordinates and task."""

    def add(self, value: bytes | None) -> None:
        """Add a replayed result."""
        if (result := _read(value)) is None:
            return
        row = (bytes.fromhex(result["prediction_id"]), _place(result), json.dumps(_answers(result)))
        self._base.execute("insert or ignore into replayed values (?, ?, ?)", row)

    def join(self, value: bytes | None) -> None:
        """Compare a published result with the replayed one with its id, if there is one."""
        if (result := _read(value)) is None:
            return
        key = (bytes.fromhex(result["prediction_id"]),)
        found = self._base.execute("select place, answers from replayed where id = ?", key).fetchone()
        if found is None:
            return
        if result.get("status") == "expired":
            self.expired += 1
            return
        self._base.execute("delete from replayed where id = ?", key)
        self.joined += 1
        self._compare(found[0], result, json.loads(found[1]))

    def finish(self) -> None:
        """Count the replayed results without a published one, and close the file."""
        (self.only_replayed,) = self._base.execute("select count(*) from replayed").fetchone()
        self._base.close()

    def _compare(self, place: str, result: Mapping[str, Any], replayed: Mapping[str, str]) -> None:
        published = _answers(result)
        for task, answer in replayed.items():
            before = published.get(task)
            if before is None:
                continue
            self.compared[task] += 1
            if before == answer:
                self.agreed[task] += 1
                continue
            pair = (task, before, answer)
            known = pair in self.pairs or len(self.pairs) < _MOST_PAIRS
            self.pairs[pair if known else (task, OTHERS, OTHERS)] += 1
            if self._sample is not None:
                self._sample.add(result, task)
            if len(self.changed) < SHOWN:
                self.changed.append((place, task))


def _read(value: bytes | None) -> dict[str, Any] | None:
    """Return a result's fields; None for a record that is not a result."""
    try:
        result = json.loads(value or b"null")
        bytes.fromhex(result["prediction_id"])
        return result if isinstance(result["outputs"], dict) and isinstance(result["source"], dict) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _place(result: Mapping[str, Any]) -> str:
    source = result["source"]
    return f"{source.get('topic')}/{source.get('partition')}/{source.get('offset')}"


def _answers(result: Mapping[str, Any]) -> dict[str, str]:
    return {task: answer_of(output) for task, output in result["outputs"].items()}


def answer_of(output: Any) -> str:
    """Return an answer without scores and without parts of the text."""
    try:
        kind = find_kind(output)
        return json.dumps(output, sort_keys=True) if kind is None else kind.name_answer(output)
    except (AttributeError, KeyError, TypeError, ValueError, SetupError):
        return json.dumps(output, sort_keys=True)

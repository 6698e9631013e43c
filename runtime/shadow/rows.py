"""The records that wait for a shadow: bounded in bytes, the oldest dropped first. Pure."""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from ..batching.queues.version_queue import VersionTerms
from ..model.inputs import Input

ROW_BYTES: Final = 2200
TASK_BYTES: Final = 1000
TOKEN_BYTES: Final = 160
"""Resident size of tokenised texts with offsets, of 23 and 103 tokens: 1,150 bytes and 156 a token; the answers come to it."""


class Versions(NamedTuple):
    """The model's name, the version that answered, and the one that is compared."""

    name: str
    current: int
    candidate: int


class Request(NamedTuple):
    """Where a compared request came from, and whose predictions about it were published."""

    request_id: str
    source: str
    """As in prediction ids."""
    topic: str
    partition: int
    offset: int
    timestamp: int
    agents: Mapping[str, tuple[str, ...]]
    """The tasks that each has answered."""


class Row:
    """An answered record to compare."""

    __slots__ = (
        "alone",
        "bytes",
        "encoded",
        "outputs",
        "request",
        "tasks",
        "text",
        "thresholds",
        "tokens",
        "versions",
        "windows",
    )

    def __init__(
        self,
        versions: Versions,
        request: Request,
        text: Input,
        encoded: Any,
        tokens: int,
        tasks: tuple[str, ...],
        outputs: Mapping[str, Mapping[str, Any]],
        thresholds: Any,
        windows: Any,
    ) -> None:
        """`encoded` None: it is tokenised just before its pass; `tokens` is then what the current version has."""
        self.versions, self.request, self.text = versions, request, text
        self.encoded, self.tokens = encoded, tokens
        self.tasks, self.outputs = tasks, outputs
        self.thresholds, self.windows = thresholds, windows
        self.alone = False
        """Whether a pass with others failed, so that it runs on its own."""
        texts = (text,) if isinstance(text, str) else text[:2]
        size = sum(len(part) if part.isascii() else 4 * len(part) for part in texts)
        self.bytes = ROW_BYTES + TASK_BYTES * len(tasks) + size + TOKEN_BYTES * tokens


class Taken(NamedTuple):
    """The rows of the next pass, and those that alone would take longer than a pass may."""

    rows: list[Row]
    too_long: list[Row]


class WaitingRows:
    """First in, first out, of at most `most_bytes`; one row alone is always held."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._rows: deque[Row] = deque()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: Row) -> list[Row]:
        """Append a row; returns the oldest ones, which are dropped for it."""
        self._rows.append(row)
        self.bytes += row.bytes
        dropped = []
        while self.bytes > self._most_bytes and len(self._rows) > 1:
            dropped.append(self._pop())
        return dropped

    def put_back(self, rows: Iterable[Row]) -> None:
        """Let rows that were taken come next again, in their order."""
        for row in reversed([*rows]):
            self._rows.appendleft(row)
            self.bytes += row.bytes

    def take(self, terms: VersionTerms, most_s: float, pass_s: float) -> Taken:
        """Remove and return the rows of a pass of at most `pass_s` of calibrated device time, within the version's terms, or one row.

        A row that alone takes more than `most_s` is none of a pass.
        """
        rows: list[Row] = []
        too_long: list[Row] = []
        tokens = longest = 0
        while self._rows:
            row = self._rows[0]
            if terms.seconds(row.tokens) > most_s:
                too_long.append(self._pop())
                continue
            longest = max(longest, row.tokens)
            if rows and not (
                row.alone is rows[0].alone is False and fits(terms, pass_s, len(rows) + 1, tokens + row.tokens, longest)
            ):
                break
            tokens += row.tokens
            rows.append(self._pop())
        return Taken(rows, too_long)

    def clear(self) -> None:
        """Drop all rows."""
        self._rows.clear()
        self.bytes = 0

    def _pop(self) -> Row:
        row = self._rows.popleft()
        self.bytes -= row.bytes
        return row


def fits(terms: VersionTerms, most_s: float, rows: int, tokens: int, longest: int) -> bool:
    """Return whether so many rows are within a version's terms and a pass's device time."""
    return (
        rows <= terms.max_rows
        and tokens <= terms.token_budget
        and rows * longest <= terms.max_cells
        and terms.seconds(tokens) <= most_s
    )

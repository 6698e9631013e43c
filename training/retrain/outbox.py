"""What a run has to tell, kept in its work folder until the broker has acknowledged it: nobody's kill loses an event."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from ..run_folders.os_errors import as_os_error, write_text

LOG: Final = "events.jsonl"
SENT: Final = "events.sent"


@dataclass(frozen=True)
class Entry:
    """A record to be. `id` is the same whenever the same thing is said again, so that receivers can drop repeats."""

    id: str
    topic: str
    key: str
    type: str
    at: str
    value: str


class Outbox:
    """A log that is only appended to, and how many of its entries, from the first on, have been acknowledged.

    Entries are added by one thread and acknowledged by another.
    """

    def __init__(self, folder: Path) -> None:
        self._log, self._sent = folder / LOG, folder / SENT
        self._entries = _read(self._log)
        self._ids = {entry.id for entry in self._entries}
        sent = int(self._sent.read_text(encoding="utf-8")) if self._sent.is_file() else 0
        self._acknowledged = min(sent, len(self._entries))
        if self._acknowledged < sent:  # the log has lost lines: what is added in their place is not sent yet
            self._note_acknowledged()

    def add(self, entry: Entry) -> bool:
        """Keep an entry; False when one with its id was kept before."""
        if entry.id in self._ids:
            return False
        with as_os_error(self._log), self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(entry), ensure_ascii=False) + "\n")
        self._ids.add(entry.id)
        self._entries.append(entry)
        return True

    def times(self, start: str) -> int:
        """Count the entries whose id begins so."""
        return sum(each.startswith(start) for each in self._ids)

    def first_unsent(self) -> Entry | None:
        """Return what is to be sent next: order is kept."""
        return self._entries[self._acknowledged] if self.unsent else None

    def acknowledge(self) -> None:
        """The first unsent entry is with the broker."""
        self._acknowledged += 1
        self._note_acknowledged()

    def _note_acknowledged(self) -> None:
        draft = self._sent.with_name(f".{SENT}.part")
        write_text(draft, f"{self._acknowledged}\n")
        draft.replace(self._sent)

    @property
    def unsent(self) -> int:
        """How many entries wait."""
        return len(self._entries) - self._acknowledged


def _read(log: Path) -> list[Entry]:
    """Read the log; a last line that was cut off in the middle is removed from it."""
    if not log.is_file():
        return []
    entries, whole = [], 0
    with log.open("rb") as file:
        for line in file:
            if (fields := _fields(line)) is None:
                break
            entries.append(Entry(**fields))
            whole += len(line)
    if whole < log.stat().st_size:
        with log.open("r+b") as file:
            file.truncate(whole)
    return entries


def _fields(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        found: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return found

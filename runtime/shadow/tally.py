"""Counts what became of the records of a shadow, until they are published. Pure."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

from .comparing import Compared
from .rows import Versions

Outcome = Literal["agreed", "differed", "dropped", "too_long", "failed"]


class Tally:
    """Counts since it was taken last, by versions."""

    def __init__(self) -> None:
        self._counts: dict[Versions, Counter[str]] = {}
        self._tasks: dict[Versions, Counter[tuple[str, bool]]] = {}

    def add_answered(self, versions: Versions, answered: int, chosen: int) -> None:
        """Count records that the current version answered, and those of the share among them."""
        self._find(versions).update(answered=answered, chosen=chosen)

    def add(self, versions: Versions, outcome: Outcome, count: int = 1) -> None:
        """Count records by what became of them."""
        self._find(versions)[outcome] += count

    def add_compared(self, versions: Versions, compared: Compared) -> None:
        """Count a record that was compared, and its tasks."""
        self.add(versions, "agreed" if compared.agrees else "differed")
        tasks = self._tasks.setdefault(versions, Counter())
        for name, task in compared.tasks.items():
            tasks[name, task["agrees"]] += 1

    def take(self) -> Iterator[tuple[Versions, dict[str, Any]]]:
        """Return the counts as fields of `schemas.shadow.ShadowCounts`, and begin anew."""
        counts, tasks = self._counts, self._tasks
        self._counts, self._tasks = {}, {}
        for versions, found in counts.items():
            if any(found.values()):
                yield versions, _to_fields(found, tasks.get(versions, Counter()))

    def _find(self, versions: Versions) -> Counter[str]:
        found = self._counts.get(versions)
        if found is None:
            found = self._counts[versions] = Counter()
        return found


def _to_fields(counts: Counter[str], tasks: Counter[tuple[str, bool]]) -> dict[str, Any]:
    names = dict.fromkeys(name for name, _ in tasks)
    return {
        "answered": counts["answered"],
        "chosen": counts["chosen"],
        "compared": counts["agreed"] + counts["differed"],
        "agreed": counts["agreed"],
        "dropped": counts["dropped"],
        "too_long": counts["too_long"],
        "failed": counts["failed"],
        "tasks": {
            name: {"compared": tasks[name, True] + tasks[name, False], "agreed": tasks[name, True]} for name in names
        },
    }

"""Sums up what was found about versions that are only compared, from `murmura.shadow`. Pure, and bounded."""

from collections.abc import Sequence
from typing import Final

from pydantic import ValidationError

from ...runtime.shadow.report import ShadowReport
from ...runtime.wire.message import Record
from ...schemas.shadow import ShadowRecord

MOST_REPORTS: Final = 16
"""Versions of which reports are kept; the one without a record for the longest time leaves first."""
MOST_CHANGES: Final = 500
"""Of a report, each of a few hundred bytes."""
_NAME_CHARACTERS: Final = 300


class ShadowIndex:
    """Takes the records of `murmura.shadow`; has the reports that `murmura experiment report --shadow` makes of them."""

    def __init__(self, most: int = MOST_REPORTS) -> None:
        self._most = most
        self._reports: dict[tuple[str, int], ShadowReport] = {}

    def take(self, records: Sequence[Record]) -> None:
        for record in records:
            try:
                found = ShadowRecord.model_validate_json(record.value or b"")
            except ValidationError:
                continue
            model = found.root.model
            if len(model.name) <= _NAME_CHARACTERS:
                self._find(model.name, model.candidate).add(found)

    def _find(self, name: str, candidate: int) -> ShadowReport:
        report = self._reports.pop((name, candidate), None)
        if report is None:
            report = ShadowReport(name, candidate, most_changes=MOST_CHANGES)
            if len(self._reports) >= self._most:
                del self._reports[next(iter(self._reports))]
        self._reports[name, candidate] = report
        return report

    def get(self, name: str, candidate: int) -> ShadowReport | None:
        return self._reports.get((name, candidate))

    def reports(self) -> list[ShadowReport]:
        """Return all, the one with the newest record first."""
        return [*reversed(self._reports.values())]

"""Two versions on the same records: agreement, and what each withheld, by task. Pure."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from pydantic import ValidationError

from ...schemas.result import Result
from ..experiments.observations import count_result
from .replay_comparison import Comparison

_MEASURES: Final = ("withheld", "out_of_scope")


class AnswerCounts:
    """Counts the classifications of a version that were withheld, by task and reason."""

    def __init__(self, name: str) -> None:
        """`name`: of the version, for people."""
        self.name = name
        self._counts: Counter[tuple[str, bool]] = Counter()

    def add(self, value: bytes | None) -> None:
        """Count a result; what is none counts nothing."""
        try:
            counts = count_result(Result.model_validate_json(value or b""))
        except ValidationError:
            return
        for key, (happened, chances) in counts.items():
            self._counts[key, True] += int(happened)
            self._counts[key, False] += int(chances)

    def share(self, measure: str, task: str) -> float | None:
        """Return the share of a task's answers, `withheld` or `out_of_scope`; None for a task without either."""
        chances = self._counts[f"{measure}/{task}", False]
        return self._counts[f"{measure}/{task}", True] / chances if chances else None


def compare_versions(comparison: Comparison, old: AnswerCounts, new: AnswerCounts) -> Iterator[str]:
    """Yield a table for people: of each task how often both agree, and what each withheld, with the difference."""
    yield f"{new.name} against {old.name}"
    yield f"{'task':20} {'answers':>9} {'agree':>7}   {'withheld':24} out of scope"
    for task, compared in comparison.compared.items():
        shares = [_format_change(old.share(measure, task), new.share(measure, task)) for measure in _MEASURES]
        agreed = f"{100 * comparison.agreed[task] / compared:.1f} %"
        yield f"{task:20} {compared:9,} {agreed:>7}   {shares[0]:24} {shares[1]}".rstrip()


def _format_change(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return "-"
    return f"{100 * before:.1f} -> {100 * after:.1f} % ({100 * (after - before):+.1f})"

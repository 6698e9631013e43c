"""Which answers people have judged already, by the feedback on Kafka: a bounded index of the newest. Pure."""

from collections import OrderedDict
from typing import Final

from ...schemas.feedback import Feedback, Verdict

MOST_ANSWERS: Final = 50_000
_JUDGES: Final = {Verdict.CORRECTION, Verdict.CONFIRMED}


class KnownVerdicts:
    """Corrections and confirmations that stand, by prediction and task; the longest untouched answers are forgotten.

    What customers say by `up`, `down` and `reward` names no right answer, so such an answer is still to be judged.
    """

    def __init__(self, most: int = MOST_ANSWERS) -> None:
        self._most = most
        self._by_answer: OrderedDict[tuple[str, str], dict[str, str]] = OrderedDict()
        """Feedback id: author."""
        self._withdrawn: OrderedDict[str, str] = OrderedDict()
        """Id: who withdrew it, which counts for feedback of one's own."""

    def add(self, feedback: Feedback) -> None:
        """Note feedback; the same again changes nothing, and a withdrawal may come before what it withdraws."""
        key = feedback.prediction_id, feedback.task
        if feedback.verdict is Verdict.WITHDRAWN:
            self._withdraw(str(feedback.value), feedback.by, key)
        elif feedback.verdict in _JUDGES and self._withdrawn.get(feedback.id) != feedback.by:
            self._by_answer.setdefault(key, {})[feedback.id] = feedback.by
            self._by_answer.move_to_end(key)
            if len(self._by_answer) > self._most:
                self._by_answer.popitem(last=False)

    def _withdraw(self, name: str, by: str, key: tuple[str, str]) -> None:
        self._withdrawn[name] = by
        if len(self._withdrawn) > self._most:
            self._withdrawn.popitem(last=False)
        found = self._by_answer.get(key, {})
        if found.get(name) == by:
            del found[name]

    def judges_of(self, prediction_id: str, task: str) -> dict[str, str]:
        """Return the verdicts on an answer that stand: their ids and authors, the first first."""
        return dict(self._by_answer.get((prediction_id, task), {}))

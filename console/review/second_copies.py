"""Which reviews that two people judge, and one did at another console, are put before people here, too. Pure, and bounded.

Consoles of one group have a review each, so its second person may work at another one. All of them read `murmura.reviews` and
`murmura.feedback` whole, beside the group: who has judged what, and when, is known everywhere.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from ...runtime.wire.message import Record
from ...schemas.feedback import Feedback, Verdict
from ...schemas.review import Review
from .counts import is_doubled
from .item import item_key
from .loading import read_review

OWN_S: Final = 600.0
"""How long the second person is looked for at the console that has the review."""
LATEST_S: Final = 3000.0
"""Time after the first verdict from which no copy is begun: its console gives up after an hour."""
MOST_REVIEWS: Final = 1_000


class SecondCopies:
    """Takes reviews and verdicts in order; returns each review once, when a second person may be looked for here.

    Several other consoles may begin at once, so a third verdict on an answer is possible; all are kept.
    """

    def __init__(self, overlap: float, most: int = MOST_REVIEWS) -> None:
        self._overlap, self._most = overlap, most
        self._reviews: OrderedDict[str, Review] = OrderedDict()
        self._verdicts: OrderedDict[str, dict[str, Feedback]] = OrderedDict()
        """By item: verdicts that stand, by their ids."""

    def take_reviews(self, records: Sequence[Record]) -> None:
        for record in records:
            review = read_review(record.value)
            if review is None or review.prediction_id is None or review.source is None or review.agent is None:
                continue
            key = item_key(review.prediction_id, review.task)
            if is_doubled(key, self._overlap):
                self._reviews[key] = review
                _bound(self._reviews, self._most)

    def note(self, feedback: Feedback) -> None:
        """Note a verdict, or its withdrawal."""
        key = item_key(feedback.prediction_id, feedback.task)
        if not is_doubled(key, self._overlap):
            return
        if feedback.verdict is Verdict.WITHDRAWN:
            self._verdicts.get(key, {}).pop(str(feedback.value), None)
        elif feedback.verdict in {Verdict.CONFIRMED, Verdict.CORRECTION}:
            self._verdicts.setdefault(key, {})[feedback.id] = feedback
            _bound(self._verdicts, self._most)

    def take_due(self, now: float) -> list[tuple[Review, Feedback]]:
        """Return the reviews with one verdict of ten minutes ago or more, with it; none of them again."""
        due = []
        for key, given in list(self._verdicts.items()):
            authors = {each.by for each in given.values()}
            first = next(iter(given.values()), None)
            if len(authors) != 1 or first is None or key not in self._reviews:
                continue
            if OWN_S <= now - first.at.timestamp() < LATEST_S:
                due.append((self._reviews.pop(key), first))
        return due


def _bound(kept: "OrderedDict[str, Review] | OrderedDict[str, dict[str, Feedback]]", most: int) -> None:
    while len(kept) > most:
        kept.popitem(last=False)

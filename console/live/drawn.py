"""Which answers were drawn at random for review: people judge them without seeing them. Pure, and bounded."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from ...runtime.wire.message import Record
from ...schemas.review import ReviewReason
from ..review.loading import read_review

MOST_DRAWN: Final = 20_000


class DrawnAnswers:
    """Takes the records of `murmura.reviews`; has the prediction ids of the latest that were drawn."""

    def __init__(self, most: int = MOST_DRAWN) -> None:
        self._most = most
        self._ids: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, prediction_id: object) -> bool:
        return prediction_id in self._ids

    def take(self, records: Sequence[Record]) -> None:
        for record in records:
            review = read_review(record.value)
            if review is None or review.prediction_id is None or review.why is not ReviewReason.RANDOM:
                continue
            self._ids[review.prediction_id] = None
            if len(self._ids) > self._most:
                self._ids.popitem(last=False)

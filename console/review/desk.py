"""What people do at the review queue, whoever reads the items and takes the verdicts: Kafka, or a file. Told the time."""

import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from ...schemas.feedback import Feedback, Verdict
from .counts import Counts
from .item import ReviewItem
from .posted import BadEntry, Judgement, Posted, read_posted
from .queue import ReviewQueue

MOST_UNSENT: Final = 1000
"""Verdicts that wait for the broker; then no more are taken."""
_REMEMBERED: Final = 10_000
"""Actions whose answers may have been lost, of everybody."""


@dataclass(frozen=True)
class Shown:
    """What a browser shows: the item, the one behind it, and what there is to say."""

    item: ReviewItem | None
    following: ReviewItem | None
    counts: Counts
    done: int
    """Verdicts of this person since the console started."""
    may_undo: bool
    others: tuple[str, ...] = ()
    """Who has judged the item already, where a second person was not wanted."""
    note: str | None = None
    """What became of the last action, where it was not as expected."""
    failed: str | None = None
    """Why the last action was refused."""
    entered: Posted | None = None
    """What was entered for the item and not taken: it is shown again."""


class ReviewDesk:
    """`wake` is called when there is something to send."""

    def __init__(self, queue: ReviewQueue, wake: Callable[[], None] = lambda: None) -> None:
        self.queue, self._wake = queue, wake
        self._done: OrderedDict[tuple[str, str], tuple[str | None, str | None]] = OrderedDict()
        """By person and name of an action: the note and the failure that were answered."""

    def once(self, action: str | None, holder: str, person: str, now: float, act: Callable[[], Shown]) -> Shown:
        """Act, and return what the browser shows. An action that was done already is not done again.

        A page asks again when an answer was lost on its way. `action` names what the person did once; None acts always.
        """
        if action is None:
            return act()
        if (answer := self._done.get((person, action))) is not None:
            return self.show(holder, person, now, note=answer[0], failed=answer[1])
        shown = act()
        self._done[person, action] = shown.note, shown.failed
        if len(self._done) > _REMEMBERED:
            self._done.popitem(last=False)
        return shown

    def show(
        self, holder: str, person: str, now: float, *, note: str | None = None, failed: str | None = None
    ) -> Shown:
        """Return what a browser shows, and lease it."""
        item, following, *_ = [*self.queue.hold(holder, person, now), None, None]
        return Shown(
            item,
            following,
            self.queue.counts(now),
            self.queue.by_person[person],
            self.queue.undoable(person) is not None,
            () if item is None else self.queue.judges_to_tell(item.key, person),
            note,
            failed,
        )

    def judge(self, key: str, holder: str, person: str, posted: Posted, now: float) -> Shown:
        """Take a person's verdict on an item. Nothing is taken of what is no answer: the item stays."""
        item = self.queue.find(key)
        if item is None:
            return self.show(holder, person, now, failed="This text is not here any more, so nothing was sent.")
        if len(self.queue.unsent) >= MOST_UNSENT:
            failed = f"{MOST_UNSENT:,} verdicts wait for the broker: wait, too."
            return self._show_again(key, holder, person, posted, now, failed)
        try:
            judgement = read_posted(posted, item)
        except BadEntry as error:
            return self._show_again(key, holder, person, posted, now, f"Not taken: {error}.")
        feedback = make_feedback(item, judgement, person, consent=bool(posted.get("consent")))
        taken = self.queue.give(key, holder, feedback, judgement.target, now)
        self._wake()
        others = taken.others if taken is not None else ()
        note = f"{' and '.join(others)} judged that text, too. Both verdicts are kept." if others else None
        return self.show(holder, person, now, note=note)

    def _show_again(self, key: str, holder: str, person: str, posted: Posted, now: float, failed: str) -> Shown:
        """Return what a browser shows, with what was entered where the item is still on its screen."""
        shown = self.show(holder, person, now, failed=failed)
        return replace(shown, entered=posted) if shown.item is not None and shown.item.key == key else shown

    def skip(self, key: str, holder: str, person: str, now: float) -> Shown:
        """Put an item behind all others."""
        self.queue.skip(key, holder)
        return self.show(holder, person, now)

    def undo(self, holder: str, person: str, now: float) -> Shown:
        """Withdraw the person's last verdict and show its item again."""
        found = self.queue.undoable(person)
        if found is None:
            return self.show(
                holder, person, now, failed="There is nothing to undo: ten verdicts, for ten minutes, can be."
            )
        item, name = found
        withdrawal = make_feedback(item, Judgement(Verdict.WITHDRAWN, name, ""), person, consent=False)
        self.queue.undo(holder, withdrawal, now)
        self._wake()
        return self.show(holder, person, now, note="Your last verdict is withdrawn.")


def make_feedback(item: ReviewItem, judgement: Judgement, person: str, *, consent: bool) -> Feedback:
    """Return the record of a verdict."""
    return Feedback(
        id=str(uuid.uuid4()),
        prediction_id=item.prediction_id,
        agent=item.agent,
        task=item.task.name,
        model=item.model,
        source=item.source,
        verdict=judgement.verdict,
        value=judgement.value,
        by=person,
        at=datetime.now(UTC),
        consent=consent,
        blind=item.is_judged_blind,
    )

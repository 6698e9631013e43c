"""The review queue: leases, verdicts, undo, and which items are done. Pure: no I/O, and callers pass the time.

Invariants:
- without overlap at most one browser holds an item;
- an item is done only when the broker has acknowledged every verdict on it, and none of them can be undone any more;
- a verdict that is not acknowledged stays in `unsent`;
- an item is undone only while this console reads its partition: else another one may have called it done.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from ...schemas.feedback import Feedback
from .agreement import Agreement, add_pair
from .counts import Counts, Taken, is_doubled
from .entry import Entry, Given
from .item import ReviewItem

LEASE_S: Final = 600.0
UNDO_S: Final = 600.0
UNDO_DEPTH: Final = 10
"""Verdicts of a person that can be undone."""
SECOND_BY_S: Final = 3600.0
"""How long an item waits for its second person."""
_REMEMBERED: Final = 10_000
HELD: Final = 2
"""Items that a browser holds: the one on the screen, and the next."""


class ReviewQueue:
    """All items of one console. `overlap`: the share that two people judge, each without knowing of the other."""

    def __init__(self, overlap: float = 0.05, most: int = 500) -> None:
        self._overlap, self._most = overlap, most
        self._entries: dict[str, Entry] = {}
        self._held: dict[str, list[str]] = {}
        """By browser: keys of the items that it holds, the one on the screen first."""
        self._left: OrderedDict[str, tuple[Entry, float]] = OrderedDict()
        """The items that left lately, with when: a verdict on one of them is late, and is taken."""
        self._undo: dict[str, deque[tuple[str, Given]]] = {}
        self._numbers = 0
        self.unsent: OrderedDict[str, Feedback] = OrderedDict()
        """By id: what the broker has not acknowledged."""
        self._owners: dict[str, str] = {}
        """Id of unsent feedback: key of its item."""
        self._own: OrderedDict[str, None] = OrderedDict()
        """The newest ids of feedback from here, which comes back with everybody's."""
        self.agreement: dict[str, Agreement] = {}
        """By task."""
        self.by_person: Counter[str] = Counter()
        self._judged = self._set_aside = self._elsewhere = 0

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    @property
    def room(self) -> int:
        """How many items it takes in."""
        return max(0, self._most - len(self._entries))

    def find(self, key: str) -> ReviewItem | None:
        """Return an item that is here, or left less than a lease ago."""
        entry = self._entries.get(key) or self._left.get(key, (None,))[0]
        return None if entry is None else entry.item

    # Items come and go.

    def add(self, item: ReviewItem, judges: Mapping[str, str] | None = None, now: float = 0.0) -> None:
        """Take in an item. `judges`: feedback ids and authors of verdicts from elsewhere, or from here before a restart."""
        if (known := self._entries.get(item.key)) is not None:
            known.kept = True  # read again after a rebalance
            if item.why is not None:
                known.chosen_at = None  # a review asks for it, too
            if item.is_blind and not known.given:
                known.item = replace(
                    item, was_seen=known.was_held and not known.item.is_judged_blind
                )  # asked about for another reason, too
            return
        self._left.pop(item.key, None)
        self._numbers += 1
        needed = 2 if is_doubled(item.key, self._overlap) else 1
        self._entries[item.key] = Entry(item, needed, self._numbers)
        for name, by in (judges or {}).items():
            self.note_judge(item.key, by, name, now)

    def note_judge(self, key: str, by: str, feedback_id: str, now: float, target: str | None = None) -> None:
        """Note a verdict that another console, or another program, has sent. `target`: what it stands for, where that is known."""
        entry = self._entries.get(key)
        if entry is not None and feedback_id not in self._own and entry.judged_by(by) is None:
            entry.given.append(Given(by, feedback_id, target, now, sent=True, elsewhere=True))

    def note_withdrawal(self, key: str, by: str, feedback_id: str) -> None:
        """Note that the author has withdrawn a verdict from elsewhere."""
        entry = self._entries.get(key)
        if entry is not None and feedback_id not in self._own:
            entry.given = [each for each in entry.given if (each.feedback_id, each.by) != (feedback_id, by)]

    def revoke(self, topics_and_partitions: Iterable[tuple[str, int]]) -> None:
        """Drop the items of partitions that another console reads now, but those that are held or were judged here."""
        gone = set(topics_and_partitions)
        for key, entry in list(self._entries.items()):
            if entry.item.place[:2] in gone:
                entry.kept = False
                if not entry.leases and not entry.given and not entry.withdrawing:
                    del self._entries[key]

    def finish(self, now: float, *, closing: bool = False) -> list[ReviewItem]:
        """Remove the items that are done, and return them: their offsets may be committed. `closing`: nobody undoes any more.

        An item to which a late verdict came is returned again.
        """
        self._forget_undo(now)
        self._forget_left(now)
        if closing:
            self._undo.clear()
        undoable = {key for stack in self._undo.values() for key, _ in stack}
        done = []
        for key, entry in list(self._entries.items()):
            entry.drop_leases(now)
            if key in undoable or entry.leases or not entry.is_settled:
                continue
            is_done = entry.is_complete(now, SECOND_BY_S)
            if is_done or not entry.kept:  # or another console has it
                del self._entries[key]
                self._left[key] = entry, now
            if is_done:
                self._count(entry, now)
                done.append(entry.item)
        self._forget_holders()
        return done

    def _count(self, entry: Entry, now: float) -> None:
        if entry.is_counted:
            return
        entry.is_counted = True
        if entry.is_set_aside(now):
            self._set_aside += 1
        elif not all(each.elsewhere for each in entry.given):
            self._judged += 1
        else:
            self._elsewhere += 1
        targets = [each.target for each in entry.given if each.target is not None]
        if entry.needed > 1 and len(targets) > 1:  # else who judged it second may have seen the first verdict
            add_pair(self.agreement, entry.item.task, *targets[:2])

    def _forget_undo(self, now: float) -> None:
        for person, stack in list(self._undo.items()):
            while stack and stack[0][1].at + UNDO_S <= now:
                stack.popleft()
            if not stack:
                del self._undo[person]

    def _forget_left(self, now: float) -> None:
        for key, (_, at) in list(self._left.items()):
            if at + LEASE_S > now and len(self._left) <= self._most:
                break
            del self._left[key]

    def _forget_holders(self) -> None:
        """Forget the browsers whose leases have all run out."""
        leased = {holder for entry in self._entries.values() for holder in entry.leases}
        self._held = {holder: keys for holder, keys in self._held.items() if holder in leased}

    # What a browser holds.

    def hold(self, holder: str, person: str, now: float) -> list[ReviewItem]:
        """Lease up to two items to a browser for ten minutes from now: the one to show, and the next."""
        held = [key for key in self._held.get(holder, ()) if self._may_keep(key, holder, person, now)]
        for key in set(self._held.get(holder, ())) - set(held):
            self._release(key, holder)
        if len(held) < HELD:
            free = (
                key
                for key, entry in sorted(self._entries.items(), key=lambda pair: pair[1].number)
                if entry.kept and key not in held and entry.is_free_for(person, holder, now)
            )
            held += [key for key, _ in zip(free, range(HELD - len(held)), strict=False)]
        self._held[holder] = held
        if not held:
            del self._held[holder]
        for key in held:
            self._entries[key].lease(holder, now + LEASE_S)
        return [self._entries[key].item for key in held]

    def _may_keep(self, key: str, holder: str, person: str, now: float) -> bool:
        """Return whether it stays. What is on the screen does while it is leased, also when somebody else judges it."""
        entry = self._entries.get(key)
        if entry is None or entry.judged_by(person) is not None:
            return False
        entry.drop_leases(now)
        on_screen = self._held[holder][0] == key and holder in entry.leases
        return on_screen or entry.is_free_for(person, holder, now)

    def ask_for(self, item: ReviewItem, judges: Mapping[str, str], holder: str, person: str, now: float) -> str | None:
        """Take in an answer that a person chose, and put it before the browser. Returns why not, None where it was."""
        left = self._left.get(item.key, (None,))[0]
        if left is not None and left.judged_by(person) is None:
            self._bring_back(item.key)  # with who has judged it
        entry = self._entries.get(item.key)
        if entry is None and not self.room:
            return "The review queue is full: judge some of its texts first."
        if entry is not None and entry.judged_by(person) is not None:
            return "You have judged this answer. The review queue can undo it for ten minutes."
        if entry is not None and entry.is_held_by_others(holder, now):
            return "Somebody else, or another browser of yours, holds this answer in the review queue, for ten minutes at most."
        self.add(item, judges, now)
        if entry is None:
            self._entries[item.key].chosen_at = now
        self._put_before(holder, item.key, now)
        return None

    def _put_before(self, holder: str, key: str, now: float) -> None:
        """Lease an item to a browser as the one on its screen. Another browser of the person may have finished what it held."""
        held = [each for each in self._held.get(holder, ()) if each in self._entries and each != key]
        for extra in held[HELD - 1 :]:
            self._entries[extra].leases.pop(holder, None)
        self._held[holder] = [key, *held[: HELD - 1]]
        self._entries[key].lease(holder, now + LEASE_S)

    def judges_to_tell(self, key: str, person: str) -> tuple[str, ...]:
        """Return who else has judged an item, where a second person was not wanted."""
        entry = self._entries.get(key)
        if entry is None or entry.needed > 1:
            return ()
        return tuple(each.by for each in entry.given if each.by != person)

    def _release(self, key: str, holder: str) -> None:
        held = self._held.get(holder, [])
        if key in held:
            held.remove(key)
        if (entry := self._entries.get(key)) is not None:
            entry.leases.pop(holder, None)

    # What a person does.

    def give(self, key: str, holder: str, feedback: Feedback, target: str, now: float) -> Taken | None:
        """Note a verdict that is to be sent; None for an item that is not here any more.

        It is taken also when the lease has run out and another person has judged the item, and for ten minutes after the item
        left: both verdicts are kept. The same verdict of the same person again changes nothing; another one replaces it, as in
        the feedback.
        """
        entry = self._entries.get(key) or self._bring_back(key)
        if entry is None:
            return None
        own = entry.judged_by(feedback.by)
        self._release(key, holder)
        if own is not None and own.target == target:
            return Taken(own.feedback_id, self.judges_to_tell(key, feedback.by))
        if own is not None:
            entry.given.remove(own)
            self._drop_undo(feedback.by, own)
        given = Given(feedback.by, feedback.id, target, now)
        entry.given.append(given)
        self._undo.setdefault(feedback.by, deque(maxlen=UNDO_DEPTH)).append((key, given))
        self._send(feedback, key)
        self.by_person[feedback.by] += own is None
        return Taken(feedback.id, self.judges_to_tell(key, feedback.by))

    def _bring_back(self, key: str) -> Entry | None:
        entry, _ = self._left.pop(key, (None, 0.0))
        if entry is not None:
            self._entries[key] = entry
        return entry

    def skip(self, key: str, holder: str) -> bool:
        """Put an item behind all others; False for one that is not here any more. Skipped three times it is set aside."""
        entry = self._entries.get(key)
        self._release(key, holder)
        if entry is None:
            return False
        self._numbers += 1
        entry.number = self._numbers
        entry.skips += 1
        return True

    def undoable(self, person: str) -> tuple[ReviewItem, str] | None:
        """Return the item of a person's last verdict that can be undone, and the verdict's id."""
        found = self._find_undoable(person)
        return None if found is None else (self._entries[found[0]].item, found[1].feedback_id)

    def _find_undoable(self, person: str) -> tuple[str, Given] | None:
        stack = reversed(self._undo.get(person, ()))
        return next((pair for pair in stack if pair[0] in self._entries and self._entries[pair[0]].kept), None)

    def undo(self, holder: str, withdrawal: Feedback, now: float) -> ReviewItem | None:
        """Withdraw a person's last verdict, and put its item before the browser again; None where there is nothing to undo."""
        found = self._find_undoable(withdrawal.by)
        if found is None or found[1].feedback_id != withdrawal.value:
            return None
        key, given = found
        self._drop_undo(withdrawal.by, given)
        entry = self._entries[key]
        entry.given.remove(given)
        entry.withdrawing.add(withdrawal.id)
        self._send(withdrawal, key)
        self.by_person[withdrawal.by] -= 1
        self._put_before(holder, key, now)
        return entry.item

    def _drop_undo(self, person: str, given: Given) -> None:
        stack = self._undo.get(person, deque())
        for pair in [pair for pair in stack if pair[1] is given]:
            stack.remove(pair)

    # What the broker says.

    def _send(self, feedback: Feedback, key: str) -> None:
        self.unsent[feedback.id] = feedback
        self._owners[feedback.id] = key
        self._own[feedback.id] = None
        if len(self._own) > _REMEMBERED:
            self._own.popitem(last=False)

    def acknowledge(self, feedback_id: str) -> None:
        """Note that the broker has a verdict."""
        self.unsent.pop(feedback_id, None)
        entry = self._entries.get(self._owners.pop(feedback_id, ""))
        if entry is None:
            return
        entry.withdrawing.discard(feedback_id)
        for each in entry.given:
            if each.feedback_id == feedback_id:
                each.sent = True

    def counts(self, now: float) -> Counts:
        entries = self._entries.values()
        for entry in entries:
            entry.drop_leases(now)
        judged = sum(len(each.given) >= each.needed for each in entries)
        return Counts(
            open=len(entries) - judged,
            leased=sum(bool(each.leases) for each in entries),
            unsent=len(self.unsent),
            judged=self._judged + judged,
            set_aside=self._set_aside,
            elsewhere=self._elsewhere,
        )

    def unsent_items(self) -> Mapping[str, str]:
        """Return the ids of unsent feedback with the keys of their items, the oldest first."""
        return {name: self._owners[name] for name in self.unsent}

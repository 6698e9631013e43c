"""An item in the queue: who holds it, who has judged it, and whether it is done. Pure: callers pass the time."""

from dataclasses import dataclass, field

from .item import ReviewItem

CHOSEN_S = 86_400.0
"""How long an item that somebody chose waits to be judged."""
LEAST_SKIPS = 3
"""An item that was skipped so often, by whomever, is set aside."""


@dataclass
class Given:
    """One person's verdict. `feedback_id` names its record; `target` is what it stands for, None where that is not known."""

    by: str
    feedback_id: str
    target: str | None
    at: float
    sent: bool = False
    """Whether the broker has acknowledged it."""
    elsewhere: bool = False
    """Whether another console, or another program, sent it."""


@dataclass
class Entry:
    """`needed`: how many people judge it. `leases`: until when a browser holds it."""

    item: ReviewItem
    needed: int
    number: int
    """Its turn: the lowest comes first."""
    leases: dict[str, float] = field(default_factory=dict)
    given: list[Given] = field(default_factory=list)
    skips: int = 0
    withdrawing: set[str] = field(default_factory=set)
    """Ids of withdrawals that are not acknowledged."""
    kept: bool = True
    """Whether this console still reads the partition that it came from."""
    was_held: bool = False
    """Whether it was before a person."""
    chosen_at: float | None = None
    """When a person chose it in the live flow, where no review asks for it."""
    is_counted: bool = False
    """Whether it has been done already, and a late verdict brought it back."""

    def drop_leases(self, now: float) -> None:
        """Drop the leases that have run out."""
        if any(until <= now for until in self.leases.values()):
            self.leases = {holder: until for holder, until in self.leases.items() if until > now}

    def lease(self, holder: str, until: float) -> None:
        """Let a browser hold it, and show it."""
        self.leases[holder], self.was_held = until, True

    def judged_by(self, person: str) -> Given | None:
        return next((each for each in self.given if each.by == person), None)

    def is_free_for(self, person: str, holder: str, now: float) -> bool:
        """Return whether a browser may hold it: nobody else does who is needed, and this person has not judged it."""
        self.drop_leases(now)
        taken = len(self.given) + sum(each != holder for each in self.leases)
        return self.skips < LEAST_SKIPS and taken < self.needed and self.judged_by(person) is None

    def is_held_by_others(self, holder: str, now: float) -> bool:
        """Return whether as many other browsers hold it as people are needed."""
        self.drop_leases(now)
        return sum(each != holder for each in self.leases) >= self.needed

    @property
    def is_settled(self) -> bool:
        """Whether all that was said of it has been acknowledged."""
        return not self.withdrawing and all(each.sent for each in self.given)

    def is_set_aside(self, now: float) -> bool:
        """Return whether nobody judges it any more: it was skipped, or chosen a day ago, and is in nobody's hands."""
        is_old = self.chosen_at is not None and now >= self.chosen_at + CHOSEN_S and not self.leases
        return not self.given and (self.skips >= LEAST_SKIPS or is_old)

    def is_complete(self, now: float, second_by: float) -> bool:
        """Return whether no further person is waited for; a second one until `second_by` seconds after the first."""
        if len(self.given) >= self.needed or self.is_set_aside(now):
            return True
        return bool(self.given) and now >= max(each.at for each in self.given) + second_by

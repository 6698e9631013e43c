"""The table of `generation.py`: figures beside their aims, what is sent of generated replies, and joint training against training alone. Pure."""

from collections import Counter
from collections.abc import Sequence, Set
from typing import NamedTuple

from murmura.runtime.generation.reply_vocabulary import list_slots
from murmura.training.gate.seed_statistics import SeedsDifference


class Figure(NamedTuple):
    """A figure and its aim; without bounds it is printed alone."""

    name: str
    value: float | None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def reached(self) -> bool:
        if self.at_least is None and self.at_most is None:
            return True
        if self.value is None:
            return False
        return (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most
        )

    def __str__(self) -> str:
        shown = f"{self.name} {'-' if self.value is None else format(self.value, '.1f')}"
        aims = [f"{sign} {aim:g}" for sign, aim in ((">=", self.at_least), ("<=", self.at_most)) if aim is not None]
        return f"{shown} ({', '.join(aims)}{'' if self.reached else ', missed'})" if aims else shown


def describe_row(what: str, figures: Sequence[Figure]) -> str:
    """Return a row of the table as a line."""
    return f"{what} | {' | '.join(map(str, figures))}"


class Sent(NamedTuple):
    """What goes out of replies, in percent; slot figures are shares of the references' slots, None where these have none."""

    generated: float
    """Replies that go out as generated; the templates of the others go out instead."""
    missing: float | None
    """Slots of the references that what goes out does not name."""
    further: float | None
    """Slots that what goes out names and the references do not. They have a value: no others go out."""


def count_sent(
    replies: Sequence[str], ended: Sequence[bool], references: Sequence[str], values: Sequence[Set[str]]
) -> Sent:
    """Count what a dialogue agent would send: a reply that has ended, names the slots of its template that have a value, and none without.

    The data have no rules with templates: a row's own reply stands for the template of its rule. `values`: its slots with a value.
    """
    sent = missing = further = every = 0
    for reply, end, reference, known in zip(replies, ended, references, values, strict=True):
        said, wanted = Counter(list_slots(reply)), Counter(list_slots(reference))
        every += wanted.total()
        if end and reply.strip() and wanted.keys() & known <= said.keys() <= known:
            sent += 1
            missing += (wanted - said).total()
            further += (said - wanted).total()
    slots = (100 * missing / every, 100 * further / every) if every else (None, None)
    return Sent(100 * sent / len(replies), *slots)


def describe_difference(what: str, found: SeedsDifference, aim: float) -> tuple[str, bool]:
    """Return the row of a task's difference, and whether the whole interval lies above the aim."""
    reached = found.low is not None and found.low > aim
    between = "one seed, no interval" if found.low is None else f"[{found.low:+.2f}, {found.high:+.2f}]"
    seeds = ", ".join(f"{each:+.2f}" for each in found.by_seed)
    line = f"{what} | alone {found.alone:.1f} | joint {found.joint:.1f} | {found.difference:+.2f} {between}"
    return f"{line} (> {aim:g}{'' if reached else ', missed'}) | by seed {seeds}", reached

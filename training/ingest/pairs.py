"""Pairs of answers to one text, of which people preferred one: one judged up, the other down. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import Any

from .manifest import Options
from .results import output_of
from .rules import Unfit, check_task, fields_of_input, second_read, target_of


@dataclass(frozen=True)
class Judgement:
    """The last up or down of a person on a prediction."""

    task: str
    text: str
    second: str | None
    agent: str
    outputs: bytes
    """Of all tasks, as JSON."""
    prediction_id: str
    up: bool
    person: str
    part: str
    conversation: str
    """Its id, or "" without one."""


@dataclass
class _Answer:
    """One answer to a text, by whichever prediction it was first given, and each person's last verdict on it."""

    prediction_id: str
    output: dict[str, Any]
    verdicts: dict[str, bool] = field(default_factory=dict)

    @property
    def balance(self) -> int:
        return sum(1 if up else -1 for up in self.verdicts.values())

    def as_row(self) -> dict[str, Any]:
        return {"prediction_id": self.prediction_id, "output": self.output, "people": len(self.verdicts)}


def make_pairs(judged: Iterable[Judgement], options: Options) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield a row for each answer that most people judged up beside one to the same text that most judged down, and the
    text's conversation (or "").

    `judged` comes by task, text and agent, older ones first. Answers that say the same are one, whatever their scores.
    """
    for (task, text, agent), group in groupby(judged, attrgetter("task", "text", "agent")):
        found: dict[tuple[str | None, str], _Answer] = {}
        place: tuple[str, str] = ("train", "")
        for each in group:
            place = each.part, each.conversation
            try:
                check_task(task, options)
                output = output_of(each.outputs, task)
                target = target_of("down", None, output, text, None)
            except Unfit:
                continue  # listed among what is left out
            second = second_read(output["kind"], each.second)
            answer = found.setdefault((second, target.value if target else ""), _Answer(each.prediction_id, output))
            answer.verdicts[each.person] = each.up
        sides: dict[tuple[str | None, bool], list[_Answer]] = defaultdict(list)
        for (second, _), answer in found.items():
            if answer.balance:
                sides[second, answer.balance > 0].append(answer)
        for (second, is_up), answers in [*sides.items()]:
            for chosen in answers if is_up else ():
                for rejected in sides[second, False]:
                    row = {"task": task, "agent": agent, **fields_of_input(text, second), "part": place[0]}
                    yield row | {"chosen": chosen.as_row(), "rejected": rejected.as_row()}, place[1]

"""Data sets of a world that is only in memory."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ingest_world import World

from murmura.runtime.testing.fakes import classified, labelled, tagged
from murmura.training.ingest.files import write_files
from murmura.training.ingest.join import Join
from murmura.training.ingest.manifest import DataSet

TEXT = "money back for the trip to rome on monday"
OUTPUTS = {
    "intent": classified("other", 0.6, ("refund", 0.4)),
    "topics": labelled(travel=0.9, cards=0.6),
    "places": tagged(TEXT, city="rome", date="monday"),
}


class Made:
    """A data set in a folder."""

    def __init__(self, folder: Path, manifest: DataSet) -> None:
        self.folder, self.manifest = folder, manifest

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]

    def rows(self, task: str = "intent", part: str = "train") -> list[dict[str, Any]]:
        path = self.folder / f"{task}.{part}.jsonl"
        return self.lines(path.name) if path.exists() else []

    def labels(self, task: str = "intent") -> list[Any]:
        return [row["label"] for row in self.rows(task)]

    def left_out(self) -> dict[str, str]:
        return {line["feedback"]: line["reason"] for line in self.lines("left_out.jsonl")}

    def bytes(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.folder.iterdir())}


def feed(join: Join, world: World, order: random.Random | None) -> None:
    """Hand the records over in chunks, those of a partition in order, partitions in any."""
    stages = (
        ("feedback", join.take_feedback, join.feedback_done),
        ("reviews", join.take_reviews, lambda: None),
        ("replies", join.take_replies, lambda: None),
        ("results", join.take_results, join.results_done),
        ("requests", join.take_requests, lambda: None),
    )
    for role, take, done in stages:
        left = {number: list(log) for number, log in enumerate(world.logs[world.topic(role)])}
        while left := {number: log for number, log in left.items() if log}:
            number = order.choice(sorted(left)) if order else min(left)
            size = order.randint(1, 3) if order else 2
            chunk, left[number] = left[number][:size], left[number][size:]
            take(number, chunk)
        done()


def make_in(folder: Path) -> Callable[..., Made]:
    """`make(world)` gives the data set of a world; `order` decides in which order its partitions are read."""

    def made(world: World, *, order: random.Random | None = None, **options: Any) -> Made:
        here = folder / f"set-{len(list(folder.iterdir()))}"
        here.mkdir()
        plan = world.plan(**options)
        join = Join(here / "join.sqlite", plan)
        try:
            feed(join, world, order)
            list(join.settle())
            manifest = write_files(join.settled, plan, here)
        finally:
            join.close()
            (here / "join.sqlite").unlink()
        return Made(here, manifest)

    return made

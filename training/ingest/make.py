"""Feedback becomes data: frozen ranges of requests, results and feedback in, a folder that the trainer reads out.

    plan = await make_plan(kafka, feedback=[...], results=[...], requests=[...], reviews=[...])
    data_set = await ingest(kafka, plan, Path("data/feedback"))

The folder appears when it is complete, or not at all. Equal plans give equal bytes.
"""

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, Final

from ...runtime.errors import MurmuraError, SetupError
from ...runtime.kafka import offset_ranges
from ...runtime.kafka.topics import fetch_partition_counts
from ...runtime.settings.settings import KafkaSettings
from .files import write_files
from .folder import new_folder
from .join import Join
from .manifest import ROLES, DataSet, FrozenRange, Options, Plan, Role

Progress = Callable[[str, int], None]
"""Told the stage and how many more of its records are done."""

_DATABASE: Final = "join.sqlite"


async def make_plan(
    kafka: KafkaSettings,
    *,
    feedback: Sequence[str],
    results: Sequence[str],
    requests: Sequence[str],
    reviews: Sequence[str] = (),
    replies: Sequence[str] = (),
    options: Options | None = None,
) -> Plan:
    """Freeze everything that these topics hold now. SetupError when one is not there, or is named in two roles.

    `replies` are topics of the dialogue agent's replies; the topics of its turns stand among the requests.
    Topics of reviews may be missing, as only those who draw predictions at random need one.
    """
    if reviews:
        known = await fetch_partition_counts(kafka)
        reviews = [topic for topic in reviews if topic in known]
    groups = (feedback, reviews, replies, results, requests)
    role_of = dict(zip(ROLES, groups, strict=True))
    for one, other in combinations(ROLES, 2):
        if both := set(role_of[one]) & set(role_of[other]):
            raise SetupError(
                f"topic {min(both)} is named for {one} and for {other}: its records can only be one of them"
            )
    ranges = await offset_ranges.freeze(kafka, groups)
    frozen = [
        FrozenRange(role=role, topic=each.topic, partition=each.partition, start=each.start, end=each.end)
        for role, topics in role_of.items()
        for each in ranges
        if each.topic in topics
    ]
    return Plan(options=options or Options(), ranges=frozen)


async def ingest(
    kafka: KafkaSettings, plan: Plan, out: Path, *, progress: Progress = lambda stage, records: None
) -> DataSet:
    """Make the data set of a plan in the new folder `out` and return its manifest.

    Raises SetupError when `out` is there already or being made by somebody else, when the broker does not have all
    records of the plan any more, or when nearly all texts have one key, so that no share of them can be held out. A plan
    that is a DataSet has come out before: then MurmuraError when it does not come out the same, byte for byte. What a run that was killed left in `OUT.part` is removed.
    """
    if out.exists():  # noqa: ASYNC240 - nobody else is served by this loop
        raise SetupError(f"{out} is there already; a data set is never changed: name another folder")
    await offset_ranges.check(kafka, [each.as_range() for each in plan.ranges])
    with new_folder(out) as part:
        data_set = await _make(kafka, plan, part, progress)
        if isinstance(plan, DataSet):
            _refuse_another(plan, data_set)
    return data_set


async def _make(kafka: KafkaSettings, plan: Plan, folder: Path, progress: Progress) -> DataSet:
    join = Join(folder / _DATABASE, plan)
    try:
        await _read(kafka, plan, join, progress)
        for records in join.settle():
            progress("joining", records)
        if not isinstance(plan, DataSet) and (problem := join.settled.problem()):
            raise SetupError(problem)
        return write_files(join.settled, plan, folder)
    except sqlite3.Error as error:
        raise MurmuraError(f"{folder / _DATABASE}: {error}") from error
    finally:
        join.close()
        (folder / _DATABASE).unlink()


def _refuse_another(made: DataSet, again: DataSet) -> None:
    if again.digest == made.digest:
        return
    before = {file.path: file.sha256 for file in made.files}
    changed = [file.path for file in again.files if before.get(file.path) != file.sha256]
    raise MurmuraError(
        f"it does not come out as its manifest says: {', '.join(changed) or 'a file less'}; "
        "the topics were made anew, or another version of Murmura made it"
    )


async def _read(kafka: KafkaSettings, plan: Plan, join: Join, progress: Progress) -> None:
    def callbacks_of(role: Role) -> dict[str, Any]:
        return {"unreadable": partial(join.unreadable, role), "progress": partial(progress, role)}

    await offset_ranges.read(kafka, plan.of("feedback"), join.take_feedback, **callbacks_of("feedback"))
    join.feedback_done()
    await offset_ranges.read(kafka, plan.of("reviews"), join.take_reviews, **callbacks_of("reviews"))
    await offset_ranges.read(kafka, plan.of("replies"), join.take_replies, **callbacks_of("replies"))
    await offset_ranges.read(kafka, plan.of("results"), join.take_results, **callbacks_of("results"))
    join.results_done()
    await offset_ranges.read(
        kafka, join.request_ranges, join.take_requests, next_wanted=join.next_wanted, **callbacks_of("requests")
    )

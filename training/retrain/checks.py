"""What is looked at before a job starts anything, the same for a run and for a dry run: each mistake is one line."""

import asyncio
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...runtime.errors import SetupError
from ...runtime.kafka.topics import require_topics
from ...runtime.model.model import Model
from ...runtime.release.store import ModelStore
from ...runtime.settings.yaml_file import Place, YamlFile
from ..data.files import is_data_set
from ..gate.held_out import HeldOutSet, held_answers, held_out_sets, with_targets
from ..gate.targets import Targets, find_targets
from ..ingest.manifest import Plan
from ..mix.corrections import HELDOUT, TRAIN, Corrections, read_corrections
from ..mix.earlier import check_earlier
from ..mix.examples import write_examples
from ..mix.plan import Mix, plan_mix, without_rows
from ..recipe.idle.job_keys import find_idle_keys
from ..recipe.job import Job, OldData, check_names
from ..recipe.recipe import load_recipe
from .feedback import plan_for
from .going_live import check_live, identity, releases
from .starting_point import StartingPoint, find_start


@dataclass(frozen=True)
class Checked:
    """A job with which nothing is wrong, as far as that can be known.

    `plan` says what is ingested, if anything is; which of the `sets` are targets is known only when nothing is.
    """

    file: YamlFile[Job]
    start: StartingPoint
    corrections: Mapping[str, Corrections]
    mix: Mix
    sets: list[HeldOutSet]
    plan: Plan | None
    placebo: Sequence[str] = ()
    """Tasks whose corrections are judged by a placebo."""


def check_job(file: YamlFile[Job]) -> Checked:
    """Read everything that the job names. Raises SetupError with one line for the first thing that is wrong."""
    job = file.value
    for place, message in (*find_idle_keys(job), *_missing_files(file)):
        raise file.refusal(place, message)
    if job.model.store is not None:
        try:
            ModelStore(job.model.store)
        except SetupError as error:
            raise file.refusal(("model", "store"), str(error)) from None
    if job.kafka is not None:
        _check_topics(file)
    start = find_start(job)
    check_names(file, start.manifest)
    check_live(job, start.manifest.name, identity(start.manifest), start.manifest.version)
    corrections: dict[str, Corrections] = {}
    plan = None
    if job.feedback.data is not None:
        corrections = read_corrections(job.feedback.data, start.manifest, job.feedback.least_rows)
    elif job.feedback.examples is not None:
        corrections = _of_examples(job, start)
    else:
        plan = asyncio.run(plan_for(job, start.manifest))
    mix = plan_mix(job, start.manifest, corrections)
    mix.texts()
    sets = held_out_sets(mix)
    targets = Targets({}, []) if plan is not None else _targets(file, start, mix, sets)
    return Checked(file, start, corrections, mix, with_targets(sets, targets.sets), plan, targets.placebo)


def _of_examples(job: Job, start: StartingPoint) -> dict[str, Corrections]:
    with tempfile.TemporaryDirectory(prefix="murmura-") as scratch:
        folder = Path(scratch)
        write_examples(job.feedback.examples or {}, start.manifest, folder, job.feedback.examples_heldout)
        return dict(read_corrections(folder, start.manifest, job.feedback.least_rows))


def _targets(file: YamlFile[Job], start: StartingPoint, mix: Mix, sets: Sequence[HeldOutSet]) -> Targets:
    """Ask the current version, from a copy: a version in a store, or a delta, lies nowhere as it is served."""
    check_mix(file, mix)
    with tempfile.TemporaryDirectory(prefix="murmura-") as scratch:
        folder = Path(scratch) / "model"
        start.copy_to(folder, file.value.model.base)
        current = Model.load(folder)
        return find_targets(file, current, mix, [*sets, *held_answers(current, mix)])


def check_mix(file: YamlFile[Job], mix: Mix) -> None:
    """Raise SetupError for a task that nothing would be trained on, or a label that would be forgotten unseen."""
    if lost := without_rows(mix):
        task, label = lost
        if mix.job.old is not None and not mix.job.old.replay and task in mix.earlier:
            raise file.refusal(
                ("old", "replay"),
                f"at 0, no row teaches label {label!r} of task {task}, so it would be forgotten; raise it",
            )
        raise file.refusal(
            ("old",),
            f"label {label!r} of task {task} has rows neither in the old data nor in this feedback, so it would be "
            "forgotten: name the data set that it was learned from (`data/set` of that run) in old.feedback",
        )
    if mix.job.old is not None and not mix.job.old.replay:
        for task in mix.old:
            if task not in mix.corrections or not mix.corrections[task].train:
                raise file.refusal(("old", "replay"), f"at 0, task {task} has nothing to train on; raise it")


def _check_topics(file: YamlFile[Job]) -> None:
    job = file.value
    assert job.kafka is not None
    needed = [f"{job.prefix}.training", *([f"{job.prefix}.models"] if releases(job) else [])]
    try:
        asyncio.run(require_topics(job.kafka, needed))
    except SetupError as error:
        raise file.refusal(("kafka",), str(error)) from None


def _missing_files(file: YamlFile[Job]) -> Iterator[tuple[Place, str]]:
    """Yield place and message of each file or folder of the job that is not there."""
    job = file.value
    if job.feedback.data is not None:
        yield from _about_data(job.feedback.data)
    if job.feedback.manifest is not None and not job.feedback.manifest.exists():
        yield (
            ("feedback", "manifest"),
            f"{job.feedback.manifest}: no such file; expected the dataset.json of a data set",
        )
    for task, path in (job.feedback.examples or {}).items():
        if not _is_there(path):
            yield (
                ("feedback", "examples", task),
                f"{path}: no such file; expected examples with the columns text and label",
            )
    for at, path in enumerate(job.hold.texts):
        if not _is_there(path):
            yield ("hold", "texts", at), f"{path}: no such file"
    for task, sets in job.gate.reports.items():
        for name, given in sets.items():
            for source in given.rows:
                if not _is_there(Path(source.path)):
                    yield ("gate", "reports", task, name, "rows"), f"{source.path}: no such file"
    if job.old is not None:
        yield from _about_old(job.old)


def _about_old(old: OldData) -> Iterator[tuple[Place, str]]:
    if old.recipe is not None:
        if not old.recipe.is_file():
            yield ("old", "recipe"), f"{old.recipe}: cannot read the recipe: no such file"
        elif not old.folder.is_dir():
            yield ("old", "data"), f"{old.folder}: no such folder"
        else:
            load_recipe(old.recipe, past=True)
    for at, folder in enumerate(old.feedback):
        if problem := check_earlier(folder):
            yield ("old", "feedback", at), problem


def _about_data(folder: Path) -> Iterator[tuple[Place, str]]:
    if not folder.is_dir():
        yield ("feedback", "data"), f"{folder}: no such folder; expected one that `murmura ingest` made"
    elif not list(folder.glob(f"*{TRAIN}")):
        yield (
            ("feedback", "data"),
            f"{folder}: no TASK{TRAIN} and TASK{HELDOUT}; expected the folder of `murmura ingest`",
        )


def _is_there(path: Path) -> bool:
    """Say whether a file or a folder is there, or a compressed file; a data set of the hub shows when it is read."""
    return is_data_set(path) or path.is_file() or path.with_name(f"{path.name}.gz").is_file()

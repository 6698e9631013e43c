"""Compares joint training with training alone: takes the trainings that are still to be taken, and writes what was found."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Final

from ...runtime.errors import SetupError
from ..evaluate.evaluate import TEST
from ..fit.loop import ignore
from ..gate.held_out import conversations_of, group_of_rows
from ..gate.seed_statistics import compare_seeds
from ..kinds.figures.outcome import Outcome
from ..kinds.registry import kind_of
from ..prepare.tasks import TaskData, read_tasks
from ..recipe.recipe import Recipe, load_recipe
from ..report.page import contained
from ..run_folders.os_errors import write_text
from ..run_folders.run_folder import RECIPE
from .advice import advise
from .estimate import count_rows, describe_seconds, estimate_seconds, measure_speed
from .findings import Cost, Transfer, gather_affinities, last_losses, mean_cosines
from .page import make_page
from .plan import Document, Training, list_trainings, make_alone, make_joint, refuse_recipe
from .results import Result, as_json, as_markdown
from .trainings import AskedSet, Taken, answers_of, curves_of, read_taken, take, was_begun

VALIDATION: Final = "validation"
PAGE: Final = "transfer.html"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Study:
    """What all trainings of a comparison share."""

    path: Path
    recipe: Recipe
    data: Path
    out: Path
    seeds: list[int]
    tasks: list[TaskData]

    @property
    def trainings(self) -> list[Training]:
        return list_trainings(list(self.recipe.tasks), self.seeds)

    @property
    def rows(self) -> dict[str, int]:
        """Of the training parts."""
        return {data.name: len(data.train) for data in self.tasks}

    @property
    def sets(self) -> dict[str, AskedSet]:
        return {data.name: _set_of(data) for data in self.tasks}

    def folder(self, training: Training) -> Path:
        return self.out / training.name

    def document(self, training: Training) -> Document:
        """Return the recipe of a training."""
        if training.task is None:
            return make_joint(self.recipe)
        return make_alone(self.recipe, training.task, self.rows)


def open_study(path: Path, data: Path, out: Path, seeds: Sequence[int]) -> Study:
    """Read a recipe and its data. SetupError for whatever is wrong before training."""
    if (processes := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        raise SetupError(f"murmura transfer takes one process, there are {processes}: start it without torchrun")
    recipe = load_recipe(path)
    refuse_recipe(recipe, seeds)
    if out.exists() and not out.is_dir():
        raise SetupError(f"{out}: a file, expected a folder; give --out another one")
    return Study(path, recipe, data, out, list(seeds), read_tasks(recipe, data))


def describe_plan(study: Study) -> list[str]:
    """Return, in lines, which trainings are still to be taken and roughly how long they take."""
    trainings, rows = study.trainings, study.rows
    lines, left = [], []
    for each in trainings:
        if read_taken(study.folder(each)) is not None:
            state = "has ended"
        else:
            left.append(each)
            state = "goes on" if was_begun(study.folder(each)) else "to be taken"
        lines.append(f"{each.title}: {state}")
    lines += describe_teachers(study.recipe)
    lines.append(f"{len(trainings)} trainings, {len(left)} of them to be taken")
    if left:
        speed = measure_speed(study.recipe, study.data)
        counts = [
            count_rows(
                Recipe.model_validate(study.document(each)), rows if each.task is None else {each.task: rows[each.task]}
            )
            for each in left
        ]
        seconds = describe_seconds(estimate_seconds(speed, counts))
        lines.append(f"roughly {seconds} on this machine as it is now; validation, export and test rows come on top")
    return lines


def run_study(study: Study, *, quiet: bool = False, say: Say = lambda line: None, keep_models: bool = False) -> Result:
    """Take the trainings that have not ended, compare, and write the results into the folder."""
    taken: dict[Training, Taken] = {}
    trainings, sets = study.trainings, study.sets
    for number, training in enumerate(trainings, 1):
        began, known = time.monotonic(), read_taken(study.folder(training)) is not None
        if not known:
            say(f"training {number} of {len(trainings)}: {training.title}")
        found = take(
            *(training, study.document(training), study.data, study.folder(training), sets),
            quiet=quiet,
            print_line=say if number == 1 else ignore,
            keep_model=keep_models,
        )
        taken[training] = found
        seconds = "before" if known else f"in {time.monotonic() - began:.0f} s, {found.cpu_seconds:.0f} CPU-seconds"
        say(f"training {number} of {len(trainings)}: {training.title}: done {seconds}")
    _refuse_other_data(taken)
    result = compare_trainings(study, taken)
    _write(study, result, say)
    return result


def compare_trainings(study: Study, taken: Mapping[Training, Taken]) -> Result:
    """Return what the trainings show."""
    curves = {each: curves_of(study.folder(each)) for each in taken}
    transfers = [_compare_task(study, data, taken) for data in study.tasks]
    losses = {each: last_losses(found) for each, found in curves.items()}
    with_losses = [_with_losses(each, losses) for each in transfers]
    affinities = gather_affinities(mean_cosines(found) for each, found in curves.items() if each.task is None)
    notes = [*describe_teachers(study.recipe)]
    notes += [
        f"{each.task} has no test part: it is compared on its validation rows, which chose the checkpoints."
        for each in transfers
        if each.set == VALIDATION
    ]
    costs = [_cost(task, taken) for task in (None, *study.recipe.tasks)]
    return Result(
        study.recipe.name, study.seeds, with_losses, affinities, costs, advise(with_losses, affinities), notes
    )


def describe_teachers(recipe: Recipe) -> list[str]:
    """Return a line where the tasks have teachers, which a task alone has not."""
    if recipe.teachers is None:
        return []
    return [
        "The joint training has teachers, and the single ones have none: what the teachers teach is part of the difference."
    ]


def _set_of(data: TaskData) -> AskedSet:
    name, examples = (TEST, data.test) if data.test else (VALIDATION, data.validation)
    scope = data.task.out_of_scope.label if data.task.out_of_scope else None
    return AskedSet(name, examples, scope, group_of_rows(data.task))


def _compare_task(study: Study, data: TaskData, taken: Mapping[Training, Taken]) -> Transfer:
    asked = study.sets[data.name]

    def outcomes(task: str | None) -> list[Outcome]:
        return [_outcome(study, Training(task, seed), taken, data.name, asked) for seed in study.seeds]

    conversations = conversations_of(asked.examples, asked.group)
    found = compare_seeds(outcomes(data.name), outcomes(None), conversations)
    units = len(set(conversations)) if conversations is not None else len(asked.examples)
    smallest = found.smallest_loss
    return Transfer(
        data.name,
        asked.name,
        len(asked.examples),
        found,
        None if smallest is None else max(smallest, 100 / units),
    )


def _outcome(study: Study, training: Training, taken: Mapping[Training, Taken], task: str, asked: AskedSet) -> Outcome:
    found = taken[training]
    spec = found.answers[task].spec
    return kind_of(spec).outcome(answers_of(study.folder(training), found, task, asked), spec, asked.scope)


def _with_losses(found: Transfer, losses: Mapping[Training, Mapping[str, float]]) -> Transfer:
    alone, joint = (
        [by[found.task] for each, by in losses.items() if each.task == task and found.task in by]
        for task in (found.task, None)
    )
    return replace(found, losses=(mean(alone), mean(joint))) if alone and joint else found


def _cost(task: str | None, taken: Mapping[Training, Taken]) -> Cost:
    own = [found for each, found in taken.items() if each.task == task]
    seconds, steps = mean(found.cpu_seconds for found in own), mean(found.steps for found in own)
    return Cost(task, seconds, own[0].parameters, steps)


def _refuse_other_data(taken: Mapping[Training, Taken]) -> None:
    """Raise SetupError where a data file changed between two trainings."""
    known: dict[str, tuple[str, Training]] = {}
    for training, found in taken.items():
        for name, sha256 in found.data_files.items():
            before, first = known.setdefault(name, (sha256, training))
            if before != sha256:
                raise SetupError(
                    f"{name} changed between the trainings {first.name} and {training.name}: they cannot be compared; "
                    "give --out another folder"
                )


def _write(study: Study, result: Result, say: Say) -> None:
    study.out.mkdir(parents=True, exist_ok=True)
    text = study.path.read_text(encoding="utf-8")
    write_text(study.out / RECIPE, text)
    write_text(study.out / "transfer.json", as_json(result))
    write_text(study.out / "transfer.md", as_markdown(result))
    with contained(f"no {PAGE}", say):
        write_text(study.out / PAGE, make_page(result, text))

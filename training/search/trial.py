"""One trial: the training of a recipe on rows that are read once a study, scored on validation, and ended where it is hopeless."""

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Final

import torch

from ...runtime.errors import SetupError
from ..compute.failures import LOWER, memory_of
from ..fit.finish.head_finish import is_refit, scored_rows
from ..fit.loop import Progress, finish_best, open_run, train_all
from ..fit.probe.head_start import begin_learning
from ..fit.probe.probe import Probe, probe_tasks
from ..fit.progress.validation import compared_by
from ..fit.record import is_interrupted
from ..fit.setup import Fitting, Material, read_material, sample
from ..fit.steps.failed_step import NotFinite, save_rows
from ..prepare.data_report import TaskReport
from ..recipe.last_phase import with_self_training
from ..recipe.recipe import Recipe
from ..run_folders.run_folder import TEACHERS, RunFolder
from .space import digest_reading
from .workers import hold_lock

MEAN: Final = "mean"
_SECONDS_A_WEEK: Final = 7 * 24 * 60.0
_WITHOUT_TRACES: Final = {"trackers": (), "save_minutes": _SECONDS_A_WEEK}
"""A trial is neither logged nor resumed."""


class TrialFailed(Exception):
    """A trial that ended with an error of its own: a loss that is not finite, or too little memory. One line."""


@dataclass(frozen=True)
class Outcome:
    """What a trial reached: its objectives in their order, all validation figures by task, and its cost."""

    values: list[float]
    scores: dict[str, dict[str, float]]
    steps: int
    cpu_seconds: float


class Materials:
    """Rows, encoded, and encoder of the recipes of a study. Recipes that read alike get the same; the last ones are kept."""

    def __init__(self, data: Path, out: Path) -> None:
        self._data, self._answers = data, out / TEACHERS
        self._key: str | None = None
        self._held: Material | None = None
        self._probes: tuple[str, dict[str, Probe], dict[str, TaskReport]] | None = None

    def of(self, recipe: Recipe) -> Material:
        """Return what a recipe reads; nothing of it is from test parts and reports, which no trial may see."""
        key = digest_reading(recipe)
        if self._held is None or key != self._key:
            self._held = self._probes = None  # not two at once
            self._held, self._key = read_material(without_tests(recipe), self._data), key
        return self._held

    def prepare(self, recipe: Recipe, folder: RunFolder) -> Fitting:
        """Make the run of a recipe."""
        recipe = with_self_training(without_tests(recipe).model_copy(update=_WITHOUT_TRACES))
        return open_run(recipe, self._data, folder, self.of(recipe))

    def begin_learning(self, run: Fitting) -> None:
        """Let heads of few rows begin from logistic regression, which is fitted once for what is read, and ask teachers once a
        study: their answers lie in its folder, for all processes.
        """
        if self._probes is None or self._probes[0] != run.precision:
            self._probes = run.precision, probe_tasks(run), dict(run.data)
        run.data.update(self._probes[2])
        if run.recipe.teachers is None:
            begin_learning(run, self._probes[1])
            return
        with hold_lock(self._answers.with_name(f"{TEACHERS}.lock")):
            begin_learning(run, self._probes[1], self._answers)


def digest_scored(run: Fitting) -> str:
    """Return by what the rows are known that figures of a run are of: only figures of the same rows can be compared."""
    scored = sha256()
    for at, data in enumerate(run.tasks):
        rows = scored_rows(run, data) if is_refit(run, data) else sample(data.validation, run.recipe)
        scored.update(repr((data.name, data.spec.out_of_scope, len(run.validation[at].ids))).encode())
        for row in rows:
            scored.update(repr((row.given, row.labels, row.spans, row.reply)).encode())
    return scored.hexdigest()


def without_tests(recipe: Recipe) -> Recipe:
    """Return the recipe without its test parts and further sets."""
    tasks = {name: task.model_copy(update={"test": None, "reports": {}}) for name, task in recipe.tasks.items()}
    return recipe.model_copy(update={"tasks": tasks})


def values_of(scores: Mapping[str, Mapping[str, float]], rows: Mapping[str, int], objectives: list[str]) -> list[float]:
    """Return the objectives: the mean that chooses the checkpoint, or main figures of tasks. NaN where there is none."""
    if objectives == [MEAN]:
        return [compared_by({name: dict(found) for name, found in scores.items()}, rows)]
    return [scores.get(name, {}).get("main", float("nan")) for name in objectives]


def take_trial(
    materials: Materials,
    recipe: Recipe,
    path: Path,
    folder: Path,
    objectives: list[str],
    *,
    failed: Path,
    on_scores: Callable[[int, list[float], bool], None],
    on_progress: Callable[[Progress], None],
) -> Outcome:
    """Train a recipe, the file `path`. `on_scores` is called with number and objectives at each scoring, and whether it is the
    last one, behind which no step is taken; it may raise.

    Raises TrialFailed where this trial cannot be trained, and others might. The rows of a step whose loss or gradient is not finite
    are written to `failed`.
    """
    scored = 0

    def look(progress: Progress) -> None:
        nonlocal scored
        on_progress(progress)
        if progress.metrics:
            scored += 1
            reached = values_of(progress.metrics, run.validation_rows, objectives)
            on_scores(scored, reached, not is_interrupted(run))

    try:
        with memory_of("", LOWER):
            run = materials.prepare(recipe, RunFolder(folder))
            run.folder.begin(path, run.checkpoint.tokenizer)
            materials.begin_learning(run)
            train_all(run, state=None, finish=False, quiet=True, on_progress=look)
            finish_best(run, further=False)
    except NotFinite as error:
        raise TrialFailed(str(save_rows(run, error, texts=recipe.report.texts, path=failed))) from None
    except SetupError as error:
        raise TrialFailed(str(error)) from None
    values = values_of(run.standing.scores, run.validation_rows, objectives)
    if not all(map(isfinite, values)):
        raise TrialFailed("a task has no validation figure; give it more validation rows")
    steps = run.standing.before + run.standing.step
    return Outcome(values, run.standing.scores, steps, round(run.standing.cpu_seconds, 1))


def free_memory() -> None:
    """Let go of what a trial has left on the GPU. A failed one leaves cycles, which are collected."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

"""`murmura tune`: takes the trials that are still to be taken, and writes what the study has found."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import optuna
import yaml
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError
from tqdm import tqdm

from ...runtime.errors import SetupError
from ..compute.device import free_threads
from ..compute.failures import full_disk_in_one_line
from ..fit.loop import Progress
from ..recipe.recipe import Recipe, load_recipe
from ..recipe.tune import Tune
from ..report.page import contained
from ..run_folders.os_errors import write_text
from ..run_folders.provenance import digest_data
from ..run_folders.run_folder import FAILED_STEP, RunFolder
from .page import make_page
from .results import Result, State, Trial, describe_values, find_front, replace_text, show, write_results
from .space import Space, digest_study, list_ends, open_space
from .study import (
    ERROR,
    WORKER,
    contain_storage,
    count_taken,
    draw_values,
    enqueue_again,
    open_study,
    quiet_optuna,
    retry_dead,
)
from .trial import MEAN, Materials, Outcome, TrialFailed, digest_scored, free_memory, take_trial
from .workers import Turn, register_worker

PAGE: Final = "tune.html"
_OUTCOME: Final = ("scores", "steps", "cpu_seconds")
_STATES: Final[dict[TrialState, State]] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.RUNNING: "running",
}
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What a command is given, read and checked."""

    path: Path
    recipe: Recipe
    tune: Tune
    space: Space
    data: Path
    out: Path
    objectives: list[str]
    materials: Materials
    storage: str | None = None

    @property
    def url(self) -> str | None:
        """Where the study is kept, where it is not in its folder; with what is secret."""
        return self.tune.storage if self.storage is None else self.storage


def open_plan(path: Path, data: Path, out: Path, *, storage: str | None = None, say: Say) -> Plan:
    """Read recipe and data, and prepare a training at each end of the space. SetupError for whatever is wrong."""
    recipe = load_recipe(path)
    tune = recipe.tune
    if tune is None:
        raise recipe.refusal((), "there is no `tune`; expected `tune: {space: {batch_size: [16, 32, 64]}}`, say")
    if recipe.pretrain is not None:
        raise recipe.refusal(
            ("pretrain",),
            "each trial would repeat it; take it once with `murmura pretrain`, and name its folder as `encoder`",
        )
    if recipe.smaller is not None:
        raise recipe.refusal(("smaller",), "trials know nothing of the larger model; search the recipe without it")
    if out.exists() and not out.is_dir():
        raise SetupError(f"{out}: a file, expected a folder; give --out another one")
    objectives = list_objectives(recipe, tune)
    if len(objectives) > 1 and tune.pruning not in {None, "none"}:
        raise recipe.refusal(("tune", "pruning"), f"{tune.pruning} compares one figure, found {len(objectives)}")
    # Trials that are computed with other threads give other last digits.
    recipe = recipe if recipe.threads else recipe.model_copy(update={"threads": free_threads()})
    plan = Plan(path, recipe, tune, open_space(recipe, tune), data, out, objectives, Materials(data, out), storage)
    if anew := plan.space.read_anew:
        say(f"rows are read anew where a trial has another value: {', '.join(anew)}")
    _prepare_ends(plan)
    return plan


def list_objectives(recipe: Recipe, tune: Tune) -> list[str]:
    """Return the figures that are to be highest. SetupError for a task that the recipe lacks."""
    if tune.objective == "mean":
        return [MEAN]
    named = list(recipe.tasks) if tune.objective == "each" else tune.objective
    if unknown := next((name for name in named if name not in recipe.tasks), None):
        expected = f"expected `mean`, `each` or some of {', '.join(recipe.tasks)}"
        raise recipe.refusal(("tune", "objective"), f"no task {unknown}; {expected}")
    if not named:
        raise recipe.refusal(("tune", "objective"), "names no task")
    return list(named)


def _prepare_ends(plan: Plan) -> None:
    """Make the run of the recipe and of each end of the space: what the encoder or the machine refuses is found now."""
    folder = RunFolder(plan.out / "trials" / "none")
    scored = digest_scored(plan.materials.prepare(plan.recipe, folder))
    for key, value in list_ends(plan.space):
        try:
            run = plan.materials.prepare(plan.space.recipe_of({key: value}), folder)
        except SetupError as error:
            raise plan.space.refusal(key, f"{value!r} is refused: {error}") from None
        if digest_scored(run) != scored:
            problem = f"with {value!r} figures are of other validation rows than the recipe's, and cannot be compared"
            raise plan.space.refusal(key, f"{problem}; name `validation` rows, or leave the key out")
    plan.materials.prepare(plan.recipe, folder)


def run_study(plan: Plan, *, trials: int | None = None, minutes: float | None = None, quiet: bool, say: Say) -> Result:
    """Take trials until the budget is at its end, and write the results. Ctrl-C raises KeyboardInterrupt when that is done."""
    known_as = digest_study(
        plan.recipe.model_copy(update={"threads": None}), plan.tune, digest_data(plan.recipe, plan.data)
    )
    plan.out.mkdir(parents=True, exist_ok=True)
    study = open_study(plan.space, plan.tune, plan.out, storage=plan.url, known_as=known_as, objectives=plan.objectives)
    with quiet_optuna(), contain_storage(plan.url or str(plan.out)), register_worker(plan.out) as worker:
        for number in retry_dead(study, plan.out):
            say(f"trial {number} died with its process; it is taken again")
        taking = _Taking(plan, study, worker, plan.tune.trials if trials is None else trials, quiet=quiet, say=say)
        try:
            taking.take_all(plan.tune.minutes if minutes is None else minutes)
        finally:
            result = read_result(plan, study)
            write_all(plan, result, say)
    return result


class _Taking:
    """Takes trials one after the other in this process."""

    def __init__(self, plan: Plan, study: optuna.Study, worker: str, most: int, *, quiet: bool, say: Say) -> None:
        self._plan, self._study, self._worker, self._most = plan, study, worker, most
        self._quiet, self._say = quiet, say
        self._folder = plan.out / "trials" / worker
        self._failures = 0
        self._interrupted: int | None = None
        self._turn = Turn(plan.out)

    def take_all(self, minutes: float | None) -> None:
        end = time.monotonic() + float("inf") if minutes is None else 60 * minutes
        if taken := count_taken(self._study):
            self._say(f"the study goes on: {taken} of {self._most} trials are taken")
        while self._has_more():
            if time.monotonic() >= end:
                self._say(f"{minutes:g} minutes are over")
                return
            if self._failures >= self._plan.tune.failures:
                self._say(f"{self._failures} trials in a row have failed: the study ends here")
                return
            self._turn.take()
            try:
                if self._has_more():
                    self._study.optimize(self._take, n_trials=1, catch=(TrialFailed,))
            except (KeyboardInterrupt, SetupError):
                if self._interrupted is not None:
                    enqueue_again(self._study, self._interrupted)
                raise
            finally:
                self._turn.give()
            if self._failures:
                free_memory()  # not before: the error holds on to what the trial had

    def _has_more(self) -> bool:
        return count_taken(self._study) < self._most

    def _take(self, trial: optuna.Trial) -> list[float]:
        trial.set_user_attr(WORKER, self._worker)
        self._turn.give()
        values = draw_values(trial, self._plan.space)
        began = time.monotonic()
        try:
            outcome = self._train(trial, values)
        except optuna.TrialPruned:
            self._failures = 0
            self._tell(trial, f"ended early after scoring {len(self._scorings)}, {self._latest}", values, began)
            raise
        except (KeyboardInterrupt, SetupError):
            self._interrupted = trial.number
            raise
        except TrialFailed as error:
            self._failures += 1
            trial.set_user_attr(ERROR, str(error)[:1000])
            self._tell(trial, f"failed: {error}", values, began)
            raise
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._failures = 0
        for name in _OUTCOME:
            trial.set_user_attr(name, getattr(outcome, name))
        self._tell(trial, self._describe(outcome.values), values, began)
        return outcome.values

    def _train(self, trial: optuna.Trial, values: dict[str, Any]) -> Outcome:
        plan = self._plan
        self._scorings: list[list[float]] = []

        def look(scoring: int, reached: list[float]) -> None:
            self._scorings.append(reached)
            if len(reached) == 1:
                trial.report(reached[0], scoring)
                if trial.should_prune():
                    raise optuna.TrialPruned

        try:
            recipe = plan.space.recipe_of(values)
        except ValidationError as error:
            why = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
            raise TrialFailed(f"the recipe refuses these values together: {why}") from None
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / "trial.yaml"
        write_text(path, yaml.safe_dump(plan.space.apply(values), sort_keys=False))
        full = full_disk_in_one_line("the same command goes on when there is room")  # no other trial would do better
        with full, _bar(trial.number, quiet=self._quiet) as advance:
            return take_trial(
                plan.materials,
                recipe,
                path,
                self._folder / "run",
                plan.objectives,
                failed=plan.out / f"trial_{trial.number}_{FAILED_STEP}",
                on_scores=look,
                on_progress=advance,
            )

    @property
    def _latest(self) -> str:
        return self._show(self._scorings[-1])

    def _show(self, values: list[float]) -> str:
        return ", ".join(f"{name} {value:.4f}" for name, value in zip(self._plan.objectives, values, strict=True))

    def _describe(self, values: list[float]) -> str:
        if len(values) > 1:
            return self._show(values)
        before = [each for each in self._study.get_trials(deepcopy=False) if each.state == TrialState.COMPLETE]
        best = max(before, key=lambda each: (each.value, -each.number), default=None)
        if best is None or best.value is None or values[0] > best.value:
            return f"{self._show(values)} (best)"
        return f"{self._show(values)} (best {best.value:.4f}, trial {best.number})"

    def _tell(self, trial: optuna.Trial, what: str, values: dict[str, Any], began: float) -> None:
        seconds = time.monotonic() - began
        self._say(f"trial {trial.number} of {self._most}, {seconds:.0f} s: {what}: {describe_values(values)}")


@contextmanager
def _bar(number: int, *, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Yield what shows the steps of a trial, on a terminal only."""
    bar: tqdm[NoReturn] = tqdm(desc=f"trial {number}", unit="step", leave=False, disable=True if quiet else None)

    def advance(progress: Progress) -> None:
        bar.total = progress.steps
        bar.n = progress.step
        bar.refresh()

    with bar:
        yield advance


def read_result(plan: Plan, study: optuna.Study) -> Result:
    """Return what the study has found so far."""
    trials = [_read_trial(each) for each in study.get_trials(deepcopy=False) if each.state != TrialState.WAITING]
    importances = _weigh_keys(study, plan) if sum(each.state == "complete" for each in trials) > 2 else {}
    return Result(plan.recipe.name, plan.objectives, trials, find_front(trials), importances)


def _read_trial(trial: FrozenTrial) -> Trial:
    error = trial.user_attrs.get(ERROR, "")
    state = _STATES.get(trial.state, "failed" if error else "died")
    values = list(trial.values or ()) if state in {"complete", "pruned"} else []
    outcome = {name: trial.user_attrs[name] for name in _OUTCOME if name in trial.user_attrs}
    seconds = trial.duration.total_seconds() if trial.duration else 0.0
    return Trial(trial.number, state, dict(trial.params), values, error, seconds=round(seconds, 1), **outcome)


def _weigh_keys(study: optuna.Study, plan: Plan) -> dict[str, dict[str, float]]:
    """Return which keys explain how good trials are (PED-ANOVA); none where all are alike."""
    found = {}
    for at, name in enumerate(plan.objectives):

        def target(trial: FrozenTrial, at: int = at) -> float:
            return -float(trial.values[at])  # the evaluator weighs what makes figures low

        reached = {tuple(each.values) for each in study.get_trials(deepcopy=False) if each.state == TrialState.COMPLETE}
        if len({values[at] for values in reached}) > 1:
            evaluator = PedAnovaImportanceEvaluator()
            found[name] = get_param_importances(study, evaluator=evaluator, target=target)
    return found


def write_all(plan: Plan, result: Result, say: Say) -> None:
    """Write recipes, `tune.json` and the page, and say what to do with them."""
    for path in write_results(plan.out, plan.space, result)[:1]:
        say(f"best recipe: {path}; train it: murmura train {path} --data {plan.data}")
    if result.trials:
        with contained(f"no {plan.out / PAGE}", say):
            page = make_page(result, plan.tune, plan.path.read_text(encoding="utf-8"))
            replace_text(plan.out / PAGE, page)
            say(f"report: {plan.out / PAGE}")
    if (best := result.best) is not None:
        reached = ", ".join(f"{n} {v:.4f}" for n, v in zip(result.objectives, best.values, strict=True))
        found = ", ".join(f"{key} {show(value)}" for key, value in best.params.items())
        say(f"best of {len(result.complete)} complete trials: trial {best.number}, {reached}: {found}")
    else:
        say("no trial has come to its end: there is no best recipe")

"""Takes trials one after the other in a process. Others may take trials of the same study at the same time."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn

import optuna
import yaml
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState
from pydantic import ValidationError
from tqdm import tqdm

from ...runtime.errors import SetupError
from ..compute.failures import full_disk_in_one_line
from ..fit.loop import Progress
from ..run_folders.os_errors import write_text
from ..run_folders.run_folder import FAILED_STEP
from .others import Others
from .plan import Plan, Say
from .results import describe_values
from .storage import ERRORS, Storage
from .study import ERROR, WORKER, count_taken, draw_values, enqueue_again, retry_dead
from .trial import Outcome, TrialFailed, free_memory, take_trial

OUTCOME: Final = ("scores", "steps", "cpu_seconds")
POLL_S: float = 2


class Taking:
    """Takes trials until the budget is at its end."""

    def __init__(
        self, plan: Plan, study: optuna.Study, storage: Storage, worker: str, most: int, *, quiet: bool, say: Say
    ) -> None:
        self._plan, self._study, self._storage = plan, study, storage
        self._worker, self._most, self._quiet, self._say = worker, most, quiet, say
        self._folder = plan.out / "trials" / worker
        self._failures = 0

    def take_all(self, minutes: float | None) -> None:
        """Take trials. The last ones may run elsewhere: those of a machine that is gone are taken, too."""
        end = time.monotonic() + (float("inf") if minutes is None else 60 * minutes)
        with self._storage.turn():
            retry_dead(self._study, self._storage, self._plan.out)
        if taken := count_taken(self._study):
            self._say(f"the study goes on: {taken} of {self._most} trials are taken")
        others = Others(self._study, self._storage, self._plan.out)
        while True:
            try:
                trial, why_not = self._begin(end, minutes)
            except UpdateFinishedTrialError:  # the turn took so long that others take it for one of a dead process
                continue
            if trial is not None:
                self._run(trial)
                others = Others(self._study, self._storage, self._plan.out)
            elif why_not:
                self._say(why_not)
                return
            elif others.may_be_gone():
                time.sleep(POLL_S)
            else:
                others.say_running()
                return

    def _begin(self, end: float, minutes: float | None) -> tuple[optuna.Trial | None, str]:
        """Begin a trial in a turn. None where there is none, or for the reason that is returned."""
        with self._storage.turn():
            retry_dead(self._study, self._storage, self._plan.out)
            if count_taken(self._study) >= self._most:
                return None, ""
            if time.monotonic() >= end:
                return None, f"{minutes:g} minutes are over"
            if self._failures >= self._plan.tune.failures:
                return None, f"{self._failures} trials in a row have failed: the study ends here"
            trial = self._study.ask()
            # In this order: a trial without a process is known to be nobody's, one with a process has been heard of.
            self._storage.rdb.record_heartbeat(trial._trial_id)
            trial.set_user_attr(WORKER, self._worker)
            return trial, ""

    def _run(self, trial: optuna.Trial) -> None:
        again = f"trial {trial.number} was running: the same command goes on with the study, and takes it again"
        self._storage.at_stake = again
        values: list[float] | None = None
        state = TrialState.FAIL
        try:
            with self._storage.beating(trial._trial_id):
                values, state = self._take(trial), TrialState.COMPLETE
        except optuna.TrialPruned:
            state = TrialState.PRUNED
        except TrialFailed:
            pass
        except UpdateFinishedTrialError:
            self._say(self._describe_lost(trial))
            return
        except ERRORS:
            raise
        except BaseException as error:
            self._storage.waits = False  # whoever ends the command does not want to wait
            recorded = self._study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
            if isinstance(error, KeyboardInterrupt | SetupError):
                enqueue_again(self._study, recorded)
            raise
        recorded = self._study.tell(trial, values, state=state, skip_if_finished=True)
        if recorded.state != state:
            self._say(self._describe_lost(trial))
        self._storage.at_stake = "the same command goes on with the study"
        if self._failures:
            free_memory()  # not before: the error holds on to what the trial had

    def _describe_lost(self, trial: optuna.Trial) -> str:
        why = "had not been heard of for too long, and is another process's now"
        return f"trial {trial.number} {why}: what it reached here does not count"

    def _take(self, trial: optuna.Trial) -> list[float]:
        values = draw_values(trial, self._plan.space)
        began = time.monotonic()
        try:
            outcome = self._train(trial, values)
        except optuna.TrialPruned:
            self._failures = 0
            self._tell(trial, f"ended early after scoring {len(self._scorings)}, {self._latest}", values, began)
            raise
        except TrialFailed as error:
            self._failures += 1
            trial.set_user_attr(ERROR, str(error)[:1000])
            self._tell(trial, f"failed: {error}", values, began)
            raise
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._failures = 0
        for name in OUTCOME:
            trial.set_user_attr(name, getattr(outcome, name))
        self._tell(trial, self._describe(outcome.values), values, began)
        return outcome.values

    def _train(self, trial: optuna.Trial, values: dict[str, Any]) -> Outcome:
        plan = self._plan
        self._scorings: list[list[float]] = []

        def look(scoring: int, reached: list[float], is_last: bool = False) -> None:
            self._scorings.append(reached)
            if len(reached) == 1:
                trial.report(reached[0], scoring)
                if trial.should_prune() and not is_last:  # which is trained: nothing would be saved
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
        taken = f"{count_taken(self._study)} of {self._most} taken"
        self._say(f"trial {trial.number} ({taken}), {seconds:.0f} s: {what}: {describe_values(values)}")


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

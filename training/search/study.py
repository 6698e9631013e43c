"""The study as optuna keeps it: its sampler and pruner, its budget, and trials that died with their process."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from ...runtime.errors import SetupError
from ..recipe.keys.tune import Dimension, Tune
from .space import Space, name_of
from .storage import Storage, show_url
from .workers import forget_dead, host_of, is_alive

RECIPE: Final = "recipe_sha256"
OBJECTIVES: Final = "objectives"
WORKER: Final = "worker"
ERROR: Final = "error"
"""Attribute of a trial that ended with an error. One whose process died has none, and is taken again."""
RETRIES: Final = 1
"""How often a trial is taken again whose process died: it may be the trial that ends it."""
MOST_STARTUP: Final = 10
_FIRST: Final = "failed_trial"
_HISTORY: Final = "retry_history"
"""Attributes of a trial that is taken again, as optuna calls them: the first one of its values, and all that died."""


class SeededByTrial(BaseSampler):
    """Draws each trial from a generator of its own, by seed and number: a study that goes on draws what it would have drawn.

    The first trial gets the values of the recipe, `own`, whichever process takes it.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int, own: Mapping[str, Any]) -> None:
        self._make, self._seed, self._own = make, seed, own
        self._inner = make(seed % 2**32)  # numpy's older generators take no more

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._inner = self._make((self._seed * 1_000_003 + trial.number) % 2**32)
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        found = self._inner.infer_relative_search_space(study, trial)
        return {key: each for key, each in found.items() if key not in self._own_values(trial)}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        own = self._own_values(trial)
        if param_name in own:
            return own[param_name]
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def _own_values(self, trial: FrozenTrial) -> Mapping[str, Any]:
        return self._own if trial.system_attrs.get(_FIRST, trial.number) == 0 else {}

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._inner.after_trial(study, trial, state, values)


def make_sampler(tune: Tune, own: Mapping[str, Any]) -> BaseSampler:
    """Return the sampler. The first trial has the values `own`; the first third, at most ten, is drawn at random."""
    startup = max(2, min(MOST_STARTUP, tune.trials // 3))
    by_name: dict[str, Callable[[int], BaseSampler]] = {
        "tpe": lambda seed: TPESampler(seed=seed, n_startup_trials=startup),
        "nsga2": lambda seed: NSGAIISampler(seed=seed, population_size=startup),
        "random": lambda seed: RandomSampler(seed=seed),
    }
    return SeededByTrial(by_name[tune.sampler], tune.seed, own)


def make_pruner(tune: Tune, objectives: Sequence[str]) -> optuna.pruners.BasePruner:
    """Return the pruner; a scoring of validation is its unit of progress."""
    method = tune.pruning or ("median" if len(objectives) == 1 else "none")
    if method == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=min(5, max(1, tune.trials // 4)))
    if method == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    return optuna.pruners.NopPruner()


def draw_values(trial: optuna.Trial, space: Space) -> dict[str, Any]:
    """Draw a value of each key; names of choices."""
    return {key: _draw(trial, key, dimension) for key, dimension in space.dimensions.items()}


def _draw(trial: optuna.Trial, key: str, dimension: Dimension) -> Any:
    if dimension.choices is not None:
        return trial.suggest_categorical(key, [name_of(each) for each in dimension.choices])
    low, high, step = dimension.low, dimension.high, dimension.step
    assert low is not None, "the recipe refuses half a range"
    assert high is not None, "the recipe refuses half a range"
    if dimension.is_whole:
        return trial.suggest_int(key, int(low), int(high), step=int(step or 1), log=dimension.log)
    return trial.suggest_float(key, float(low), float(high), step=step, log=dimension.log)


def open_study(storage: Storage, space: Space, tune: Tune, *, known_as: str, objectives: Sequence[str]) -> optuna.Study:
    """Open the study of this recipe, or begin it. SetupError where the storage holds another's study of this name."""
    with storage.turn():
        study = optuna.create_study(
            storage=storage.rdb,
            study_name=space.recipe.name,
            directions=["maximize"] * len(objectives),
            sampler=make_sampler(tune, space.own_values()),
            pruner=make_pruner(tune, objectives),
            load_if_exists=True,
        )
        found = study.user_attrs.get(RECIPE)
        if found not in {None, known_as}:
            raise SetupError(
                f"{show_url(storage.url)}: holds the study {space.recipe.name} of another recipe, space or data; "
                "give the recipe another `name`, or --out another folder where the study lies in it"
            )
        if found is None:
            study.set_user_attr(RECIPE, known_as)
            study.set_user_attr(OBJECTIVES, list(objectives))
    return study


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keep optuna's own lines and warnings of experimental parts to itself: what happens is said by us."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            # The importance of low figures is asked of figures with the other sign, as it says.
            warnings.filterwarnings("ignore", message="PedAnova")
            # Heartbeats are ours: optuna's loop is left by an error of the storage without a reason.
            warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed")
            yield
    finally:
        optuna.logging.set_verbosity(before)


def retry_dead(study: optuna.Study, storage: Storage, out: Path) -> None:
    """Have running trials taken again whose process has died, in a turn: those of this folder, those of other machines that have
    been silent too long, and those of a process that died in its turn, which nobody has begun.
    """
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        worker = trial.user_attrs.get(WORKER)
        if worker is None or is_alive(out, worker) is False:
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            _retry(study, trial, "died with its process", storage.say)
    if running := study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        optuna.storages.fail_stale_trials(study)
        for trial in running:
            if study.trials[trial.number].state == TrialState.FAIL:
                _retry(study, trial, f"of {host_of(trial.user_attrs[WORKER])} has been silent too long", storage.say)
    forget_dead(out)


def _retry(study: optuna.Study, trial: FrozenTrial, why: str, say: Callable[[str], None]) -> None:
    again = len(trial.system_attrs.get(_HISTORY, [])) < RETRIES
    say(f"trial {trial.number} {why}; it is {'taken again' if again else 'not taken a third time'}")
    if again:
        enqueue_again(study, trial, died=True)


def enqueue_again(study: optuna.Study, trial: FrozenTrial, *, died: bool = False) -> None:
    """Have a trial taken again, with the same values."""
    attributes = {_FIRST: trial.number, **trial.system_attrs}
    if died:
        attributes[_HISTORY] = [*attributes.get(_HISTORY, []), trial.number]
    again = create_trial(
        state=TrialState.WAITING,
        params=trial.params,
        distributions=trial.distributions,
        system_attrs=attributes,
    )
    study.add_trial(again)


def count_taken(study: optuna.Study) -> int:
    """Return how many trials of the budget are taken: those that have ended or are running, without those that died."""
    trials = study.get_trials(deepcopy=False)
    return sum(
        each.state in {TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING} or ERROR in each.user_attrs
        for each in trials
    )

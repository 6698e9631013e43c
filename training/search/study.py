"""The study as optuna keeps it: its storage, its sampler and pruner, its budget, and trials that died with their process."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from ...runtime.errors import SetupError
from ..recipe.tune import PASSWORD_KEYS, Dimension, Tune, list_passwords
from .space import Space, name_of
from .workers import is_dead

RECIPE: Final = "recipe_sha256"
OBJECTIVES: Final = "objectives"
WORKER: Final = "worker"
ERROR: Final = "error"
"""Attribute of a trial that ended with an error. One whose process died has none, and is taken again."""
DATABASE: Final = "study.db"
RETRIES: Final = 1
"""How often a trial is taken again whose process died: it may be the trial that ends it."""
MOST_STARTUP: Final = 10
_HEARTBEAT_S: Final = 60
_SILENT_S: Final = 300
"""A trial of another machine that has not been heard of for so long is taken again."""
_CONNECT_S: Final = 15
_SQLITE_WAIT_S: Final = 60


class SeededByTrial(BaseSampler):
    """Draws each trial from a generator of its own, by seed and number: a study that goes on draws what it would have drawn."""

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make, self._seed = make, seed
        self._inner = make(seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._inner = self._make((self._seed * 1_000_003 + trial.number) % 2**32)
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        self._inner.after_trial(study, trial, state, values)


def make_sampler(tune: Tune) -> BaseSampler:
    """Return the sampler; the first third of the trials, at most ten, is drawn at random."""
    startup = max(2, min(MOST_STARTUP, tune.trials // 3))
    by_name: dict[str, Callable[[int], BaseSampler]] = {
        "tpe": lambda seed: TPESampler(seed=seed, n_startup_trials=startup),
        "nsga2": lambda seed: NSGAIISampler(seed=seed, population_size=startup),
        "random": lambda seed: RandomSampler(seed=seed),
    }
    return SeededByTrial(by_name[tune.sampler], tune.seed)


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


def open_study(
    space: Space, tune: Tune, out: Path, *, storage: str | None, known_as: str, objectives: Sequence[str]
) -> optuna.Study:
    """Open the study of this recipe, or begin it. SetupError where the storage cannot be reached or holds another's study."""
    url = f"sqlite:///{(out / DATABASE).resolve()}" if storage is None else storage
    with quiet_optuna(), contain_storage(url):
        study = optuna.create_study(
            storage=_open_storage(url),
            study_name=space.recipe.name,
            directions=["maximize"] * len(objectives),
            sampler=make_sampler(tune),
            pruner=make_pruner(tune, objectives),
            load_if_exists=True,
        )
        found = study.user_attrs.get(RECIPE)
        if found not in {None, known_as}:
            raise SetupError(
                f"{show_url(url)}: holds the study {space.recipe.name} of another recipe, space or data; "
                "give --out another folder, or the recipe another `name`"
            )
        if found is None:
            study.set_user_attr(RECIPE, known_as)
            study.set_user_attr(OBJECTIVES, list(objectives))
            if own := space.own_values():
                study.enqueue_trial(own)
    return study


def _open_storage(url: str) -> RDBStorage:
    parsed = make_url(url)
    waits = {"sqlite": {"timeout": _SQLITE_WAIT_S}}
    waits |= {name: {"connect_timeout": _CONNECT_S} for name in ("postgresql", "mysql", "mariadb")}
    return RDBStorage(
        url,
        engine_kwargs={"connect_args": waits.get(parsed.get_backend_name(), {})},
        heartbeat_interval=_HEARTBEAT_S,
        grace_period=_SILENT_S,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=RETRIES),
    )


def show_url(url: str) -> str:
    """Return the URL of a storage without its password."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        return "tune.storage"
    named = {key: "***" for key in parsed.query if key.lower() in PASSWORD_KEYS}
    return parsed.update_query_dict(named).render_as_string(hide_password=True)


@contextmanager
def contain_storage(url: str) -> Iterator[None]:
    """Turn what a storage raises into one line without passwords."""
    try:
        yield
    except ArgumentError:
        raise SetupError("tune.storage: not the URL of a database; expected postgresql://HOST/NAME, say") from None
    except ImportError as error:
        raise SetupError(f"{show_url(url)}: its driver is not installed: {error.name or 'unknown'}") from None
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = getattr(error, "orig", None) or error.__cause__ or error
        why = " ".join(str(cause).split())
        for secret in list_passwords(url):
            why = why.replace(secret, "***")
        why = why[:200]
        raise SetupError(f"{show_url(url)}: the storage of the study cannot be used: {why}") from None


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
            yield
    finally:
        optuna.logging.set_verbosity(before)


def retry_dead(study: optuna.Study, out: Path) -> list[int]:
    """Mark running trials failed whose process on this machine has died, have them taken again, and return their numbers."""
    retry = RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)
    found = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        worker = trial.user_attrs.get(WORKER)
        if worker is not None and is_dead(out, worker):
            study.tell(trial.number, state=TrialState.FAIL)
            retry(study, study.trials[trial.number])
            found.append(trial.number)
    return found


def enqueue_again(study: optuna.Study, number: int) -> None:
    """Have a trial taken again that was ended for a reason which is not its own, with the same values."""
    trial = study.trials[number]
    again = create_trial(
        state=TrialState.WAITING,
        params=trial.params,
        distributions=trial.distributions,
        system_attrs=trial.system_attrs,
    )
    study.add_trial(again)


def count_taken(study: optuna.Study) -> int:
    """Return how many trials of the budget are taken: those that have ended or are running, without those that died."""
    trials = study.get_trials(deepcopy=False)
    return sum(
        each.state in {TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING} or ERROR in each.user_attrs
        for each in trials
    )

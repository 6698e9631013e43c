"""The samplers, the pruners and the importance of keys, on figures whose best values, order and cause are known."""

from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from murmura.training.recipe.keys.tune import Tune
from murmura.training.search import run as search
from murmura.training.search.study import make_pruner, make_sampler, quiet_optuna

Objective = Callable[[optuna.Trial], float]


def tune(**keys: Any) -> Tune:
    return Tune.model_validate({"space": {"dropout": [0.0, 0.1]}, **keys})


def study_of(keys: Tune, objective: Objective) -> optuna.Study:
    """A study in memory, of as many trials as the keys say."""
    with quiet_optuna():
        study = optuna.create_study(
            direction="maximize", sampler=make_sampler(keys, {}), pruner=make_pruner(keys, ["mean"])
        )
        study.optimize(objective, n_trials=keys.trials)
    return study


def peak(trial: optuna.Trial) -> float:
    """Highest at 0.7 and 0.2."""
    return -((trial.suggest_float("x", 0, 1) - 0.7) ** 2) - (trial.suggest_float("y", 0, 1) - 0.2) ** 2


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_sampler_draws_nearer_to_a_known_optimum_as_it_learns_where_random_does_not(sampler: str) -> None:
    def later_than_first(name: str) -> float:
        values = [float(each.value or 0) for each in study_of(tune(sampler=name, trials=60, seed=1), peak).trials]
        return sum(values[40:]) / 20 - sum(values[:20]) / 20

    gained, by_chance = later_than_first(sampler), later_than_first("random")
    assert gained > 0.08
    assert gained > by_chance + 0.05


@pytest.mark.parametrize(("pruning", "ended"), [("median", True), ("halving", True), ("none", False)])
def test_a_trial_that_is_worse_at_each_scoring_ends_early_and_the_best_never_does(pruning: str, ended: bool) -> None:
    levels = iter([0.5, 0.6, 0.7, 0.8, 0.1, 0.9, 0.15, 0.95])

    def objective(trial: optuna.Trial) -> float:
        level = next(levels)
        trial.set_user_attr("level", level)
        for scoring in range(1, 5):
            trial.report(level + 0.01 * scoring, scoring)
            if trial.should_prune():
                raise optuna.TrialPruned
        return level

    trials = study_of(tune(pruning=pruning, trials=8), objective).trials
    pruned = {each.user_attrs["level"] for each in trials if each.state == TrialState.PRUNED}
    assert ({0.1, 0.15} <= pruned) is ended
    assert not pruned & {0.5, 0.9, 0.95}


def test_the_key_that_makes_the_figure_matters_most() -> None:
    def objective(trial: optuna.Trial) -> float:
        trial.suggest_float("idle", 0, 1)
        return trial.suggest_float("rate", 0, 1)

    study = study_of(tune(sampler="random", trials=40), objective)
    plan: Any = type("OfOne", (), {"objectives": ["mean"]})
    weighed = search._weigh_keys(study, plan)["mean"]
    assert weighed["rate"] > 0.8 > 0.2 > weighed["idle"]

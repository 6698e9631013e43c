"""`murmura tune`: takes the trials that are still to be taken, and writes what the study has found."""

from typing import Final

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from ..report.page import contained
from ..run_folders.provenance import digest_data
from .page import make_page
from .plan import Plan, Say
from .results import Result, State, Trial, find_front, replace_text, show, write_results
from .space import digest_study
from .storage import ERRORS, open_storage
from .study import ERROR, open_study, quiet_optuna
from .taking import OUTCOME, Taking
from .workers import register_worker

PAGE: Final = "tune.html"
_STATES: Final[dict[TrialState, State]] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.RUNNING: "running",
}


def run_study(plan: Plan, *, trials: int | None = None, minutes: float | None = None, quiet: bool, say: Say) -> Result:
    """Take trials until the budget is at its end, and write the results. Ctrl-C raises KeyboardInterrupt when that is done."""
    recipe = plan.recipe.model_copy(update={"threads": None})
    known_as = digest_study(recipe, plan.tune, digest_data(plan.recipe, plan.data))
    plan.out.mkdir(parents=True, exist_ok=True)
    with (
        quiet_optuna(),
        open_storage(plan.storage, plan.recipe.name, say) as storage,
        register_worker(plan.out) as worker,
    ):
        study = open_study(storage, plan.space, plan.tune, known_as=known_as, objectives=plan.objectives)
        most = plan.tune.trials if trials is None else trials
        try:
            Taking(plan, study, storage, worker, most, quiet=quiet, say=say).take_all(
                plan.tune.minutes if minutes is None else minutes
            )
        except ERRORS:
            raise  # nothing can be read of it
        except BaseException:
            write_all(plan, read_result(plan, study), say)
            raise
        result = read_result(plan, study)
        write_all(plan, result, say)
    return result


def read_result(plan: Plan, study: optuna.Study) -> Result:
    """Return what the study has found so far."""
    trials = [_read_trial(each) for each in study.get_trials(deepcopy=False) if each.state != TrialState.WAITING]
    importances = _weigh_keys(study, plan) if sum(each.state == "complete" for each in trials) > 2 else {}
    return Result(plan.recipe.name, plan.objectives, trials, find_front(trials), importances)


def _read_trial(trial: FrozenTrial) -> Trial:
    error = trial.user_attrs.get(ERROR, "")
    state = _STATES.get(trial.state, "failed" if error else "died")
    values = list(trial.values or ()) if state in {"complete", "pruned"} else []
    outcome = {name: trial.user_attrs[name] for name in OUTCOME if name in trial.user_attrs}
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

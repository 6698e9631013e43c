"""Processes that work on one study in a folder, and trials that they leave."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from tiny_study import SHORT, tune
from tiny_training import RECIPE

from murmura.training.run_folders.provenance import digest_data
from murmura.training.search import run as search
from murmura.training.search import taking
from murmura.training.search.plan import Plan, open_plan
from murmura.training.search.space import digest_study
from murmura.training.search.storage import open_storage
from murmura.training.search.study import open_study, quiet_optuna
from murmura.training.search.trial import Outcome

WriteRecipe = Callable[..., Path]


@pytest.fixture(autouse=True)
def without_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawings take longer than tiny trials."""
    monkeypatch.setattr(search, "make_page", lambda *given: "")


def take_without_training(*given: Any, **named: Any) -> Outcome:
    """A trial whose figure is the rate of its heads."""
    time.sleep(0.05)
    return Outcome([given[1].optimiser.head_lr], {}, 1, 0.0)


def in_a_process(plan: Plan, kill_at: int = -1) -> multiprocessing.Process:
    """Work on the study in a process of its own, which dies in its trial `kill_at`."""

    def work() -> None:
        calls = iter(range(99))

        def take(*given: Any, **named: Any) -> Outcome:
            if next(calls) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return take_without_training(*given, **named)

        taking.take_trial = take
        search.run_study(plan, quiet=True, say=lambda line: None)
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def test_a_killed_study_goes_on_and_two_processes_share_it(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = {"optimiser.head_lr": {"low": 1e-3, "high": 1e-1, "log": True}}
    path, out = write_recipe(**{**SHORT, "tune": {"space": space, "trials": 8}}), tmp_path / "study"
    plan = open_plan(path, few, out, say=lambda line: None)
    killed = in_a_process(plan, kill_at=2)
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    both = [in_a_process(plan) for _ in range(2)]
    for each in both:
        each.join(60)
    assert [each.exitcode for each in both] == [0, 0]
    monkeypatch.setattr(taking, "take_trial", take_without_training)
    result, said = tune(path, few, out)
    assert "the study goes on: 8 of 8 trials are taken" in said
    states = [each.state for each in result.trials]
    assert (states.count("complete"), states.count("died"), states[2]) == (8, 1, "died")
    again = [each.number for each in result.complete if each.params == result.trials[2].params]
    assert len(again) == (1 if result.trials[2].params else 0)
    assert len({each.values[0] for each in result.complete}) == 8
    assert not list((out / "workers").iterdir())


def test_a_trial_that_another_process_has_taken_over_does_not_count_and_one_that_nobody_began_is_taken(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_recipe(**{**SHORT, "tune": {"space": {"optimiser.head_lr": [1e-2, 2e-2]}, "trials": 3}})
    out = tmp_path / "study{0}"  # optuna fills what stands in braces
    out.mkdir()
    plan = open_plan(path, few, out, say=lambda line: None)
    takes_over = {1: "at a scoring", 3: "at its end"}
    calls: list[float] = []

    def take(*given: Any, on_scores: Callable[[int, list[float]], None], **named: Any) -> Outcome:
        calls.append(given[1].optimiser.head_lr)
        if len(calls) in takes_over:
            study = optuna.load_study(study_name="tiny", storage=plan.storage.render_as_string())
            study.tell(study.trials[-1].number, state=TrialState.FAIL)
        if takes_over.get(len(calls)) != "at its end":
            on_scores(1, [0.5])
        return Outcome([0.5], {}, 1, 0.0)

    monkeypatch.setattr(taking, "take_trial", take)
    with quiet_optuna(), open_storage(plan.storage, "tiny", print) as storage:
        known_as = digest_study(
            plan.recipe.model_copy(update={"threads": None}), plan.tune, digest_data(plan.recipe, few)
        )
        study = open_study(storage, plan.space, plan.tune, known_as=known_as, objectives=plan.objectives)
        study.ask()  # and its process dies at once
    result, said = tune(path, few, out)
    assert [each.state for each in result.trials] == ["died", "died", "complete", "died", "complete", "complete"]
    assert calls[0] == RECIPE["optimiser"]["head_lr"]  # the first trial's values, which nobody had drawn
    assert "trial 0 died with its process; it is taken again" in said
    assert not any(line.startswith("the study goes on") for line in said)  # a trial that died is not taken
    lost = "had not been heard of for too long, and is another process's now: what it reached here does not count"
    assert [line for line in said if lost in line] == [f"trial 1 {lost}", f"trial 3 {lost}"]
    assert not list((out / "workers").iterdir())


def test_a_trial_that_is_taken_for_a_dead_one_before_it_is_begun_is_left_to_others(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_recipe(**{**SHORT, "tune": {"space": {"optimiser.head_lr": [1e-2, 2e-2]}, "trials": 2}})
    record_heartbeat = optuna.storages.RDBStorage.record_heartbeat

    def fail_the_first(storage: optuna.storages.RDBStorage, trial: int) -> None:
        record_heartbeat(storage, trial)
        if storage.get_trial(trial).number == 0:
            storage.set_trial_state_values(trial, TrialState.FAIL)

    monkeypatch.setattr(optuna.storages.RDBStorage, "record_heartbeat", fail_the_first)
    monkeypatch.setattr(taking, "take_trial", take_without_training)
    result, said = tune(path, few, tmp_path / "study")
    assert [each.state for each in result.trials] == ["died", "complete", "complete"]
    assert [line.split(",")[0] for line in said if "mean" in line][:2] == [
        "trial 1 (1 of 2 taken)",
        "trial 2 (2 of 2 taken)",
    ]

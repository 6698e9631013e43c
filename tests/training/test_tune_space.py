"""Keys of a space that change no figure, positions and storages that are not there, and trials that are trained to the end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_few_rows import INTENT as FEW
from tiny_study import SHORT, tune
from tiny_training import RECIPE

from murmura.runtime.errors import SetupError
from murmura.training.fit.check_data import refuse_recipe
from murmura.training.recipe.recipe import load_recipe
from murmura.training.search import run as search
from murmura.training.search.plan import open_plan
from murmura.training.search.space import open_space

WriteRecipe = Callable[..., Path]
EPOCHS = {"intent": {**RECIPE["tasks"]["intent"], "epochs": 2}}


@pytest.fixture
def refusal(few: Path, tmp_path: Path, write_recipe: WriteRecipe) -> Callable[..., str]:
    """Return the line that a space is refused by, or an empty one; what was said stands in `said`."""

    def check(
        space: dict[str, Any], said: list[str] | None = None, tuned: dict[str, Any] | None = None, **keys: Any
    ) -> str:
        path = write_recipe(**{**SHORT, **keys, "tune": {"space": space, **(tuned or {})}})
        try:
            open_plan(path, few, tmp_path / "study", say=(said if said is not None else []).append)
        except SetupError as error:
            return str(error)
        return ""

    return check


@pytest.mark.parametrize(
    ("key", "choices"),
    [
        ("description", ["a", "b"]),
        ("attribution", ["a", "b"]),
        ("pooled", [False, True]),
        ("allow_unknown", [False, True]),
        ("tasks.intent.open", [False, True]),
        ("tasks.intent.default_for", [None, ["classification"]]),
    ],
)
def test_a_key_that_no_figure_depends_on_is_refused(refusal: Callable[..., str], key: str, choices: list[Any]) -> None:
    name = key.rpartition(".")[2]
    assert f"tune.space.{key}: a trial's figure does not depend on `{name}`" in refusal({key: choices})


@pytest.mark.parametrize("key", ["optimiser.head_lr", "dropout", "budget.steps", "optimiser.encoder_lr", "hold.weight"])
def test_a_key_that_a_note_says_is_without_effect_is_refused(refusal: Callable[..., str], base: Path, key: str) -> None:
    frozen = {"encoder": str(base), "freeze": "encoder", "tasks": {"intent": FEW}}
    values = {"low": 1, "high": 9} if key == "budget.steps" else {"low": 0.01, "high": 0.5}
    others = {"few_rows": [20, 0]} if key == "hold.weight" else {}  # beside neither of them it acts
    refused = refusal({**others, key: values}, **frozen)
    assert f"tune.space.{key}: no trial would differ by it: " in refused
    assert "no effect" in refused


def test_a_key_that_acts_beside_another_value_of_the_space_is_searched(refusal: Callable[..., str], base: Path) -> None:
    rate = {"optimiser.head_lr": {"low": 1e-3, "high": 1e-2}}
    frozen = {"encoder": str(base), "freeze": "encoder", "tasks": {"intent": FEW}}
    assert refusal({**rate, "few_rows": [20, 0]}, **frozen) == ""


@pytest.mark.parametrize(
    ("keys", "space"),
    [
        ({"label_smoothing": 0.1}, {"tasks.intent.label_smoothing": {"low": 0.0, "high": 0.2}}),
        ({"budget": {"epochs": 2, "evaluations": 2}}, {"tasks.intent.epochs": {"low": 1, "high": 3}}),
        (
            {"phases": [{"name": "a", "steps": 8}], "budget": {"evaluations": 2}},
            {"phases.0.evaluations": [1, 2]},
        ),
        ({"budget": {"epochs": 2, "evaluations": 2}, "tasks": EPOCHS}, {"budget.epochs": [2, 3]}),
    ],
)
def test_a_key_of_the_recipe_that_an_end_makes_idle_does_not_refuse_the_space(
    refusal: Callable[..., str], keys: dict[str, Any], space: dict[str, Any]
) -> None:
    refused = refusal(space, **keys)
    if "tasks" in keys:  # the recipe itself is refused for it
        assert "budget.epochs: has no effect: every task has its own" in refused
    else:
        assert refused == ""


def test_a_key_that_is_idle_at_each_of_its_ends_is_refused(refusal: Callable[..., str]) -> None:
    assert "tune.space.budget.epochs: no trial would differ by it: has no effect" in refusal(
        {"budget.epochs": [2, 3]}, tasks=EPOCHS, budget={"evaluations": 2}
    )


def test_values_that_make_a_key_idle_together_are_a_trial_without_it(few: Path, write_recipe: WriteRecipe) -> None:
    space = {"weights.method": ["dwa", "pcgrad"], "weights.cosine": ["encoder", "last_layer"], "dropout": [0.0, 0.1]}
    recipe = load_recipe(
        write_recipe(**{**SHORT, "tasks": RECIPE["tasks"], "weights": "dwa", "tune": {"space": space}})
    )
    assert recipe.tune is not None
    opened = open_space(recipe, recipe.tune)
    idle = {"weights.method": "pcgrad", "weights.cosine": "encoder"}
    made = opened.recipe_of(idle)
    refuse_recipe(made)
    assert made.weights.method == "pcgrad"
    assert opened.apply(idle)["weights"] == {"method": "pcgrad"}
    assert "has no effect" in opened.find_idle("weights.cosine", idle)
    acting = {"weights.method": "dwa", "weights.cosine": "encoder"}
    assert opened.find_idle("weights.cosine", acting) == ""
    assert opened.recipe_of(acting).weights.cosine == "encoder"


def test_notes_of_the_recipe_are_said(refusal: Callable[..., str]) -> None:
    said: list[str] = []
    assert refusal({"dropout": [0.0, 0.1]}, said, hold={"weight": 2.0}) == ""
    assert said == ["note: `hold` has no effect: no row is marked `soft`, and no phase holds other tasks"]


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ({"phases.0.steps": [1, 2]}, "the recipe has no list `phases` to count in; write it out in the recipe"),
        ({"phases": ["a", "b"]}, "'a' is refused: expected a list"),
        ({"hold": [1, 2]}, "1 is refused: expected a mapping"),
    ],
)
def test_a_place_that_is_not_there_gets_what_is_expected(
    refusal: Callable[..., str], space: dict[str, Any], expected: str
) -> None:
    assert refusal(space).endswith(expected)


@pytest.mark.parametrize("storage", ["no/such/study.db", "file/study.db", "file", "folder"])
def test_a_check_refuses_a_file_that_cannot_hold_a_study_and_makes_none(
    refusal: Callable[..., str], tmp_path: Path, storage: str
) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.iterdir())
    said = refusal({"dropout": [0.0, 0.1]}, tuned={"storage": f"sqlite:///{tmp_path}/{storage}"})
    assert f"{tmp_path}/{storage}: the storage of the study cannot be used: " in said
    assert sorted(path for path in tmp_path.iterdir() if path.suffix != ".yaml") == before
    assert refusal({"dropout": [0.0, 0.1]}, tuned={"storage": f"sqlite:///{tmp_path}/new.db"}) == ""
    assert not (tmp_path / "new.db").exists()


def test_pruning_beside_the_only_scoring_is_refused(refusal: Callable[..., str]) -> None:
    once = {"budget": {"steps": 2, "evaluations": 1}}
    space = {"dropout": [0.0, 0.1]}
    assert "tune.pruning: halving ends no trial before its only scoring" in refusal(
        space, tuned={"pruning": "halving"}, **once
    )
    assert refusal({**space, "budget.evaluations": [1, 2]}, tuned={"pruning": "halving"}, **once) == ""
    assert refusal(space, tuned={"pruning": "none"}, **once) == ""


@pytest.mark.parametrize(
    ("budget", "scorings"),
    [
        ({"evaluations": 1}, 1),
        ({"evaluations": 2}, 2),
        ({"evaluations": 4, "patience": 1}, 2),  # the second scoring is no better
    ],
)
def test_a_trial_that_is_wholly_trained_is_not_ended_early(
    few: Path,
    tmp_path: Path,
    write_recipe: WriteRecipe,
    monkeypatch: pytest.MonkeyPatch,
    budget: dict[str, int],
    scorings: int,
) -> None:
    """A pruner that would end every trial at its last scoring ends none, whether the plan or patience makes it the last."""
    seen: dict[int, int] = {}
    monkeypatch.setattr(search, "make_page", lambda *given: "")
    monkeypatch.setattr("optuna.Trial.report", lambda trial, value, step: seen.update({trial.number: step}))
    monkeypatch.setattr("optuna.Trial.should_prune", lambda trial: seen[trial.number] == scorings)
    space = {"space": {"optimiser.head_lr": [1e-9, 2e-9]}, "trials": 2, "sampler": "random"}
    keys = {"optimiser": {"encoder_lr": 1e-9, "head_lr": 1e-9}, "budget": {"steps": 12, **budget}, "tune": space}
    result, _ = tune(write_recipe(**{**SHORT, **keys}), few, tmp_path / "study")
    assert [each.state for each in result.trials] == ["complete", "complete"]
    assert seen == {0: scorings, 1: scorings}

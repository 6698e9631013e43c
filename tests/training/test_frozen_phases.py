"""What trains the encoder that tasks share has no effect where the encoder stays as it is: refused, or said by phase."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_training import RECIPE

from murmura.runtime.errors import SetupError
from murmura.training.fit.check_data import check_data
from murmura.training.fit.checkpoint import checkpoint_weights
from murmura.training.fit.loop import fit
from murmura.training.fit.phases import Base, begin_phase
from murmura.training.fit.setup import Fitting
from murmura.training.fit.weights.pcgrad import PCGrad
from murmura.training.fit.weights.static import Static
from murmura.training.recipe.recipe import load_recipe
from murmura.training.search.plan import open_plan
from murmura.training.search.trial import Materials, TrialFailed, take_trial

WriteRecipe = Callable[..., Path]
TWO = {name: RECIPE["tasks"][name] for name in ("intent", "places")}
SHORT = {"tasks": TWO, "trackers": [], "probe": False, "few_rows": 0, "budget": {"evaluations": 1}}
ALL_BY_NUMBER = RECIPE["encoder"]["layers"]
MIXED = [
    {"name": "joint", "steps": 1},
    {"name": "one", "tasks": ["intent"], "steps": 1},
    {"name": "heads", "steps": 1, "freeze": ALL_BY_NUMBER},
]
SAID = (
    "note: phases one, heads: `weights: pcgrad` has no effect, the tasks have static weights: it acts in phases that teach all "
    "tasks and train the encoder"
)


@pytest.mark.parametrize("method", ["pcgrad", "dwa"])
@pytest.mark.parametrize(
    "keys",
    [
        {"freeze": "encoder"},
        {"freeze": ALL_BY_NUMBER},
        {"freeze": "encoder", "phases": [{"name": "a"}, {"name": "b", "tasks": ["intent"]}]},
        {"phases": [{"name": "a", "freeze": "encoder"}, {"name": "b", "freeze": ALL_BY_NUMBER}]},
        {"frozen": True},
    ],
    ids=["recipe", "number", "recipe with phases", "phases", "encoder"],
)
def test_a_method_of_weights_on_an_encoder_that_stays_as_it_is_is_refused_in_one_line(
    few: Path, base: Path, tmp_path: Path, write_recipe: WriteRecipe, keys: dict[str, Any], method: str
) -> None:
    encoder = {"source": str(base), "frozen": keys.get("frozen", False)}
    changes = {**SHORT, "encoder": encoder, **{key: value for key, value in keys.items() if key != "frozen"}}
    recipe = write_recipe(weights=method, **changes)
    with pytest.raises(
        SetupError, match=rf"tiny\.yaml:\d+: weights: {method} has no effect on a frozen encoder"
    ) as caught:
        fit(recipe, few, tmp_path / "run", quiet=True)
    assert "\n" not in str(caught.value)
    assert str(caught.value) in check_data(load_recipe(recipe), few).problems
    assert not (tmp_path / "run").exists()


def test_a_method_of_weights_that_acts_in_no_phase_is_refused(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    phases = [
        {"name": "a", "tasks": ["intent"]},
        {"name": "b", "tasks": ["places"]},
        {"name": "c", "freeze": "encoder"},
    ]
    recipe = write_recipe(weights="dwa", phases=phases, **SHORT)
    with pytest.raises(SetupError, match=r"tiny\.yaml:\d+: weights: dwa acts in no phase: ") as caught:
        fit(recipe, few, tmp_path / "run", quiet=True)
    assert str(caught.value) in check_data(load_recipe(recipe), few).problems


def test_where_a_method_of_weights_acts_in_some_phases_a_line_names_the_others(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    recipe = write_recipe(weights="pcgrad", phases=MIXED, **SHORT)
    said: list[str] = []
    record = fit(recipe, few, tmp_path / "run", quiet=True, print_line=said.append)
    assert [phase.steps for phase in record.phases] == [1, 1, 1]
    checked = check_data(load_recipe(recipe), few)
    assert checked.problems == []
    assert SAID in said
    assert checked.notes == [SAID]
    assert check_data(load_recipe(write_recipe(weights="pcgrad", phases=MIXED[:1], **SHORT)), few).notes == []


def test_a_method_of_weights_acts_in_the_phases_that_are_not_named(few: Path, open_run: Callable[..., Fitting]) -> None:
    run = open_run(few, weights={"method": "pcgrad", "cosine": "encoder"}, **{**SHORT, "phases": MIXED})
    base = Base(run.recipe, run.train, run.trained)
    run.folder.path.mkdir()
    run.folder.save_weights(checkpoint_weights(run.model, low_rank=False))
    found = []
    for number in range(len(MIXED)):
        begin_phase(run, base, number, goes_on=False)
        found.append((type(run.weighting), run.recipe.weights.cosine))
    assert found == [(PCGrad, "encoder"), (Static, "encoder"), (Static, "encoder")]


def test_a_trial_that_freezes_what_its_method_weighs_fails_and_the_study_goes_on(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe
) -> None:
    space = {"freeze": [None, "encoder"], "weights": ["static", "pcgrad"]}
    path = write_recipe(tune={"space": space, "trials": 4}, **SHORT)
    plan = open_plan(path, few, tmp_path / "study", say=lambda line: None)
    recipe = plan.space.recipe_of({"freeze": "encoder", "weights": "pcgrad"})

    def ignore(*given: Any) -> None:
        pass

    with pytest.raises(TrialFailed, match="pcgrad has no effect on a frozen encoder"):
        take_trial(
            *(Materials(few, tmp_path), recipe, path, tmp_path / "trial", ["mean"]),
            failed=tmp_path / "failed.json",
            on_scores=ignore,
            on_progress=ignore,
        )

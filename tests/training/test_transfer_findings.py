"""The pure parts of `murmura transfer`: intervals, the recipes of the trainings, affinities, advice and the page."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_in_process import run_here
from tiny_training import RECIPE

from murmura.runtime.errors import SetupError
from murmura.training.compute.phase_rows import count_phase
from murmura.training.fit.checkpoint import checkpoint_weights
from murmura.training.fit.phases import Base, begin_phase
from murmura.training.fit.setup import Fitting
from murmura.training.gate.seed_statistics import SeedsDifference, compare_seeds
from murmura.training.kinds.figures.outcome import Outcome, of_accuracy
from murmura.training.recipe.recipe import Recipe, load_recipe
from murmura.training.transfer import run
from murmura.training.transfer.advice import Cure, advise
from murmura.training.transfer.findings import Affinity, Cost, Transfer, gather_affinities, last_losses, mean_cosines
from murmura.training.transfer.page import make_page
from murmura.training.transfer.plan import (
    Training,
    count_reads,
    list_trainings,
    make_alone,
    make_joint,
    refuse_recipe,
)
from murmura.training.transfer.results import Result, as_json, as_markdown
from murmura.training.transfer.run import describe_teachers, open_study

ROWS = {"intent": 400, "places": 100}
TWO = {name: RECIPE["tasks"][name] for name in ROWS}
WriteRecipe = Callable[..., Path]


def simulate(draw: np.random.Generator, seeds: int, spread: float) -> tuple[list[Outcome], list[Outcome]]:
    """Draw rows of unlike difficulty, and trainings that differ by seed; jointly each row is right 3 points more often."""
    right = draw.uniform(0.5, 0.9, 300)
    made = [
        [of_accuracy(draw.random(300) < right + more + draw.normal(0, spread)) for _ in range(seeds)]
        for more in (0, 0.03)
    ]
    return made[0], made[1]


@pytest.mark.parametrize(("seeds", "spread"), [(2, 0.04), (3, 0.04)])
def test_the_interval_covers_the_truth_in_95_of_100_simulated_comparisons(seeds: int, spread: float) -> None:
    draw = np.random.default_rng(0)
    found = [compare_seeds(*simulate(draw, seeds, spread), resamples=100) for _ in range(100)]
    covered = sum(each.low is not None and each.high is not None and each.low <= 3 <= each.high for each in found)
    assert 93 <= covered <= 100
    assert np.mean([each.difference for each in found]) == pytest.approx(3, abs=1)


def difference(middle: float, half: float | None) -> SeedsDifference:
    low, high = (None, None) if half is None else (middle - half, middle + half)
    return SeedsDifference(80, 80 + middle, middle, low, high, [middle])


def test_the_smallest_loss_is_what_an_interval_of_this_width_shows_in_four_of_five_cases() -> None:
    loss = difference(0, 1.96).smallest_loss
    assert loss == pytest.approx(2.80, abs=0.01)
    seen = np.random.default_rng(0).normal(-loss, 1, 20_000) + 1.96 < 0
    assert seen.mean() == pytest.approx(0.8, abs=0.01)
    assert difference(0, None).smallest_loss is None


def transfer(middle: float, half: float | None, losses: tuple[float, float] | None = None) -> Transfer:
    found = difference(middle, half)
    return Transfer("intent", "test", 100, found, found.smallest_loss, losses)


@pytest.mark.parametrize(
    ("found", "cosines", "cure"),
    [
        (transfer(-3, 1), [-0.2, -0.1], Cure.LEAVE_OUT),
        (transfer(-3, 1, (0.2, 0.3)), [-0.2, 0.1], Cure.MORE_STEPS),
        (transfer(-3, 1, (0.2, 0.2)), [0.1, 0.2], Cure.TEACHERS),
        (transfer(3, 1), [-0.2, -0.1], Cure.NOTHING),
        (transfer(-0.2, 0.5), [-0.2, -0.1], Cure.NOTHING),
        (transfer(-2, 3), [-0.2, -0.1], Cure.MORE_SEEDS),
        (transfer(-9, None), [-0.2, -0.1], Cure.MORE_SEEDS),
    ],
)
def test_the_advice_follows_from_interval_cosine_and_training_loss(
    found: Transfer, cosines: list[float], cure: Cure
) -> None:
    (advice,) = advise([found], [Affinity("intent", "places", cosines)])
    assert advice.cure is cure
    assert bool(advice.keys) == (cure is not Cure.NOTHING)


def test_affinities_are_means_over_a_training_and_listed_by_seed() -> None:
    curves = [{"step": 20.0, "cosine/a/b": 0.2, "loss/a": 1.0}, {"step": 40.0, "cosine/a/b": 0.4, "loss/a": 0.5}]
    found = gather_affinities([mean_cosines(curves), {("a", "b"): -0.1, ("a", "c"): -0.5}])
    assert [(each.one, each.other, pytest.approx(each.by_seed)) for each in found] == [
        ("a", "c", [-0.5]),
        ("a", "b", [0.3, -0.1]),
    ]
    assert last_losses(curves) == {"a": 0.5}


def test_alone_a_task_reads_as_many_rows_as_jointly(write_recipe: WriteRecipe) -> None:
    plain = load_recipe(write_recipe(tasks=TWO, weights="uncertainty"))
    assert Recipe.model_validate(make_joint(plain)).weights.cosine == "encoder"
    combined = make_joint(load_recipe(write_recipe(tasks=TWO, weights="pcgrad")))
    assert combined["weights"] == {"method": "pcgrad"}, "it compares gradients over the whole encoder anyway"
    alone = make_alone(plain, "places", ROWS)
    assert "weights" not in alone
    assert alone["tasks"] == {"places": plain.model_dump(mode="json", exclude_unset=True)["tasks"]["places"]}
    equal = load_recipe(
        write_recipe(tasks=TWO, sampling="equal", budget={"steps": 100}, encoder=RECIPE["encoder"], batch_size=20)
    )
    reads = count_reads(equal, ROWS)
    assert reads == {"intent": 1000, "places": 1000}
    alone = Recipe.model_validate(make_alone(equal, "places", ROWS))
    assert alone.budget.steps is None
    assert count_reads(alone, {"places": 100}) == {"places": 1000}


def test_alone_a_task_goes_through_the_phases_that_teach_it(write_recipe: WriteRecipe) -> None:
    phases = [
        {"name": "joint", "steps": 50},
        {"name": "one", "tasks": ["intent"], "steps": 30, "held_rows": 0.5},
        {"name": "other", "tasks": ["places"], "epochs": 2},
    ]
    recipe = load_recipe(write_recipe(tasks=TWO, phases=phases))
    one, other = (Recipe.model_validate(make_alone(recipe, name, ROWS)).phases for name in ROWS)
    assert [(phase.name, phase.tasks, phase.steps) for phase in one] == [("joint", None, 40), ("one", None, 20)]
    assert [(phase.name, phase.steps, phase.epochs) for phase in other] == [("joint", 10, None), ("other", None, 2)]


@pytest.mark.parametrize("sampling", ["proportional", "equal", "annealed", {"method": "equal", "min_rows": 3}])
def test_rows_of_phases_are_those_that_the_training_reads(
    few: Path, open_run: Callable[..., Fitting], sampling: Any
) -> None:
    phases = [
        {"name": "joint", "steps": 20},
        {"name": "one", "tasks": ["intent"], "epochs": 3, "held_rows": 0.5},
        {"name": "heads", "tasks": ["places"], "freeze": "encoder"},
    ]
    tasks = {"intent": {**TWO["intent"], "sampling_weight": 3.0}, "places": TWO["places"]}
    run = open_run(few, tasks=tasks, phases=phases, sampling=sampling, few_rows=0)
    joint, rows = run.recipe, {data.name: len(data.train) for data in run.tasks}
    base = Base(joint, run.train, run.trained)
    folder = run.folder
    folder.path.mkdir()
    folder.save_weights(checkpoint_weights(run.model, low_rank=False))
    read: dict[str, list[int]] = {name: [] for name in rows}
    for number in range(len(phases)):
        begin_phase(run, base, number, goes_on=False)
        for at, name in enumerate(rows):
            if name in run.taught:
                read[name].append(sum(len(own) for step in run.plan for task, own in step if task == at))
    for name, reads in read.items():
        alone = Recipe.model_validate(make_alone(joint, name, rows))
        counted = [count_phase(alone, phase, {name: rows[name]}).total for phase in alone.phases]
        assert counted == pytest.approx(reads, abs=joint.batch_size / 2), (name, sampling)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tasks": {"intent": TWO["intent"]}}, "expected two tasks or more"),
        ({"freeze": "encoder"}, "freeze: heads on a frozen encoder share nothing that is trained"),
        ({"phases": [{"name": "a", "freeze": "encoder"}]}, "phases: heads on a frozen encoder share nothing"),
        ({"pretrain": {"epochs": 1}}, "murmura pretrain"),
        ({"self_training": {"texts": "a.txt"}}, "leave it out to compare"),
    ],
)
def test_a_recipe_with_nothing_to_compare_is_refused(
    write_recipe: WriteRecipe, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(SetupError, match=said) as caught:
        refuse_recipe(load_recipe(write_recipe(**{"tasks": TWO, **changes})), [0, 1])
    assert "\n" not in str(caught.value)


def test_that_a_task_alone_has_no_teacher_is_said(write_recipe: WriteRecipe, tmp_path: Path) -> None:
    assert describe_teachers(load_recipe(write_recipe())) == []
    (line,) = describe_teachers(load_recipe(write_recipe(teachers=str(tmp_path))))
    assert line == (
        "The joint training has teachers, and the single ones have none: what the teachers teach is part of the difference."
    )


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SetupError, match="takes one process, there are 2"):
        open_study(tmp_path / "r.yaml", tmp_path, tmp_path / "out", [0])


def test_seeds_follow_one_option_or_each_has_its_own(
    monkeypatch: pytest.MonkeyPatch, write_recipe: WriteRecipe
) -> None:
    asked: list[list[int]] = []
    monkeypatch.setattr(run, "open_study", lambda recipe, data, out, seeds: asked.append(seeds))
    monkeypatch.setattr(run, "describe_plan", lambda study: [])
    path = write_recipe()
    for words in (
        ["--seeds", "0", "1", "2"],
        ["--seeds", "0", "--seeds", "1", "--seeds", "2"],
        ["--seeds", "0,1,2"],
        [],
    ):
        assert run_here("transfer", path, "--dry-run", *words).returncode == 0
    assert asked == [[0, 1, 2]] * 4


def test_seeds_are_numbers_that_differ(write_recipe: WriteRecipe) -> None:
    recipe = load_recipe(write_recipe(tasks=TWO))
    for seeds in ([], [0, 0]):
        with pytest.raises(SetupError, match="--seeds: expected numbers that differ"):
            refuse_recipe(recipe, seeds)
    assert [each.name for each in list_trainings(list(ROWS), [0, 3])][:4] == [
        *("joint-0", "alone-intent-0", "alone-places-0", "joint-3")
    ]
    assert Training(None, 3).title == "all tasks jointly, seed 3"


def test_what_was_found_is_written_as_json_markdown_and_a_page_that_loads_nothing() -> None:
    found = [transfer(-3, 1), Transfer("a<b", "test", 9, difference(1, 0.2), 0.3)]
    affinities = [Affinity("intent", "a<b", [-0.2, -0.1])]
    costs = [Cost(None, 10, 1000, 20), Cost("intent", 4, 900, 10), Cost("a<b", 5, 950, 10)]
    result = Result("desk", [0, 1], found, affinities, costs, advise(found, affinities), ["a note"])
    document = json.loads(as_json(result))
    assert document["tasks"]["intent"]["advice"] == "leave out"
    assert document["tasks"]["intent"]["low"] == -4
    assert document["affinity"][0]["mean"] == pytest.approx(-0.15)
    text = as_markdown(result)
    assert "| intent | test | 100 | 80.00 | 77.00 | -3.00 | [-4.00, -2.00] | 1.43 |" in text
    assert "| each alone, together | 9.0 | 20 | 1,850 |" in text
    page = make_page(result, "tasks: {}")
    assert "a&lt;b" in page
    assert "a<b" not in page
    assert not re.search(r"https?://|<script|<link", page)
    assert all(f'id="{name}"' in page for name in ("advice", "differences", "affinity", "cost", "recipe"))
    assert "-0.15" in page

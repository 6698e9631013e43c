"""Each method that weighs the tasks of a step does what its paper says."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from tiny_training import RECIPE

from murmura.runtime.errors import SetupError
from murmura.training.fit.check_data import check_data
from murmura.training.fit.loop import fit
from murmura.training.fit.weights.dwa import DynamicAverage
from murmura.training.fit.weights.famo import FastAdaptive
from murmura.training.fit.weights.imtl import ImpartialGradients
from murmura.training.fit.weights.mgda import MGDA
from murmura.training.fit.weights.pcgrad import PCGrad
from murmura.training.fit.weights.random import Random
from murmura.training.fit.weights.uncertainty import Uncertainty
from murmura.training.fit.weights.weighting import TakenStep, Weighting
from murmura.training.recipe.recipe import load_recipe

WriteRecipe = Callable[..., Path]
TWO = {name: RECIPE["tasks"][name] for name in ("intent", "places")}
CONFLICT = torch.tensor([[4.0, 1.0, 0.0], [-1.0, 1.0, 0.5]], dtype=torch.float64)


def weigh(method: Weighting, losses: Sequence[float], step: int = 1) -> list[float]:
    found = method.weigh(step, {task: torch.tensor(loss) for task, loss in enumerate(losses)})
    return [found[task] for task in range(len(losses))]


def combine(method: Weighting, gradients: torch.Tensor) -> torch.Tensor:
    return method.combine(gradients @ gradients.T) @ gradients


@pytest.mark.parametrize("squared", [True, False], ids=["squared error", "log-loss"])
def test_uncertainty_weighs_a_noisy_task_by_the_inverse_of_its_variance(squared: bool) -> None:
    draw = np.random.default_rng(0)
    variances = (0.25, 4.0)
    method = Uncertainty([squared] * 2, lr=0.02)
    optimiser = torch.optim.AdamW(method.parameters().values(), lr=method.lr, weight_decay=0.0)
    for _ in range(600):
        method.set_gradients({task: float(draw.normal(0, v**0.5, 64).var()) for task, v in enumerate(variances)})
        optimiser.step()
    # Of a squared error the loss is weight * L with weight 1 / (2 * variance).
    assert weigh(method, variances) == pytest.approx([1 / (2 * v) for v in variances], rel=0.15)


def test_a_task_without_rows_keeps_its_uncertainty() -> None:
    method = Uncertainty([False] * 2)
    optimiser = torch.optim.AdamW(method.parameters().values(), lr=0.1)
    method.set_gradients({0: 3.0, 1: 3.0})
    optimiser.step()
    before = weigh(method, [1, 1])
    method.set_gradients({0: 3.0})
    optimiser.step()
    after = weigh(method, [1, 1])
    assert after[0] < before[0]
    assert after[1] == before[1]


def taken(losses: Sequence[float], rows: Sequence[int]) -> TakenStep:
    return TakenStep(dict(enumerate(losses)), dict(enumerate(rows)), {})


def test_dwa_gives_the_task_whose_loss_falls_slower_the_larger_weight() -> None:
    method = DynamicAverage([20, 40])
    for losses in ([2.0, 2.0], [2.0, 2.0], [1.0, 1.8], [1.0, 1.8]):  # two steps an epoch
        assert weigh(method, losses) == [1.0, 1.0]
        method.learn(taken(losses, [10, 20]))
    slow, fast = math.exp(0.9 / 2), math.exp(0.5 / 2)
    assert weigh(method, [1, 1]) == pytest.approx([2 * fast / (slow + fast), 2 * slow / (slow + fast)])
    equal = DynamicAverage([10, 20])
    for losses in ([2.0, 4.0], [1.0, 2.0]):
        equal.learn(taken(losses, [10, 20]))
    assert weigh(equal, [1, 1]) == [1.0, 1.0]


def test_dwa_compares_epochs_of_each_tasks_own_rows() -> None:
    method = DynamicAverage([10, 1000])
    for loss in (2.0, 1.0):
        method.learn(taken([loss, 1.0], [10, 10]))
    assert weigh(method, [1, 1])[0] < 1 < weigh(method, [1, 1])[1]


def test_famo_balances_what_log_losses_fall_by() -> None:
    method = FastAdaptive(2)
    assert weigh(method, [0.1, 10.0]) == pytest.approx([2 * 10 / 10.1, 2 * 0.1 / 10.1])
    assert np.multiply(weigh(method, [0.1, 10.0]), [0.1, 10.0]).tolist() == pytest.approx([0.198, 0.198], abs=1e-3)
    for _ in range(20):  # the first task falls by a half in each step, the second by a tenth
        method.learn(TakenStep({0: 1.0, 1: 1.0}, {}, {0: 0.5, 1: 0.9}))
    first, second = weigh(method, [1.0, 1.0])
    assert first < 0.8 < 1.2 < second


def test_random_weights_have_mean_one_and_follow_from_seed_and_step() -> None:
    found = [weigh(Random(3, seed=5), [1, 1, 1], step) for step in range(1, 400)]
    assert all(sum(weights) == pytest.approx(3) for weights in found)
    assert np.mean(found, axis=0) == pytest.approx([1, 1, 1], abs=0.12)
    assert found[7] == weigh(Random(3, seed=5), [1, 1, 1], 8)
    assert found[7] != found[8]
    assert found[7] != weigh(Random(3, seed=6), [1, 1, 1], 8)


def test_pcgrad_removes_what_conflicts() -> None:
    one, other = CONFLICT
    assert one @ other < 0
    projected = [a - (a @ b) / (b @ b) * b for a, b in ((one, other), (other, one))]
    assert torch.stack([projected[0] @ other, projected[1] @ one]).abs().max() < 1e-12
    assert torch.allclose(combine(PCGrad(), CONFLICT), projected[0] + projected[1])
    agreeing = CONFLICT.abs()
    assert torch.allclose(combine(PCGrad(), agreeing), agreeing.sum(0))


def test_mgda_descends_for_every_task() -> None:
    assert (CONFLICT @ CONFLICT.sum(0)).min() < 0, "their sum would raise one of the losses"
    along = CONFLICT @ combine(MGDA(), CONFLICT)
    assert along.min() > 0
    assert along[0] == pytest.approx(float(along[1]), rel=1e-2)


def test_imtl_is_projected_equally_onto_all_gradients() -> None:
    gradients = torch.tensor([[4.0, 1.0, 0.0], [-1.0, 1.0, 0.5], [0.2, 0.3, 2.0]], dtype=torch.float64)
    onto = gradients @ combine(ImpartialGradients(), gradients) / gradients.norm(dim=1)
    assert onto.tolist() == pytest.approx([float(onto[0])] * 3)
    assert onto[0] > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "gradnorm"}, r"weights\.method: .*'static', 'uncertainty', 'dwa'.*found 'gradnorm'"),
        ({"weights": {"method": "famo", "temperature": 3}}, "`temperature` has no effect with method famo"),
        ({"sampling": "square"}, r"sampling\.method: .*'proportional', 'equal'.*found 'square'"),
        ({"sampling": {"temperature": 3}}, "`temperature` has no effect with method proportional"),
        ({"sampling": "equal", "temperature": 3}, "`temperature` stands beside `sampling`"),
    ],
)
def test_what_a_recipe_says_wrongly_of_weights_is_one_line(
    write_recipe: WriteRecipe, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SetupError, match=message) as caught:
        load_recipe(write_recipe(**changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"weights": "mgda", "batch_size": 2},
            r"tiny\.yaml:\d+: batch_size: 2, but each step reads 1 rows or more of each of 3",
        ),
        (
            {"weights": "dwa", "tasks": {"intent": TWO["intent"]}},
            r"tiny\.yaml:\d+: weights: dwa weighs tasks against each",
        ),
        (
            {"weights": "famo", "tasks": {**TWO, "intent": {**TWO["intent"], "loss_weight": 3}}},
            r"tiny\.yaml:\d+: tasks\.intent\.loss_weight: 3, but `weights: famo` sets the weights itself",
        ),
        ({"weights": "imtl", "normalise": True}, r"tiny\.yaml:\d+: normalise: has no effect with `weights: imtl`"),
        (
            {"weights": "famo", "accumulate": 2},
            r"tiny\.yaml:\d+: accumulate: famo weighs by the losses of a whole step",
        ),
    ],
)
def test_weights_that_a_recipe_cannot_have_are_refused_before_training(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe, changes: dict[str, Any], message: str
) -> None:
    recipe = write_recipe(**changes)
    with pytest.raises(SetupError, match=message) as caught:
        fit(recipe, few, tmp_path / "run", quiet=True)
    assert str(caught.value) in check_data(load_recipe(recipe), few).problems


PASSES: Final[list[tuple[dict[str, Any], str]]] = [
    ({"budget": {"epochs": 1}}, "`weights: dwa`"),
    ({"budget": {"epochs": 2}}, "`weights: dwa`"),
    ({"budget": {"steps": 3}}, "`weights: dwa`"),
    ({"budget": {"epochs": 3}}, ""),
    ({"budget": {"epochs": 1}, "tasks": {**TWO, "intent": {**TWO["intent"], "epochs": 4}}}, ""),
    ({"phases": [{"name": "first", "epochs": 4}, {"name": "second", "epochs": 2}]}, "phase second: `weights: dwa`"),
    (
        {"phases": [{"name": "first", "epochs": 2}, {"name": "second", "epochs": 2}]},
        "phases first, second: `weights: dwa`",
    ),
]
"""Lengths of a training, and where it is said that the method never acts."""


@pytest.mark.parametrize(("keys", "said"), PASSES)
def test_dwa_without_a_third_pass_weighs_statically_and_a_line_says_so(
    few: Path,
    tmp_path: Path,
    write_recipe: WriteRecipe,
    keys: dict[str, Any],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = {
        "tasks": TWO,
        "trackers": [],
        "batch_size": 8,
        **keys,
        "budget": {"evaluations": 1, **keys.get("budget", {})},
    }
    recipe, found = write_recipe(weights="dwa", **keys), []
    assert check_data(load_recipe(recipe), few).notes == (
        [f"note: {said} has no effect, the tasks have static weights: it acts from the third pass over a task's rows on, and no "
         "task has one"] if said else []
    )  # fmt: skip
    acted = DynamicAverage.weigh

    def weigh_and_watch(self: DynamicAverage, step: int, losses: Any) -> dict[int, float]:
        found.append((self, acted(self, step, losses)))
        return found[-1][1]

    monkeypatch.setattr(DynamicAverage, "weigh", weigh_and_watch)
    lines: list[str] = []
    fit(recipe, few, tmp_path / "run", quiet=True, print_line=lines.append)
    assert any(said in line for line in lines if line.startswith("note")) == bool(said)
    methods = [*dict.fromkeys(id(method) for method, _ in found)]
    idle = [all(set(weights.values()) == {1.0} for method, weights in found if id(method) == each) for each in methods]
    names = [phase["name"] for phase in keys.get("phases", ())] or ["`weights: dwa`"]
    assert idle == [name in said.replace(": `weights: dwa`", "") for name in names]


def test_a_method_whose_package_is_missing_names_what_to_install(
    few: Path, tmp_path: Path, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("murmura.training.fit.weights.make.find_spec", lambda name: None)
    with pytest.raises(SetupError, match=r"weights: pcgrad needs torchjd: pip install 'murmura\[gradients\]'"):
        fit(write_recipe(weights="pcgrad"), few, tmp_path / "run", quiet=True)

"""Methods that combine the gradients of the tasks, on a network: what a step leaves in the encoder and in the heads."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_training import RECIPE
from torch import Tensor

from murmura.training.compute.dealing import StepRows
from murmura.training.fit.setup import Fitting
from murmura.training.fit.steps.gradient import compute_gradient, losses_of_part

TWO = {name: RECIPE["tasks"][name] for name in ("intent", "topics")}
OpenRun = Callable[..., Fitting]


@pytest.fixture
def opened(few: Path, open_run: OpenRun) -> OpenRun:
    """`opened(weights="pcgrad")` prepares a run of two tasks whose gradients on the encoder conflict; nothing is clipped."""

    def made(**keys: object) -> Fitting:
        optimiser = {"encoder_lr": 1e-3, "head_lr": 1e-3, "clip": 1e9}
        run = open_run(few, tasks=TWO, few_rows=0, budget={"steps": 4}, **{"optimiser": optimiser, **keys})
        one, other = (task_gradient(run, part)[0] for part in run.plan[0])
        if one @ other > 0:
            with torch.no_grad():
                run.model.heads[1].weight.neg_()
        return run

    return made


def gradients(run: Fitting) -> tuple[Tensor, list[Tensor]]:
    """Return the gradient of the encoder as one vector, and that of each head."""

    def flat(module: torch.nn.Module) -> Tensor:
        trained = [p for p in module.parameters() if p.requires_grad]
        return torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in trained]).double()

    return flat(run.model.encoder), [flat(head) for head in run.model.heads]


def task_gradient(run: Fitting, part: tuple[int, list[int]]) -> tuple[Tensor, Tensor]:
    """Return the gradient of one task's mean loss on the encoder and on its head, by a backward pass of its own."""
    run.model.zero_grad()
    losses, _ = losses_of_part(run, [part], {part[0]: 1.0})
    losses[part[0]].backward()
    encoder, heads = gradients(run)
    run.model.zero_grad()
    return encoder, heads[part[0]]


def static(one: Tensor, other: Tensor) -> Tensor:
    return one + other


def pcgrad(one: Tensor, other: Tensor) -> Tensor:
    """Of two conflicting gradients each without its part along the other."""
    inner = one @ other
    return one - inner / (other @ other) * other + other - inner / (one @ one) * one


def mgda(one: Tensor, other: Tensor) -> Tensor:
    """Twice the shortest vector between the two."""
    apart = one - other
    share = ((-other @ apart) / (apart @ apart)).clamp(0, 1)
    return 2 * (other + share * apart)


def imtl(one: Tensor, other: Tensor) -> Tensor:
    """Twice the vector on the line through the two that has equal projections onto them."""
    between = one / one.norm() - other / other.norm()
    share = -(other @ between) / ((one - other) @ between)
    return 2 * (other + share * (one - other))


METHODS = {"static": static, "pcgrad": pcgrad, "mgda": mgda, "imtl": imtl}


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert expected.norm() > 1e-3
    assert float((found - expected).norm() / expected.norm()) < 1e-4


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_a_step_leaves_the_combination_in_the_encoder_and_in_each_head_its_own_gradient(
    opened: OpenRun, method: str, accumulate: int
) -> None:
    run = opened(weights=method, accumulate=accumulate)
    rows = run.plan[0]
    assert [task for task, _ in rows] == [0, 1]
    (one, head), (other, other_head) = (task_gradient(run, part) for part in rows)
    assert one @ other < 0
    figures = compute_gradient(run, rows, [1.0, 1.0])
    encoder, heads = gradients(run)
    assert_close(encoder, METHODS[method](one, other))
    assert_close(heads[0], head)
    assert_close(heads[1], other_head)
    assert figures.norm == pytest.approx(float(torch.cat([encoder, *heads]).norm()), rel=1e-4)
    combined = sum(figures.alphas[task] * gradient for task, gradient in enumerate((one, other)))
    assert_close(encoder, torch.as_tensor(combined))
    if method != "static":
        assert (encoder - static(one, other)).norm() > 0.01 * encoder.norm(), "or the test would say nothing"


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("method", ["pcgrad", "mgda", "imtl"])
def test_a_step_of_one_task_has_its_gradient_alone(opened: OpenRun, method: str, accumulate: int) -> None:
    run = opened(weights=method, accumulate=accumulate, sampling={"min_rows": 0})
    rows: StepRows = [part for part in run.plan[0] if part[0] == 1]
    encoder, head = task_gradient(run, rows[0])
    compute_gradient(run, rows, [1.0, 1.0])
    found, heads = gradients(run)
    assert_close(found, encoder)
    assert_close(heads[1], head)
    assert not heads[0].any()


@pytest.mark.parametrize(("method", "least"), [("static", 0), ("imtl", 1)])
def test_methods_that_compare_tasks_read_each_of_them_in_each_step(
    few: Path, open_run: OpenRun, method: str, least: int
) -> None:
    tasks = {**TWO, "intent": {**TWO["intent"], "sampling_weight": 0.05}}
    plan = open_run(few, tasks=tasks, few_rows=0, budget={"steps": 12}, batch_size=8, weights=method).plan
    assert min(len(dict(step).get(0, [])) for step in plan) == least

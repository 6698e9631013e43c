"""Makes the method that a recipe names, and refuses what it cannot do."""

from collections.abc import Sequence
from importlib.util import find_spec

from ...prepare.tasks import TaskData
from ...recipe.phase_recipe import never_trains_encoder, weighs_tasks
from ...recipe.recipe import Recipe
from .dwa import DynamicAverage
from .famo import FastAdaptive
from .random import Random
from .static import Static
from .uncertainty import Uncertainty
from .weighting import Weighting


def make_weighting(recipe: Recipe, tasks: Sequence[TaskData], rows: Sequence[int]) -> Weighting:
    """Return the recipe's method as it begins. `rows` are the training rows of each task."""
    asked = recipe.weights
    match asked.method:
        case "static":
            return Static()
        case "uncertainty":
            return Uncertainty([data.kind.is_squared_error for data in tasks], asked.lr)
        case "dwa":
            return DynamicAverage(rows, asked.temperature)
        case "famo":
            return FastAdaptive(len(tasks), asked.lr)
        case "random":
            return Random(len(tasks), recipe.seed)
        case method:
            return _make_gradient_method(method)


def _make_gradient_method(method: str) -> Weighting:
    """Import what needs the extra only when it is asked for."""
    if method == "pcgrad":
        from .pcgrad import PCGrad  # noqa: PLC0415

        return PCGrad()
    if method == "mgda":
        from .mgda import MGDA  # noqa: PLC0415

        return MGDA()
    from .imtl import ImpartialGradients  # noqa: PLC0415

    return ImpartialGradients()


def refuse_weights(recipe: Recipe) -> None:
    """Raise SetupError for weights and shares of rows that the recipe's tasks cannot have, or that would have no effect."""
    least, tasks = recipe.least_rows, len(recipe.tasks)
    if least * tasks > recipe.batch_size:
        raise recipe.refusal(
            ("batch_size",),
            f"{recipe.batch_size}, but each step reads {least} rows or more of each of {tasks} tasks; expected "
            f"{least * tasks} or more, or `sampling: {{min_rows: 0}}`",
        )
    method = recipe.weights.method
    if method == "static":
        return
    if tasks == 1:
        raise recipe.refusal(("weights",), f"{method} weighs tasks against each other, there is one; leave it out")
    if never_trains_encoder(recipe):
        raise recipe.refusal(("weights",), f"{method} has no effect on a frozen encoder, which is all that tasks share")
    if not any(weighs_tasks(recipe, phase) for phase in recipe.phases or (None,)):
        raise recipe.refusal(
            ("weights",), f"{method} acts in no phase: none teaches all tasks and trains the encoder; leave it out"
        )
    for name, task in recipe.tasks.items():
        if task.loss_weight != 1:
            raise recipe.refusal(
                ("tasks", name, "loss_weight"),
                f"{task.loss_weight:g}, but `weights: {method}` sets the weights itself; leave one of them out",
            )
    if recipe.normalise and method in ("famo", "imtl"):
        raise recipe.refusal(
            ("normalise",), f"has no effect with `weights: {method}`, which asks for no scale of a loss"
        )
    if recipe.accumulate > 1 and method == "famo":
        raise recipe.refusal(("accumulate",), "famo weighs by the losses of a whole step; leave `accumulate` out")
    if recipe.weights.combines_gradients and find_spec("torchjd") is None:
        raise recipe.refusal(("weights",), f"{method} needs torchjd: pip install 'murmura[gradients]'")


def refuse_processes(recipe: Recipe, processes: int) -> None:
    """Raise SetupError for what several processes cannot do together."""
    if processes > 1 and recipe.phases:
        raise recipe.refusal(("phases",), f"are trained by one process, there are {processes}; take one")
    if processes > 1 and recipe.smaller is not None:
        raise recipe.refusal(("smaller",), f"is trained by one process, there are {processes}; take one")
    if processes > 1 and recipe.weights.method == "famo":
        raise recipe.refusal(
            ("weights",), f"famo weighs by the losses of a whole step, {processes} processes share it; take one"
        )

"""What a method that weighs the tasks of a joint step is asked. Tasks are numbers; losses are mean losses of a step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class TakenStep:
    """A step that was taken, by task."""

    losses: Mapping[int, float]
    rows: Mapping[int, int]
    """How many rows were read."""
    losses_after: Mapping[int, float]
    """Of the same rows after the step; empty where the method does not ask for them."""


class Weighting:
    """A method. What it holds is part of the state of a run: `parameters` with their moments, the rest in `state_dict`.

    A method either weighs losses, or combines gradients. In each process it holds the same.
    """

    combines_gradients: ClassVar[bool] = False
    """Whether it is asked for `combine`, else for `weigh`."""
    measures_again: ClassVar[bool] = False
    """Whether the losses of a step's rows are measured again after the step: one more forward pass."""
    needs_whole_step: ClassVar[bool] = False
    """Whether `weigh` needs the losses of all rows of a step at once, so that a step cannot be divided."""

    def weigh(self, step: int, losses: Mapping[int, Tensor]) -> dict[int, float]:
        """Return the weight of each of these losses: the step (from 1) minimises the sum of weight times loss."""
        return dict.fromkeys(losses, 1.0)

    def combine(self, products: Tensor) -> Tensor:
        """Return the weight [T] of each gradient in their sum; `products` [T, T] are the gradients' inner products."""
        raise NotImplementedError

    def set_gradients(self, losses: Mapping[int, float]) -> None:
        """Set the gradients of `parameters`, before the optimiser takes the step."""

    def learn(self, taken: TakenStep) -> None:
        """Learn from a step that was taken."""

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return what the optimiser of the run trains, by name; each has no dimensions."""
        return {}

    @property
    def lr(self) -> float:
        """The learning rate of `parameters`; it follows the schedule of the run."""
        return 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return what else is held, as JSON."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Hold what `state_dict` returned."""

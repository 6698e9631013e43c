"""What a recipe says of the weights of its tasks' losses, and of how many rows each task gets."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from .reading import Frozen, Positive

Method = Literal["static", "uncertainty", "dwa", "famo", "random", "pcgrad", "mgda", "imtl"]
GRADIENT_METHODS: Final = ("pcgrad", "mgda", "imtl")
"""They combine the gradients of the tasks, and need `torchjd`."""
OPTIONS: Final = {"lr": ("uncertainty", "famo"), "temperature": ("dwa",)}
"""Settings that only some methods have."""
SAMPLING_TEMPERATURE: Final = 2.0


class Weights(Frozen):
    """How the tasks of a step count against each other; `static` is `loss_weight` of each task."""

    method: Method = "static"
    lr: Positive | None = None
    """Of what the method learns: of the log-variances (`uncertainty`, without it 1e-2), of the logits (`famo`, 2.5e-2)."""
    temperature: Positive | None = None
    """`dwa`: the higher, the more alike the weights; without it 2."""
    cosine: Literal["last_layer", "encoder"] = "last_layer"
    """Over which shared parameters gradients are compared for the log: `encoder` takes a backward pass for each task in
    the steps that are logged."""

    @model_validator(mode="after")
    def _options_have_an_effect(self) -> Self:
        for option, methods in OPTIONS.items():
            if getattr(self, option) is not None and self.method not in methods:
                raise ValueError(
                    f"`{option}` has no effect with method {self.method}; it is one of {', '.join(methods)}"
                )
        return self

    @property
    def combines_gradients(self) -> bool:
        """Whether the method combines the gradients of the tasks."""
        return self.method in GRADIENT_METHODS

    @property
    def least_rows(self) -> int:
        """How many rows each task needs in a step unless the recipe says otherwise."""
        return 1 if self.combines_gradients or self.method == "famo" else 0


class Sampling(Frozen):
    """How the rows of a run are divided among the tasks, beside each task's `sampling_weight`."""

    method: Literal["proportional", "equal", "temperature", "annealed"] = "proportional"
    temperature: Annotated[float, Field(ge=1)] | None = None
    """`temperature`: shares ~ (weight * rows) ** (1 / temperature); without it 2."""
    min_rows: Annotated[int, Field(ge=0)] | None = None
    """At least so many rows of each task in each step. Without it 1 for methods of `weights` that compare the tasks of a
    step, else 0."""

    @model_validator(mode="after")
    def _temperature_has_an_effect(self) -> Self:
        if self.temperature is not None and self.method != "temperature":
            raise ValueError(f"`temperature` has no effect with method {self.method}; write `method: temperature`")
        return self

    @property
    def exponent(self) -> float:
        """What the number of rows is raised to for the shares; at the beginning, where it changes."""
        if self.method == "equal":
            return 0.0
        return 1 / (self.temperature or SAMPLING_TEMPERATURE) if self.method == "temperature" else 1.0


def by_method(value: Any) -> Any:
    """Read the name of a method as a mapping with it."""
    return {"method": value} if isinstance(value, str) else value


WeightsKey = Annotated[Weights, BeforeValidator(by_method)]
SamplingKey = Annotated[Sampling, BeforeValidator(by_method)]

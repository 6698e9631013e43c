"""What a recipe says of the search for its best values: which keys, between which limits, and by what they are judged."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import parse_qsl

from pydantic import BeforeValidator, Field, field_validator, model_validator

from .reading import Count, Frozen, Positive
from .seeds import Seed

Number = int | float
EXPECTED: Final = "expected `{low: 1, high: 9}` or a list of choices"
PASSWORD_KEYS: Final = frozenset({"password", "passwd", "pwd", "passfile", "sslpassword"})
"""Parameters of a database's URL that are as secret as its password."""
_PASSWORD: Final = re.compile(r"[^:/@]+://[^:/@]*:([^@]+)@")


class Dimension(Frozen):
    """The values of one key: a range of numbers, whole where all its numbers are, or choices."""

    low: Number | None = None
    high: Number | None = None
    log: bool = False
    """Drawn evenly over the logarithm: for learning rates, say."""
    step: Number | None = None
    """Values are `low` and so many steps above it."""
    choices: tuple[Any, ...] | None = None

    @model_validator(mode="after")
    def _is_range_or_choices(self) -> Self:
        if self.choices is not None:
            self._check_choices(self.choices)
            return self
        if self.low is None or self.high is None:
            raise ValueError(EXPECTED)
        if self.low >= self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low {self.low} has no logarithm; with `log: true` it is above 0")
        if self.step is not None:
            self._check_step(self.step, self.high - self.low)
        return self

    def _check_choices(self, choices: tuple[Any, ...]) -> None:
        if self.model_fields_set - {"choices"}:
            raise ValueError("choices stand beside the limits of a range; expected one of both")
        if len(choices) < 2:
            raise ValueError(f"expected two choices or more, found {len(choices)}")
        if twice := next((each for at, each in enumerate(choices) if each in choices[:at]), None):
            raise ValueError(f"the choice {twice!r} stands twice")

    def _check_step(self, step: Number, width: Number) -> None:
        if self.log:
            raise ValueError("`step` and `log` stand together; expected one of them")
        if not 0 < step <= width:
            raise ValueError(f"step {step} is not between 0 and the width {width} of the range")

    @property
    def is_whole(self) -> bool:
        """Whether the values are whole numbers."""
        return all(isinstance(each, int) for each in (self.low, self.high, self.step or 1))

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that everything between them lies between: both limits, or all choices."""
        return self.choices if self.choices is not None else (self.low, self.high)

    def has(self, value: object) -> bool:
        """Return whether `value` is one of the values; that of a range with steps may lie between two."""
        if self.choices is not None:
            return value in self.choices
        if isinstance(value, bool) or not isinstance(value, int | float) or self.low is None or self.high is None:
            return False
        return self.low <= value <= self.high and (float(value).is_integer() or not self.is_whole)


def _as_dimension(value: Any) -> Any:
    """Read a list as choices."""
    if not isinstance(value, list | tuple | dict | Dimension):
        raise ValueError(f"{EXPECTED}, found {str(value)[:60]!r}")
    return {"choices": value} if isinstance(value, list | tuple) else value


DimensionKey = Annotated[Dimension, BeforeValidator(_as_dimension)]


class Tune(Frozen):
    """The search of `murmura tune`; without effect on `murmura train`."""

    space: Annotated[dict[str, DimensionKey], Field(min_length=1)]
    """By key of the recipe, as a path: `optimiser.encoder_lr`, `tasks.intent.epochs`, `phases.0.steps`."""
    trials: Count = 30
    """Of the study in all, whoever takes them and however often the command is called."""
    minutes: Positive | None = None
    """No trial of a command begins later."""
    objective: Literal["mean", "each"] | list[str] = "mean"
    """What is to be highest on validation: the mean of the tasks that also chooses the checkpoint, each task (`each`), or some
    tasks. With several the result is their Pareto front."""
    pruning: Literal["median", "halving", "none"] | None = None
    """Of trials that are worse at a scoring than others were. Without it `median`, with several objectives `none`."""
    sampler: Literal["tpe", "nsga2", "random"] = "tpe"
    seed: Seed = 0
    """Of the sampler; trials are trained with the `seed` of the recipe."""
    storage: Annotated[str, Field(min_length=1)] | None = None
    """The URL of a database that several machines share, without a password, as recipes are copied into folders and pages;
    without it a file in the study's folder.
    """
    failures: Count = 3
    """So many failed trials in a row end the command."""

    @field_validator("storage")
    @classmethod
    def _has_no_password(cls, storage: str | None) -> str | None:
        if storage is not None and any(list_passwords(storage)):
            raise ValueError(
                "has a password, and recipes are copied into folders and pages; give the URL by MURMURA_TUNE_STORAGE"
            )
        return storage

    @model_validator(mode="after")
    def _prunes_by_one_figure(self) -> Self:
        if not self.has_one_objective and self.pruning not in {None, "none"}:
            raise ValueError(
                f"pruning: {self.pruning} compares one figure, and there are several objectives; leave it out"
            )
        if isinstance(self.objective, list) and len(set(self.objective)) != len(self.objective):
            raise ValueError("objective: a task stands twice")
        return self

    @property
    def has_one_objective(self) -> bool:
        """Whether the recipe names one figure; `each` may turn out to be one."""
        return self.objective == "mean" or (isinstance(self.objective, list) and len(self.objective) == 1)


def list_passwords(url: str) -> Iterator[str]:
    """Yield what is secret in the URL of a database."""
    if found := _PASSWORD.match(url):
        yield found[1]
    yield from (value for key, value in parse_qsl(url.partition("?")[2]) if key.lower() in PASSWORD_KEYS)

"""What a recipe says of parameter-efficient training: what is trained around an encoder, instead of its own weights."""

from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from .reading import Count, Frozen, Positive, Share

Target = Literal["query", "key", "value", "dense"]
Targets = Annotated[tuple[Target, ...], Field(min_length=1)]
EVERYWHERE: Final[tuple[Target, ...]] = ("query", "key", "value", "dense")


class MethodKeys(Frozen):
    """What a method is asked before anything is read."""

    encoder_lr: ClassVar[float] = 7e-4
    """The learning rate of what it trains, unless the recipe sets one."""
    one_phase: ClassVar[bool] = False
    """It has a schedule, or parameters of training alone, so that it cannot go on in another phase."""
    of_encoder: ClassVar[bool] = True
    """Whether it trains something in every layer, so that `freeze` may leave some of it alone."""
    one_task: ClassVar[bool] = False
    """It bends the encoder towards one task."""
    least_steps: ClassVar[int] = 1
    """It is trained in so many steps or more."""
    merged: ClassVar[bool] = True
    """Whether the export merges what was trained into the encoder's weights; else it is a part of the graph."""


class Lora(MethodKeys):
    """Low-rank adaptation (Hu et al. 2021): W + (alpha / rank) * B @ A, only A and B are trained."""

    rank: Count = 16
    decoder_rank: Count = 64
    """In the layers of decoders of replies, which begin as layers of the encoder and become something else."""
    alpha: Positive | None = None
    """Without it twice the rank; in decoders it is as many times theirs."""
    dropout: Share = 0.05
    targets: Targets = EVERYWHERE


class Dora(MethodKeys):
    """Weight-decomposed low-rank adaptation (Liu et al. 2024): m * V / |V| by rows, V = W + (alpha / rank) * B @ A."""

    name: Literal["dora"]
    rank: Count = 16
    alpha: Positive | None = None
    """Without it twice the rank."""
    dropout: Share = 0.05
    targets: Targets = EVERYWHERE


class AdaLora(MethodKeys):
    """Low-rank adaptation that moves rank to where it counts (Zhang et al. 2023): W + (alpha / start_rank) * B @ E @ A, where E is
    diagonal and loses its least important entries.
    """

    encoder_lr: ClassVar[float] = 2e-3
    one_phase: ClassVar[bool] = True
    of_encoder: ClassVar[bool] = False
    least_steps: ClassVar[int] = 2

    name: Literal["adalora"]
    rank: Count = 8
    """Mean rank of a weight at the end."""
    start_rank: Count = 12
    """Rank of each weight at the beginning."""
    alpha: Positive | None = None
    """Without it twice `start_rank`."""
    dropout: Share = 0.05
    targets: Targets = EVERYWHERE
    warmup: Share = 0.1
    """Share of the steps before the first loss of rank."""
    settled: Share = 0.3
    """Share of the steps after the last one."""
    every: Count = 10
    """Steps between two losses of rank."""
    orthogonal: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the penalty that holds the rows of A and the columns of B orthogonal."""

    @model_validator(mode="after")
    def _loses_rank(self) -> Self:
        if self.start_rank <= self.rank:
            raise ValueError(f"start_rank {self.start_rank} is to lie above rank {self.rank}: rank is only lost")
        if self.warmup + self.settled >= 1:
            raise ValueError(f"warmup {self.warmup:g} and settled {self.settled:g} leave no step between them")
        return self


class Ia3(MethodKeys):
    """Scales of keys, values and what the feed-forward layers hold (Liu et al. 2022): W * l, only l is trained."""

    encoder_lr: ClassVar[float] = 1e-2

    name: Literal["ia3"]


class Bottleneck(MethodKeys):
    """Adapters x + up(gelu(down(x))) behind both parts of each layer (Houlsby et al. 2019); they stay in the graph."""

    encoder_lr: ClassVar[float] = 1e-3
    merged: ClassVar[bool] = False

    name: Literal["bottleneck"]
    width: Count = 64


class Prefix(MethodKeys):
    """Learned keys and values before those of a text in each layer (Li and Liang 2021); they stay in the graph."""

    encoder_lr: ClassVar[float] = 1e-2
    merged: ClassVar[bool] = False
    one_task: ClassVar[bool] = True

    name: Literal["prefix"]
    tokens: Count = 8


class Prompt(MethodKeys):
    """Learned tokens before a text (Lester et al. 2021); they stay in the graph."""

    encoder_lr: ClassVar[float] = 1e-2
    merged: ClassVar[bool] = False
    one_task: ClassVar[bool] = True
    of_encoder: ClassVar[bool] = False

    name: Literal["prompt"]
    tokens: Count = 8


class PTuning(MethodKeys):
    """The same, where tokens come out of a small network that is trained with them (Liu et al. 2021)."""

    encoder_lr: ClassVar[float] = 1e-3
    merged: ClassVar[bool] = False
    one_task: ClassVar[bool] = True
    one_phase: ClassVar[bool] = True
    of_encoder: ClassVar[bool] = False

    name: Literal["p_tuning"]
    tokens: Count = 8


Method = Annotated[Dora | AdaLora | Ia3 | Bottleneck | Prefix | Prompt | PTuning, Field(discriminator="name")]
NAMES: Final = ("lora", "dora", "adalora", "ia3", "bottleneck", "prefix", "prompt", "p_tuning")


def by_name(value: Any) -> Any:
    """Read the name of a method as a mapping with it. ValueError for one that there is not, and for what is neither."""
    found = {"name": value} if isinstance(value, str) else value
    if not isinstance(found, dict | MethodKeys | None):
        raise ValueError(f"expected the name of a method or a mapping with its `name`, found {str(value)[:60]!r}")
    if isinstance(found, dict) and found.get("name") not in NAMES:
        named = f"found {found['name']!r}" if "name" in found else "without a name"
        raise ValueError(f"no such method, {named}; expected one of {', '.join(NAMES)}")
    return found


MethodKey = Annotated[Method | None, BeforeValidator(by_name)]


def with_lora_apart(raw: Any) -> Any:
    """Return a recipe's document with `method: lora` as its key `lora`. ValueError where a method stands beside that key."""
    if not isinstance(raw, dict) or raw.get("method") is None:
        return raw
    if raw.get("lora"):
        raise ValueError("`lora` stands beside `method`; leave one of them out")
    method = {"name": raw["method"]} if isinstance(raw["method"], str) else raw["method"]
    if not isinstance(method, dict) or method.get("name") != "lora":
        return raw  # a name that there is not is refused with the line of its key
    settings = {key: value for key, value in method.items() if key != "name"}
    return {**{key: value for key, value in raw.items() if key != "method"}, "lora": settings or True}

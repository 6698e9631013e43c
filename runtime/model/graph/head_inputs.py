"""What heads read of an encoder: the states of the last layer or of all, of each token or pooled."""

from collections.abc import Sequence
from functools import reduce
from typing import Final, Literal

import numpy as np
import spox.opset.ai.onnx.v20 as op
from numpy.typing import NDArray

from ....schemas.manifest import TaskSpec
from ..kinds.forms import Reads
from ..kinds.registry import kind_of
from .layouts import Layout
from .parameters import Parameters, Var

Array = NDArray[np.float64]
Way = Literal["token", "mean", "max", "mask"]
_WAYS: Final[dict[str, tuple[Way, ...]]] = {"mean": ("mean",), "mean_max": ("mean", "max"), "mask": ("mask",)}


class HeadInputs:
    """Builds them on the outputs [N, H] of the embeddings and of each layer. Only what a task asks for is in the graph."""

    def __init__(
        self, parameters: Parameters, layout: Layout, outputs: Sequence[Var], size: int, masked: Var | None = None
    ) -> None:
        """`size` is H; `masked` the state [B, H] of the mask of a template, where there is one."""
        self._parameters, self._layout, self._outputs, self._size = parameters, layout, outputs, size
        self._pooled: dict[tuple[Way, int], Var] = {}
        if masked is not None:
            self._pooled["mask", len(outputs) - 1] = masked

    @property
    def last(self) -> Var:
        """The states [N, H] of the last layer."""
        return self._outputs[-1]

    @property
    def mean(self) -> Var:
        """Their mean [B, H] over the tokens of each text."""
        return self.mean_of(len(self._outputs) - 1)

    def mean_of(self, layer: int) -> Var:
        """The mean [B, H] of an output; 0 is that of the embeddings."""
        return self._pool("mean", layer)

    def of(self, task: TaskSpec) -> Var:
        """Return what the head of a task reads: [N, W] of tokens, [B, W] of texts. W is H, twice with `mean_max`, and times the
        number of outputs with `concat`.
        """
        by_token = kind_of(task).reads is Reads.TOKENS
        if task.head is None or task.head.distance:
            return self.last if by_token else self.mean
        ways: Sequence[Way] = ("token",) if by_token else _WAYS[task.head.pooling]
        if task.head.layers == "mix":
            return self._mix(task, ways)
        first = 0 if task.head.layers == "concat" else len(self._outputs) - 1
        parts = [self._pool(way, layer) for layer in range(first, len(self._outputs)) for way in ways]
        factors, shift = self._standardise(task, np.ones((len(parts) // len(ways), 1)))
        scaled = op.mul(_join(parts), self._add(task, "factors", factors.ravel()))
        return op.add(scaled, self._add(task, "shift", shift.ravel()))

    def _mix(self, task: TaskSpec, ways: Sequence[Way]) -> Var:
        """Return scale * sum(softmax(weight)[i] * parts[i]) of standardised parts (Peters et al. 2018), added up in the order of
        the layers. A mix of means is the mean of the mix, which is cheaper; of maxima it is not.
        """
        weight = self._weight(task, "mix.weight")
        shares = np.exp(weight - weight.max())
        factors, shift = self._standardise(task, (shares / shares.sum() * self._weight(task, "mix.scale"))[:, None])
        layers, mixed = range(len(self._outputs)), []
        for number, way in enumerate(ways):
            own = factors[:, number * self._size : (number + 1) * self._size]
            parts = [self._pool("max", layer) for layer in layers] if way == "max" else self._outputs
            scaled = [op.mul(parts[layer], self._add(task, f"{way}.{layer}", own[layer])) for layer in layers]
            total = reduce(op.add, scaled)
            mixed.append(self._layout.mean(total, self._size) if way == "mean" else total)
        return op.add(_join(mixed), self._add(task, "shift", shift.sum(0)))

    def _pool(self, way: Way, layer: int) -> Var:
        """Return the output of a layer as it is, or its mean or maximum [B, H] over the tokens of each text; each is made once."""
        if (way, layer) not in self._pooled:
            states = self._outputs[layer]
            make = {"token": lambda s, _: s, "mean": self._layout.mean, "max": self._layout.max}[way]
            self._pooled[way, layer] = make(states, self._size)
        return self._pooled[way, layer]

    def _standardise(self, task: TaskSpec, shares: Array) -> tuple[Array, Array]:
        """Return factors and shifts [K, W]: parts * factors + shifts are shares * (parts - mean) / deviation."""
        mean, deviation = (self._weight(task, f"norm.{part}") for part in ("mean", "deviation"))
        factors = shares / deviation
        return factors, -factors * mean

    def _weight(self, task: TaskSpec, part: str) -> Array:
        return self._parameters.weight(f"heads.{task.name}.{part}").astype(np.float64)

    def _add(self, task: TaskSpec, name: str, value: Array) -> Var:
        return self._parameters.add(f"heads.{task.name}.inputs.{name}", np.ascontiguousarray(value, np.float32))


def _join(parts: Sequence[Var]) -> Var:
    return op.concat(parts, axis=1) if len(parts) > 1 else parts[0]

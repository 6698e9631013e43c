"""The weights of a graph, under their names. Needs no torch."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import spox.opset.ai.onnx.v20 as op
from spox import Tensor, argument, build

from ..folders.onnx_bytes import with_initializers
from ..folders.weights import Weights

SHORTEST: Final = 1e-12
"""A vector is taken to be at least so long where it is divided by its length."""
Var = Any  # spox is typed, but is used in this package only


def constant(value: Any) -> Var:
    return op.const(np.asarray(value))


class Parameters:
    """Takes weights into a graph as they are used. `variables` and `values` are those used so far, by name."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self.variables: dict[str, Var] = {}
        self.values: dict[str, npt.NDArray[np.float32]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._weights

    def weight(self, name: str) -> npt.NDArray[np.float32]:
        """Return a weight of the model. Raises KeyError if there is none of that name."""
        return np.ascontiguousarray(self._weights[name], dtype=np.float32)

    def add(self, name: str, value: npt.NDArray[np.float32]) -> Var:
        """Add an array to the graph under its name; one that layers share is added once."""
        if name not in self.variables:
            self.values[name] = value
            self.variables[name] = argument(Tensor(np.float32, value.shape))
        return self.variables[name]

    def linear(self, x: Var, name: str) -> Var:
        """Return x @ W.T + b, [N, in] -> [N, out], for the weights `<name>.weight` [out, in] and `<name>.bias` [out]."""
        return self.affine(x, name, self.weight(name + ".weight"), self.weight(name + ".bias"))

    def affine(self, x: Var, name: str, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]) -> Var:
        """Return x @ W.T + b for arrays, which are added under `name`."""
        return op.gemm(x, self.add(name + ".weight", weight), self.add(name + ".bias", bias), transB=1)

    def gelu(self, x: Var) -> Var:
        """Return x * Phi(x), exactly and not by tanh."""
        return op.gelu(x)

    def by_distance(self, x: Var, logits: Var, name: str, outside: int) -> Var:
        """Return logits [N, C] with that of the label number `outside` by the distance of x [N, H] from the nearest of the other
        labels' centres, `<name>.centres` [C, H] of length 1; `<name>.limits` are scale and limit, see `HeadForm.distance`.
        """
        centres, limits = self.weight(name + ".centres"), self.weight(name + ".limits")
        inner = np.delete(np.arange(len(centres)), outside)
        others, column = op.gather(logits, constant(inner), axis=1), constant(np.array([1], np.int64))
        length = op.max([op.reduce_l2(x, column, keepdims=1), constant(np.float32(SHORTEST))])
        similar = op.gemm(op.div(x, length), self.add(name + ".centres", centres[inner]), transB=1)
        nearest = op.reduce_max(similar, column, keepdims=1)
        beyond = op.mul(op.sub(self.add(name + ".limit", limits[1:]), nearest), self.add(name + ".scale", limits[:1]))
        found = op.add(op.reduce_max(others, column, keepdims=1), beyond)
        return op.gather(
            op.concat([others, found], axis=1), constant(np.insert(inner.argsort(), outside, len(inner))), axis=1
        )

    def norm(self, x: Var, name: str, epsilon: float) -> Var:
        """Return the layer normalisation over the last axis, with the weights `<name>.weight` and `<name>.bias`."""
        scale, bias = (self.add(name + end, self.weight(name + end)) for end in (".weight", ".bias"))
        return op.layer_normalization(x, scale, bias, axis=-1, epsilon=epsilon)[0]


def finish_graph(
    inputs: Mapping[str, Var], outputs: Mapping[str, Var], parameters: Parameters, metadata: Mapping[str, str]
) -> Iterator[bytes]:
    """Yield the ONNX model of these inputs and outputs, piece by piece, with all parameters as initializers."""
    model = build({**inputs, **parameters.variables}, {**outputs})
    model.graph.name = "murmura"
    for key, value in sorted(metadata.items()):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    return with_initializers(model, parameters.values)

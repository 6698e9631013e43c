"""The decoder of a task that generates, as two graphs: what its layers keep of a text, and one step for n replies.

Texts and replies of any lengths share a step, so keys and values lie in rows of one width, whose unused places a bias excludes.
The host keeps them: a step takes its replies' rows as they are, returns the key and value of the new piece, and the host writes
these into the rows. So nothing in a step is concatenated, transposed or copied.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import spox.opset.ai.onnx.v20 as op
from spox import Tensor, argument

from ....schemas.manifest import EncoderSpec, FileRole, ModelManifest, TaskSpec
from ..folders.weights import Weights
from ..kinds.registry import generating_tasks
from .parameters import Parameters, Var, constant, finish_graph


def write_decoders(
    folder: Path, manifest: ModelManifest, weights: Weights, metadata: Mapping[str, str]
) -> dict[str, FileRole]:
    """Write `TASK.memory.onnx` and `TASK.step.onnx` of each task that generates. Returns path -> role."""
    for path, data in build_decoders(manifest, weights, metadata).items():
        (folder / path).write_bytes(data)
    return {path: role for task in generating_tasks(manifest.tasks) for role, path in task.decoder_files.items()}


def build_decoders(manifest: ModelManifest, weights: Weights, metadata: Mapping[str, str]) -> dict[str, bytes]:
    """Return the graphs of each task that generates, by their paths in a folder."""
    return {
        path: build(manifest.encoder, task, weights, metadata)
        for task in generating_tasks(manifest.tasks)
        for path, build in zip(task.decoder_files.values(), (build_memory, build_step), strict=True)
    }


def build_memory(encoder: EncoderSpec, task: TaskSpec, weights: Weights, metadata: Mapping[str, str]) -> bytes:
    """Return the graph of what cross attention reads: `hidden` float32 [T, H] -> `keys` and `values` [L, T, H]."""
    return b"".join(_Decoder(encoder, task, weights).memory(metadata))


def build_step(
    encoder: EncoderSpec,
    task: TaskSpec,
    weights: Weights,
    metadata: Mapping[str, str],
    *,
    with_logits: bool = False,
) -> bytes:
    """Return the graph of a step for n replies, each of its own length; P and S are widths of rows, D = H / A.

    Inputs: `piece` int64 [n], the latest piece of each reply (V: its start); `position` int64 [n], the number of its pieces so
    far; `forbidden` float32 [n, V], added to the logits; `reply_bias` [n, 1, 1, P] and `source_bias` [n, 1, 1, S], added to the
    scores: 0 for a place in use; of each layer i `reply_keys_i` [n, A, D, P], `reply_values_i` [n, A, P, D], `source_keys_i`
    [n, A, D, S], `source_values_i` [n, A, S, D].
    Outputs: `next` int64 [n], the best piece; `log_probability` float32 [n], of it among the pieces that are not forbidden;
    of each layer `new_key_i` and `new_value_i` [n, H]; `with_logits` also `logits` [n, V], before anything was forbidden.
    """
    return b"".join(_Decoder(encoder, task, weights).step(metadata, with_logits))


class _Decoder:
    """Builds the graphs of one task. Post-layer-norm blocks as in BERT, with cross attention between the two others."""

    def __init__(self, encoder: EncoderSpec, task: TaskSpec, weights: Weights) -> None:
        assert task.generation is not None
        self._layers, self._pieces = task.generation.layers, len(task.labels)
        self._hidden, self._heads, self._epsilon = encoder.hidden_size, encoder.heads, encoder.layer_norm_eps
        self._size = self._hidden // self._heads
        self._name = f"heads.{task.name}."
        self._parameters = Parameters(weights)

    def memory(self, metadata: Mapping[str, str]) -> Iterator[bytes]:
        hidden = argument(Tensor(np.float32, ("T", self._hidden)))
        outputs = {}
        for name, part in (("keys", "key"), ("values", "value")):
            layers = [self._linear(hidden, f"layers.{number}.cross.{part}") for number in range(self._layers)]
            outputs[name] = op.concat([op.unsqueeze(layer, constant([0])) for layer in layers], axis=0)
        return finish_graph({"hidden": hidden}, outputs, self._parameters, metadata)

    def step(self, metadata: Mapping[str, str], with_logits: bool) -> Iterator[bytes]:
        inputs = {
            "piece": argument(Tensor(np.int64, ("n",))),
            "position": argument(Tensor(np.int64, ("n",))),
            "forbidden": argument(Tensor(np.float32, ("n", self._pieces))),
            "reply_bias": argument(Tensor(np.float32, ("n", 1, 1, "P"))),
            "source_bias": argument(Tensor(np.float32, ("n", 1, 1, "S"))),
        }
        outputs: dict[str, Var] = {}
        embedding, position = (self._weight(name) for name in ("embedding", "position"))
        x = op.add(op.gather(embedding, inputs["piece"]), op.gather(position, inputs["position"]))
        x = self._norm(x, "norm")
        for number in range(self._layers):
            inputs |= self._rows(number)
            x = self._layer(x, number, inputs, outputs)
        chosen = self._choose(x, embedding, inputs["forbidden"])
        outputs |= chosen if with_logits else {name: value for name, value in chosen.items() if name != "logits"}
        return finish_graph(inputs, outputs, self._parameters, metadata)

    def _rows(self, number: int) -> dict[str, Var]:
        found = {}
        for what, width in (("reply", "P"), ("source", "S")):
            shapes = {"keys": (self._size, width), "values": (width, self._size)}
            for part, shape in shapes.items():
                found[f"{what}_{part}_{number}"] = argument(Tensor(np.float32, ("n", self._heads, *shape)))
        return found

    def _layer(self, x: Var, number: int, inputs: Mapping[str, Var], outputs: dict[str, Var]) -> Var:
        name = f"layers.{number}."
        attended = self._attend_reply(x, name + "self.", number, inputs, outputs)
        x = self._norm(op.add(x, self._linear(attended, name + "self.output")), name + "self.norm")
        attended = self._attend_source(x, name + "cross.", number, inputs)
        x = self._norm(op.add(x, self._linear(attended, name + "cross.output")), name + "cross.norm")
        inner = op.gelu(self._linear(x, name + "feed_forward.up"))
        return self._norm(op.add(x, self._linear(inner, name + "feed_forward.down")), name + "feed_forward.norm")

    def _attend_reply(self, x: Var, name: str, number: int, inputs: Mapping[str, Var], outputs: dict[str, Var]) -> Var:
        """Attend to the pieces so far and the new one. Its scores are computed apart, and stand first.

        There, the place of every score and so the sum of their softmax is the same for every width of the rows.
        """
        query, key, value = (self._to_heads(each) for each in self._project(x, name))
        outputs[f"new_key_{number}"], outputs[f"new_value_{number}"] = (self._join_heads(each) for each in (key, value))
        past = op.add(op.matmul(query, inputs[f"reply_keys_{number}"]), inputs["reply_bias"])
        new = op.reduce_sum(op.mul(query, key), constant([3]), keepdims=1)
        shares = op.softmax(op.concat([new, past], axis=3), axis=-1)
        start, end, last, axis = (constant([each]) for each in (0, 1, np.iinfo(np.int64).max, 3))
        new, past = op.slice(shares, start, end, axis), op.slice(shares, end, last, axis)
        return self._join_heads(op.add(op.matmul(past, inputs[f"reply_values_{number}"]), op.mul(new, value)))

    def _attend_source(self, x: Var, name: str, number: int, inputs: Mapping[str, Var]) -> Var:
        weight, bias = (self._value(f"{name}query.{end}") * self._scale for end in ("weight", "bias"))
        query = self._to_heads(self._parameters.affine(x, f"{self._name}{name}query", weight, bias))
        scores = op.add(op.matmul(query, inputs[f"source_keys_{number}"]), inputs["source_bias"])
        return self._join_heads(op.matmul(op.softmax(scores, axis=-1), inputs[f"source_values_{number}"]))

    def _project(self, x: Var, name: str) -> list[Var]:
        """Compute query, key and value in one product, with the scale 1/sqrt(D) folded into the query's weights."""
        factors = (self._scale, np.float32(1), np.float32(1))
        weight, bias = (
            np.concatenate(
                [
                    self._value(f"{name}{part}.{end}") * f
                    for part, f in zip(("query", "key", "value"), factors, strict=True)
                ]
            )
            for end in ("weight", "bias")
        )
        together = self._parameters.affine(x, f"{self._name}{name}qkv", weight, bias)
        return [*op.split(together, axis=1, num_outputs=3)]

    def _choose(self, x: Var, embedding: Var, forbidden: Var) -> dict[str, Var]:
        x = self._norm(op.gelu(self._linear(x, "transform.dense")), "transform.norm")
        table = op.slice(embedding, constant([0]), constant([self._pieces]), constant([0]))
        logits = op.gemm(x, table, self._weight("bias"), transB=1)
        allowed = op.add(logits, forbidden)
        return {
            "next": op.arg_max(allowed, axis=1, keepdims=0),
            "log_probability": op.reduce_max(op.log_softmax(allowed, axis=1), constant([1]), keepdims=0),
            "logits": logits,
        }

    @property
    def _scale(self) -> np.float32:
        return np.float32(self._size**-0.5)

    def _to_heads(self, x: Var) -> Var:
        return op.reshape(x, constant([-1, self._heads, 1, self._size]))

    def _join_heads(self, x: Var) -> Var:
        return op.reshape(x, constant([-1, self._hidden]))

    def _linear(self, x: Var, name: str) -> Var:
        return self._parameters.linear(x, self._name + name)

    def _norm(self, x: Var, name: str) -> Var:
        return self._parameters.norm(x, self._name + name, self._epsilon)

    def _value(self, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return self._parameters.weight(self._name + name)

    def _weight(self, name: str) -> Var:
        return self._parameters.add(self._name + name, self._value(name))

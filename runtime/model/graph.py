"""Builds the ONNX graph of a multitask BERT from arrays: one encoder, one output per task. Needs no torch.

Two forms of the same weights:

- *ragged*: the tokens of all texts of a batch are concatenated, `T` in all. Everything but attention runs on `[T, H]`, only
  attention on `[B, S]`. No work is spent on padding, and an answer does not depend on the other texts of its batch.
- *padded*: the usual `[B, S]`, for devices with fixed shapes.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import spox.opset.ai.onnx.v20 as op
from spox import Tensor, argument, build

from ...schemas.manifest import EncoderSpec, ModelManifest, TaskSpec
from .onnx_bytes import with_initializers
from .weights import Weights, check_weights

Form = Literal["ragged", "padded"]
Var = Any  # spox is typed, but is used in this module only

# Added to the scores of padded keys. Finite, so that a row of only padding gives numbers instead of NaN, and low enough that
# exp() gives exactly 0 relative to every token.
MASKED: Final = np.float32(-1e4)
FLOOR: Final = np.float32(-60)


NO_METADATA: Final[Mapping[str, str]] = {}


def describe_model(manifest: ModelManifest) -> dict[str, str]:
    """Return the ONNX metadata of a model: name, version and digest of the recipe.

    The version is that of the build; a model store gives a pushed folder its next number.
    """
    known = {"murmura.name": manifest.name, "murmura.version": str(manifest.version)}
    return known | ({"murmura.recipe": manifest.recipe} if manifest.recipe else {})


def build_graph(
    encoder: EncoderSpec,
    tasks: Sequence[TaskSpec],
    weights: Weights,
    form: Form = "ragged",
    metadata: Mapping[str, str] = NO_METADATA,
) -> bytes:
    """Return the serialised ONNX model (opset 20). The same weights and metadata give the same bytes.

    Inputs of the ragged form: `input_ids`, `position_ids`, `seq_index` int64 [T]; `pad_index` int64 [B, S], the row in
    [0, T) of each token and T for padding; `attention_mask` float32 [B, S]. `seq_index` is the index of each token in the
    flattened [B * S]. Inputs of the padded form: `input_ids` int64 [B, S] and `attention_mask` float32 [B, S].
    Outputs, named by the tasks: logits [B, C]; for tagging [T, C] (padded: [B, S, C]).
    """
    return b"".join(_serialise(encoder, tasks, weights, form, metadata))


def write_graph(path: Path, manifest: ModelManifest, weights: Weights, form: Form = "ragged") -> None:
    """Write the graph of a manifest with its metadata, as `build_graph` returns it, without holding it all in memory."""
    with path.open("wb") as file:
        file.writelines(_serialise(manifest.encoder, manifest.tasks, weights, form, describe_model(manifest)))


def _serialise(
    encoder: EncoderSpec, tasks: Sequence[TaskSpec], weights: Weights, form: Form, metadata: Mapping[str, str]
) -> Iterator[bytes]:
    check_weights(encoder, tasks, weights)
    builder = _Ragged(encoder, weights) if form == "ragged" else _Padded(encoder, weights)
    outputs = builder.outputs(tasks)  # which collects the parameters
    model = build({**builder.inputs, **builder.parameters}, outputs)
    model.graph.name = "murmura"
    for key, value in sorted(metadata.items()):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    return with_initializers(model, builder.values)


def _const(value: Any) -> Var:
    return op.const(np.asarray(value))


class _Encoder(ABC):
    """The common part of both forms. `x` is [N, H]: N tokens, in the padded form with padding."""

    inputs: dict[str, Var]
    bias: Var

    def __init__(self, encoder: EncoderSpec, weights: Weights) -> None:
        self.spec, self._weights = encoder, weights
        self.head_size = encoder.hidden_size // encoder.heads
        self.parameters: dict[str, Var] = {}
        self.values: dict[str, npt.NDArray[np.float32]] = {}

    def parameter(self, name: str, value: npt.NDArray[np.float32]) -> Var:
        """Add a weight to the graph under its name."""
        self.values[name] = value
        self.parameters[name] = argument(Tensor(np.float32, value.shape))
        return self.parameters[name]

    def weight(self, name: str) -> npt.NDArray[np.float32]:
        return np.ascontiguousarray(self._weights[name], dtype=np.float32)

    def norm(self, x: Var, name: str) -> Var:
        scale, bias = (self.parameter(name + end, self.weight(name + end)) for end in (".weight", ".bias"))
        return op.layer_normalization(x, scale, bias, axis=-1, epsilon=self.spec.layer_norm_eps)[0]

    def linear(self, x: Var, name: str) -> Var:
        return self.affine(x, name, self.weight(name + ".weight"), self.weight(name + ".bias"))

    def affine(self, x: Var, name: str, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]) -> Var:
        return op.gemm(x, self.parameter(name + ".weight", weight), self.parameter(name + ".bias", bias), transB=1)

    def qkv(self, x: Var, layer: str) -> Var:
        """Compute query, key and value in one product, with the scale 1/sqrt(D) folded into the query's weights."""
        parts = [layer + "attention.self." + part for part in ("query", "key", "value")]
        factors = (np.float32(self.head_size**-0.5), np.float32(1), np.float32(1))
        weight = np.concatenate([self.weight(p + ".weight") * f for p, f in zip(parts, factors, strict=True)])
        bias = np.concatenate([self.weight(p + ".bias") * f for p, f in zip(parts, factors, strict=True)])
        return self.affine(x, layer + "attention.self.qkv", weight, bias)

    def position_table(self) -> npt.NDArray[np.float32]:
        """Return the position embeddings plus that of segment 0, which every token of a single text has."""
        table = self.weight("embeddings.position_embeddings.weight")
        types = "embeddings.token_type_embeddings.weight"
        return table + self.weight(types)[0] if types in self._weights else table

    def embed(self, ids: Var, positions: Var) -> Var:
        words = "embeddings.word_embeddings.weight"
        word = op.gather(self.parameter(words, self.weight(words)), ids)
        position = op.gather(self.parameter("embeddings.positions", self.position_table()), positions)
        return self.norm(op.add(word, position), "embeddings.LayerNorm")

    def attend(self, x: Var, layer: str) -> Var:
        """Self-attention, [N, H] -> [N, H]. Only here texts must be in rows.

        Heads come first ([3A, N, D], then [3A, B, S, D]), so that tokens are transposed without padding: 7 % faster in total
        than forming [B, S, 3H] and transposing that.
        """
        spec, size = self.spec, self.head_size
        heads = op.transpose(op.reshape(self.qkv(x, layer), _const([-1, 3 * spec.heads, size])), perm=[1, 0, 2])
        q, k, v = op.split(self.to_rows(heads), axis=0, num_outputs=3)
        tokens = op.transpose(self.to_tokens(self.attention(q, k, v)), perm=[1, 0, 2])
        return op.reshape(tokens, _const([-1, spec.hidden_size]))

    @abstractmethod
    def to_rows(self, heads: Var) -> Var:
        """[3A, N, D] -> [3A, B, S, D]."""

    @abstractmethod
    def to_tokens(self, context: Var) -> Var:
        """[A, B, S, D] -> [A, N, D]."""

    def encode(self, x: Var) -> Var:
        for i in range(self.spec.layers):
            x = self.layer(x, i)
        return x

    def layer(self, x: Var, i: int) -> Var:
        layer = f"encoder.layer.{i}."
        attended = self.linear(self.attend(x, layer), layer + "attention.output.dense")
        x = self.norm(op.add(attended, x), layer + "attention.output.LayerNorm")
        inner = op.gelu(self.linear(x, layer + "intermediate.dense"))
        return self.norm(op.add(self.linear(inner, layer + "output.dense"), x), layer + "output.LayerNorm")

    def mask_bias(self) -> Var:
        """Return the summand of attention scores [A, B, S, S]: 0 for tokens, `MASKED` for padding."""
        mask = op.unsqueeze(self.inputs["attention_mask"], _const([1]))
        return op.mul(op.sub(_const(np.float32(1)), mask), _const(MASKED))

    def attention(self, q: Var, k: Var, v: Var) -> Var:
        """Attention over the last two axes [S, D]; the scale is in `q` already."""
        scores = op.add(op.matmul(q, op.transpose(k, perm=[0, 1, 3, 2])), self.bias)
        return op.matmul(op.softmax(self.limit_scores(scores), axis=-1), v)

    def limit_scores(self, scores: Var) -> Var:
        return scores

    def mean(self, rows: Var) -> Var:
        """Mean over the tokens of each text, [B, S, H] -> [B, H], bitwise identical in every batch.

        Computed by a product with the mask, which adds the tokens in order for any S. ReduceSum and a product with a single
        row do not, so the mask is used twice.
        """
        mask = self.inputs["attention_mask"]
        count = op.max([op.reduce_sum(mask, _const([1]), keepdims=1), _const(np.float32(1))])
        once = op.unsqueeze(mask, _const([1]))
        total = op.gather(op.matmul(op.concat([once, once], axis=1), rows), _const(np.int64(0)), axis=1)
        return op.div(total, count)

    def head(self, x: Var, task: TaskSpec) -> Var:
        return self.linear(x, f"heads.{task.name}")


class _Ragged(_Encoder):
    def __init__(self, encoder: EncoderSpec, weights: Weights) -> None:
        super().__init__(encoder, weights)
        self.inputs = {name: argument(Tensor(np.int64, ("T",))) for name in ("input_ids", "position_ids", "seq_index")}
        self.inputs["pad_index"] = argument(Tensor(np.int64, ("B", "S")))
        self.inputs["attention_mask"] = argument(Tensor(np.float32, ("B", "S")))
        self.bias = self.mask_bias()
        # The index of padding is beyond the last token; the mask excludes it, so any row works: the last one is used.
        last = op.sub(op.shape(self.inputs["input_ids"]), _const([1]))
        self._rows = op.min([self.inputs["pad_index"], last])

    def to_rows(self, heads: Var) -> Var:
        return op.gather(heads, self._rows, axis=1)

    def limit_scores(self, scores: Var) -> Var:
        """Raise masked scores to `FLOOR` below the largest of their row.

        exp() of a masked score passes through subnormal numbers, which cost a CPU 8 times as much as normal ones: softmax
        took 12 % of the whole run. exp(FLOOR) = 9e-27 is still negligible next to the row's largest, 1.
        """
        below = op.sub(scores, op.reduce_max(scores, _const([3]), keepdims=1))
        return op.max([below, _const(FLOOR)])

    def to_tokens(self, context: Var) -> Var:
        flat = op.reshape(context, _const([self.spec.heads, -1, self.head_size]))
        return op.gather(flat, self.inputs["seq_index"], axis=1)

    def outputs(self, tasks: Sequence[TaskSpec]) -> dict[str, Var]:
        x = self.embed(self.inputs["input_ids"], self.inputs["position_ids"])
        x = self.encode(x)
        pooled = self.mean(op.gather(x, self._rows))
        return {task.name: self.head(x if task.kind == "tagging" else pooled, task) for task in tasks}


class _Padded(_Encoder):
    def __init__(self, encoder: EncoderSpec, weights: Weights) -> None:
        super().__init__(encoder, weights)
        self.inputs = {
            "input_ids": argument(Tensor(np.int64, ("B", "S"))),
            "attention_mask": argument(Tensor(np.float32, ("B", "S"))),
        }
        self.bias = self.mask_bias()
        self._shape = op.shape(self.inputs["input_ids"])

    def to_rows(self, heads: Var) -> Var:
        shape = op.concat([_const([3 * self.spec.heads]), self._shape, _const([self.head_size])], axis=0)
        return op.reshape(heads, shape)

    def to_tokens(self, context: Var) -> Var:
        return op.reshape(context, _const([self.spec.heads, -1, self.head_size]))

    def outputs(self, tasks: Sequence[TaskSpec]) -> dict[str, Var]:
        ids, hidden = self.inputs["input_ids"], self.spec.hidden_size
        length = op.squeeze(op.shape(ids, start=1, end=2), _const([0]))
        x = self.embed(ids, op.range(_const(np.int64(0)), length, _const(np.int64(1))))
        x = self.encode(op.reshape(x, _const([-1, hidden])))
        pooled = self.mean(op.reshape(x, op.concat([self._shape, _const([hidden])], axis=0)))
        return {t.name: self.tags(x, t) if t.kind == "tagging" else self.head(pooled, t) for t in tasks}

    def tags(self, x: Var, task: TaskSpec) -> Var:
        return op.reshape(self.head(x, task), op.concat([self._shape, _const([len(task.labels)])], axis=0))

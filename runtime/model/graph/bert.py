"""BERT as a graph: embedding, layers and attention. Knows no layout's shapes."""

import numpy as np
import numpy.typing as npt
import spox.opset.ai.onnx.v20 as op

from ....schemas.manifest import EncoderSpec
from .layouts import Layout
from .parameters import Parameters, Var, constant


class Bert:
    """Post-layer-norm transformer with learned positions (Devlin et al. 2019), on the states [N, H] of a layout."""

    def __init__(self, spec: EncoderSpec, parameters: Parameters, layout: Layout) -> None:
        self._spec, self._parameters, self._layout = spec, parameters, layout
        self._head_size = spec.hidden_size // spec.heads
        self._bias = layout.mask_bias()

    def outputs(self) -> list[Var]:
        """Return the states [N, H] of the embeddings and after each layer."""
        found = [self._layout.flatten(self.embed(), self._spec.hidden_size)]
        for number in range(self._spec.layers):
            found.append(self.layer(found[-1], f"encoder.layer.{number}."))
        return found

    def embed(self) -> Var:
        words = "embeddings.word_embeddings.weight"
        word = op.gather(self._parameters.add(words, self._parameters.weight(words)), self._layout.ids)
        table = self._parameters.add("embeddings.positions", self._position_table())
        return self._norm(op.add(word, op.gather(table, self._layout.positions)), "embeddings.LayerNorm")

    def _position_table(self) -> npt.NDArray[np.float32]:
        """Return the position embeddings plus that of segment 0, which every token has, those of a second text too."""
        table = self._parameters.weight("embeddings.position_embeddings.weight")
        types = "embeddings.token_type_embeddings.weight"
        return table + self._parameters.weight(types)[0] if types in self._parameters else table

    def layer(self, x: Var, name: str) -> Var:
        linear = self._parameters.linear
        attended = linear(self.attend(x, name + "attention.self."), name + "attention.output.dense")
        x = self._norm(op.add(attended, x), name + "attention.output.LayerNorm")
        inner = op.gelu(linear(x, name + "intermediate.dense"))
        return self._norm(op.add(linear(inner, name + "output.dense"), x), name + "output.LayerNorm")

    def attend(self, x: Var, name: str) -> Var:
        """Self-attention, [N, H] -> [N, H]. Only here texts must be in rows.

        Heads come first ([3A, N, D], then [3A, B, S, D]), so that tokens are transposed without padding: 7 % faster in total
        than forming [B, S, 3H] and transposing that.
        """
        count, size = self._spec.heads, self._head_size
        heads = op.transpose(op.reshape(self._qkv(x, name), constant([-1, 3 * count, size])), perm=[1, 0, 2])
        q, k, v = op.split(self._layout.to_rows(heads, 3 * count, size), axis=0, num_outputs=3)
        context = self._layout.to_tokens(self.attention(q, k, v), count, size)
        return op.reshape(op.transpose(context, perm=[1, 0, 2]), constant([-1, self._spec.hidden_size]))

    def _qkv(self, x: Var, name: str) -> Var:
        """Compute query, key and value in one product, with the scale 1/sqrt(D) folded into the query's weights."""
        parts, weight = [name + part for part in ("query", "key", "value")], self._parameters.weight
        factors = (np.float32(self._head_size**-0.5), np.float32(1), np.float32(1))
        weights = np.concatenate([weight(p + ".weight") * f for p, f in zip(parts, factors, strict=True)])
        bias = np.concatenate([weight(p + ".bias") * f for p, f in zip(parts, factors, strict=True)])
        return self._parameters.affine(x, name + "qkv", weights, bias)

    def attention(self, q: Var, k: Var, v: Var) -> Var:
        """Attention over the last two axes [S, D]; the scale is in `q` already."""
        scores = op.add(op.matmul(q, op.transpose(k, perm=[0, 1, 3, 2])), self.score_bias())
        return op.matmul(op.softmax(self._layout.limit_scores(scores), axis=-1), v)

    def score_bias(self) -> Var:
        """Return the summand of the attention scores [A, B, S, S]."""
        return self._bias

    def _norm(self, x: Var, name: str) -> Var:
        return self._parameters.norm(x, name, self._spec.layer_norm_eps)

"""BERT as a graph: embedding, layers and attention. Knows no layout's shapes."""

import numpy as np
import numpy.typing as npt
import spox.opset.ai.onnx.v20 as op

from ....schemas.manifest import EncoderSpec
from .layouts import Layout
from .parameters import Parameters, Var, constant
from .virtual_tokens import VirtualTokens, before_scores


class Bert:
    """Post-layer-norm transformer with learned positions (Devlin et al. 2019), on the states [N, H] of a layout."""

    def __init__(self, spec: EncoderSpec, parameters: Parameters, layout: Layout) -> None:
        self._spec, self._parameters = spec, parameters
        self._virtual: VirtualTokens | None = None
        if spec.virtual_tokens is not None:
            self._virtual = VirtualTokens(layout, spec.virtual_tokens, in_row=spec.masked_at is not None)
        self.masked: Var | None = None
        """The state [B, H] of the mask of a template, once the outputs were made."""
        self._layout = self._virtual or layout
        self._head_size = spec.hidden_size // spec.heads
        self._bias = self._layout.mask_bias()
        self._batch = op.shape(layout.mask, start=0, end=1)
        if spec.prefix is not None:
            self._bias = before_scores(self._bias, self._batch, spec.prefix)

    def outputs(self) -> list[Var]:
        """Return the states [N, H] of the embeddings and after each layer, without those of virtual tokens."""
        found = [self._layout.flatten(self.embed(), self._spec.hidden_size)]
        if self._virtual is not None:
            found = [self._virtual.prepend(found[0], self._embed_virtual(), self._spec.hidden_size)]
        for number in range(self._spec.layers):
            found.append(self.layer(found[-1], f"encoder.layer.{number}."))
        if self._virtual is None:
            return found
        if self._spec.masked_at is not None:
            self.masked = self._virtual.state_of(found[-1], self._spec.masked_at, self._spec.hidden_size)
        return [self._virtual.cut(states) for states in found]

    def embed(self) -> Var:
        words = "embeddings.word_embeddings.weight"
        word = op.gather(self._parameters.add(words, self._parameters.weight(words)), self._layout.ids)
        table = self._parameters.add("embeddings.positions", self._position_table())
        return self._norm(op.add(word, op.gather(table, self._layout.positions)), "embeddings.LayerNorm")

    def _embed_virtual(self) -> Var:
        """Return the embeddings [P, H] of virtual tokens, which all have the first position; those of a template the next ones."""
        name = "embeddings.virtual"
        vectors, table = self._parameters.weight(name), self._position_table()
        vectors = vectors + (table[0] if self._spec.masked_at is None else table[1 : len(vectors) + 1])
        return self._norm(self._parameters.add(name, vectors), "embeddings.LayerNorm")

    def _position_table(self) -> npt.NDArray[np.float32]:
        """Return the position embeddings plus that of segment 0, which every token has, those of a second text too."""
        table = self._parameters.weight("embeddings.position_embeddings.weight")
        types = "embeddings.token_type_embeddings.weight"
        return table + self._parameters.weight(types)[0] if types in self._parameters else table

    def layer(self, x: Var, name: str) -> Var:
        linear = self._parameters.linear
        attended = self._adapt(
            linear(self.attend(x, name + "attention.self."), name + "attention.output.dense"),
            name + "attention.output.dense",
        )
        x = self._norm(op.add(attended, x), name + "attention.output.LayerNorm")
        inner = op.gelu(linear(x, name + "intermediate.dense"))
        given = self._adapt(linear(inner, name + "output.dense"), name + "output.dense")
        return self._norm(op.add(given, x), name + "output.LayerNorm")

    def _adapt(self, x: Var, name: str) -> Var:
        """Return x + up(gelu(down(x))) where the encoder has bottleneck adapters."""
        if self._spec.bottleneck is None:
            return x
        linear = self._parameters.linear
        return op.add(x, linear(op.gelu(linear(x, name + ".adapter.down")), name + ".adapter.up"))

    def attend(self, x: Var, name: str) -> Var:
        """Self-attention, [N, H] -> [N, H]. Only here texts must be in rows.

        Heads come first ([3A, N, D], then [3A, B, S, D]), so that tokens are transposed without padding: 7 % faster in total
        than forming [B, S, 3H] and transposing that.
        """
        count, size = self._spec.heads, self._head_size
        heads = op.transpose(op.reshape(self._qkv(x, name), constant([-1, 3 * count, size])), perm=[1, 0, 2])
        q, k, v = op.split(self._layout.to_rows(heads, 3 * count, size), axis=0, num_outputs=3)
        if self._spec.prefix is not None:
            k, v = (self._with_prefix(rows, name + part) for rows, part in ((k, "prefix_key"), (v, "prefix_value")))
        context = self._layout.to_tokens(self.attention(q, k, v), count, size)
        return op.reshape(op.transpose(context, perm=[1, 0, 2]), constant([-1, self._spec.hidden_size]))

    def _with_prefix(self, rows: Var, name: str) -> Var:
        """[A, B, S, D] -> [A, B, P + S, D], with the learned keys or values of a layer before those of each text."""
        count, size = self._spec.heads, self._head_size
        learned = self._parameters.weight(name).reshape(-1, count, size).transpose(1, 0, 2)[:, None]
        prefix = self._parameters.add(name, np.ascontiguousarray(learned))
        shape = op.concat([constant([count]), self._batch, constant([learned.shape[2], size])], axis=0)
        return op.concat([op.expand(prefix, shape), rows], axis=2)

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

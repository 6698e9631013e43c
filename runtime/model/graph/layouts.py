"""How the tokens of a batch lie: one after the other, or in rows with padding. Knows no architecture.

States are [N, H] for N tokens, in the padded layout with padding. Attention needs texts in rows.
"""

from abc import ABC, abstractmethod
from typing import Final

import numpy as np
import spox.opset.ai.onnx.v20 as op
from spox import Tensor, argument

from .parameters import Var, constant

# Added to the scores of padded keys. Finite, so that a row of only padding gives numbers instead of NaN, and low enough that
# exp() gives exactly 0 relative to every token.
MASKED: Final = np.float32(-1e4)
FLOOR: Final = np.float32(-60)


class Layout(ABC):
    """The inputs of a graph, and the ways between states and rows."""

    inputs: dict[str, Var]
    ids: Var
    """Token ids, int64."""
    positions: Var
    """Index of each token in its text, int64, of a shape that broadcasts with `ids`."""

    @property
    def mask(self) -> Var:
        """[B, S], 1 for tokens and 0 for padding."""
        return self.inputs["attention_mask"]

    @abstractmethod
    def flatten(self, embedded: Var, size: int) -> Var:
        """Return states [N, size] for the embeddings of `ids`."""

    @abstractmethod
    def to_rows(self, heads: Var, count: int, size: int) -> Var:
        """[count, N, size] -> [count, B, S, size]."""

    @abstractmethod
    def to_tokens(self, rows: Var, count: int, size: int) -> Var:
        """[count, B, S, size] -> [count, N, size]."""

    @abstractmethod
    def states_in_rows(self, states: Var, size: int) -> Var:
        """[N, size] -> [B, S, size]."""

    @abstractmethod
    def by_token(self, values: Var, width: int) -> Var:
        """[N, width] -> a graph's output: [T, width], padded [B, S, width]."""

    def limit_scores(self, scores: Var) -> Var:
        """Return attention scores [A, B, S, S] in a range that softmax computes fast."""
        return scores

    def mask_bias(self) -> Var:
        """Return the summand of attention scores [A, B, S, S]: 0 for tokens, `MASKED` for padding."""
        mask = op.unsqueeze(self.mask, constant([1]))
        return op.mul(op.sub(constant(np.float32(1)), mask), constant(MASKED))

    def mean(self, states: Var, size: int) -> Var:
        """Mean over the tokens of each text, [N, size] -> [B, size], bitwise identical in every batch.

        Computed by a product with the mask, which adds the tokens in order for any S. ReduceSum and a product with a single
        row do not, so the mask is used twice.
        """
        rows = self.states_in_rows(states, size)
        count = op.max([op.reduce_sum(self.mask, constant([1]), keepdims=1), constant(np.float32(1))])
        once = op.unsqueeze(self.mask, constant([1]))
        total = op.gather(op.matmul(op.concat([once, once], axis=1), rows), constant(np.int64(0)), axis=1)
        return op.div(total, count)

    def max(self, states: Var, size: int) -> Var:
        """Maximum over the tokens of each text, [N, size] -> [B, size]: it does not depend on their order or number."""
        shown = op.cast(op.unsqueeze(self.mask, constant([2])), to=np.bool_)
        rows = op.where(shown, self.states_in_rows(states, size), constant(MASKED))
        return op.reduce_max(rows, constant([1]), keepdims=0)


class Ragged(Layout):
    """The tokens of all texts one after the other, `T` in all; only attention and the mean need rows."""

    def __init__(self) -> None:
        self.inputs = {name: argument(Tensor(np.int64, ("T",))) for name in ("input_ids", "position_ids", "seq_index")}
        self.inputs["pad_index"] = argument(Tensor(np.int64, ("B", "S")))
        self.inputs["attention_mask"] = argument(Tensor(np.float32, ("B", "S")))
        self.ids, self.positions = self.inputs["input_ids"], self.inputs["position_ids"]
        # The index of padding is beyond the last token; the mask excludes it, so any row works: the last one is used.
        last = op.sub(op.shape(self.ids), constant([1]))
        self._rows = op.min([self.inputs["pad_index"], last])

    def flatten(self, embedded: Var, size: int) -> Var:
        return embedded

    def to_rows(self, heads: Var, count: int, size: int) -> Var:
        return op.gather(heads, self._rows, axis=1)

    def to_tokens(self, rows: Var, count: int, size: int) -> Var:
        return op.gather(op.reshape(rows, constant([count, -1, size])), self.inputs["seq_index"], axis=1)

    def states_in_rows(self, states: Var, size: int) -> Var:
        return op.gather(states, self._rows)

    def by_token(self, values: Var, width: int) -> Var:
        return values

    def limit_scores(self, scores: Var) -> Var:
        """Raise masked scores to `FLOOR` below the largest of their row.

        exp() of a masked score passes through subnormal numbers, which cost a CPU 8 times as much as normal ones: softmax
        took 12 % of the whole run. exp(FLOOR) = 9e-27 is still negligible next to the row's largest, 1.
        """
        below = op.sub(scores, op.reduce_max(scores, constant([3]), keepdims=1))
        return op.max([below, constant(FLOOR)])


class Padded(Layout):
    """The usual [B, S], for devices with fixed shapes."""

    def __init__(self) -> None:
        self.inputs = {
            "input_ids": argument(Tensor(np.int64, ("B", "S"))),
            "attention_mask": argument(Tensor(np.float32, ("B", "S"))),
        }
        self.ids = self.inputs["input_ids"]
        self._shape = op.shape(self.ids)
        length = op.squeeze(op.shape(self.ids, start=1, end=2), constant([0]))
        self.positions = op.range(constant(np.int64(0)), length, constant(np.int64(1)))

    def flatten(self, embedded: Var, size: int) -> Var:
        return op.reshape(embedded, constant([-1, size]))

    def to_rows(self, heads: Var, count: int, size: int) -> Var:
        return op.reshape(heads, op.concat([constant([count]), self._shape, constant([size])], axis=0))

    def to_tokens(self, rows: Var, count: int, size: int) -> Var:
        return op.reshape(rows, constant([count, -1, size]))

    def states_in_rows(self, states: Var, size: int) -> Var:
        return op.reshape(states, op.concat([self._shape, constant([size])], axis=0))

    def by_token(self, values: Var, width: int) -> Var:
        return op.reshape(values, op.concat([self._shape, constant([width])], axis=0))

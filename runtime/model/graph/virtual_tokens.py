"""Learned tokens before those of each text: a layout with them, around one without."""

import numpy as np
import spox.opset.ai.onnx.v20 as op

from .layouts import Layout
from .parameters import Var, constant


class VirtualTokens(Layout):
    """The states of P learned tokens for each of B texts, [B * P, size], lie before those of another layout, [N, size].

    With `in_row` a text's tokens behind its first one have positions behind those of the learned tokens.
    """

    def __init__(self, layout: Layout, count: int, *, in_row: bool = False) -> None:
        self.inputs, self.ids, self.positions = layout.inputs, layout.ids, layout.positions
        if in_row:
            first = op.equal(self.positions, constant(np.int64(0)))
            self.positions = op.where(first, self.positions, op.add(self.positions, constant(np.int64(count))))
        self._layout, self._count = layout, count
        self._batch = op.shape(layout.mask, start=0, end=1)
        self._own = op.mul(self._batch, constant([count]))

    def prepend(self, embedded: Var, virtual: Var, size: int) -> Var:
        """[N, size] and [P, size] -> [B * P + N, size]."""
        repeats = op.concat([self._batch, constant([1])], axis=0)
        return op.concat([op.tile(virtual, repeats), embedded], axis=0)

    def cut(self, states: Var) -> Var:
        """[B * P + N, size] -> [N, size]."""
        return op.slice(states, self._own, constant([np.iinfo(np.int64).max]), constant([0]))

    def state_of(self, states: Var, number: int, size: int) -> Var:
        """[B * P + N, size] -> [B, size], the state of one of the learned tokens."""
        own = op.slice(states, constant([0]), self._own, constant([0]))
        shape = op.concat([self._batch, constant([self._count, size])], axis=0)
        return op.gather(op.reshape(own, shape), constant(np.int64(number)), axis=1)

    def flatten(self, embedded: Var, size: int) -> Var:
        return self._layout.flatten(embedded, size)

    def to_rows(self, heads: Var, count: int, size: int) -> Var:
        own, texts = self._divide(heads, self._own)
        shape = op.concat([constant([count]), self._batch, constant([self._count, size])], axis=0)
        return op.concat([op.reshape(own, shape), self._layout.to_rows(texts, count, size)], axis=2)

    def to_tokens(self, rows: Var, count: int, size: int) -> Var:
        own = op.slice(rows, constant([0]), constant([self._count]), constant([2]))
        texts = op.slice(rows, constant([self._count]), constant([np.iinfo(np.int64).max]), constant([2]))
        flat = op.reshape(own, constant([count, -1, size]))
        return op.concat([flat, self._layout.to_tokens(texts, count, size)], axis=1)

    def states_in_rows(self, states: Var, size: int) -> Var:
        return self._layout.states_in_rows(self.cut(states), size)

    def by_token(self, values: Var, width: int) -> Var:
        return self._layout.by_token(self.cut(values), width)

    def limit_scores(self, scores: Var) -> Var:
        return self._layout.limit_scores(scores)

    def mask_bias(self) -> Var:
        return before_scores(self._layout.mask_bias(), self._batch, self._count)

    def _divide(self, heads: Var, at: Var) -> tuple[Var, Var]:
        own = op.slice(heads, constant([0]), at, constant([1]))
        return own, op.slice(heads, at, constant([np.iinfo(np.int64).max]), constant([1]))


def before_scores(bias: Var, batch: Var, count: int) -> Var:
    """Return the summand of attention scores [B, 1, S] with `count` places before, which every token attends to."""
    shape = op.concat([batch, constant([1, count])], axis=0)
    return op.concat([op.expand(constant(np.float32(0)), shape), bias], axis=2)

"""Parts of an encoder's graph that no BERT has: adapters, learned keys and values, virtual tokens.

They are modules inside the encoder, so that their parameters stand among its own, by the names of a model folder's weights.
"""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....schemas.manifest import EncoderSpec

if TYPE_CHECKING:
    from transformers import BertModel


class AdaptedLinear(nn.Linear):  # type: ignore[misc]  # torch is untyped here
    """A linear layer and what an adapter makes of its output y [..., H]: y + up(gelu(down(y))). It begins as y."""

    def __init__(self, linear: nn.Linear, width: int) -> None:
        super().__init__(linear.in_features, linear.out_features)
        self.weight, self.bias = linear.weight, linear.bias
        self.adapter = nn.ModuleDict(
            {"down": nn.Linear(linear.out_features, width), "up": nn.Linear(width, linear.out_features)}
        )
        nn.init.normal_(self.adapter["down"].weight, std=0.02)
        nn.init.zeros_(self.adapter["down"].bias)
        nn.init.zeros_(self.adapter["up"].weight)
        nn.init.zeros_(self.adapter["up"].bias)

    def forward(self, read: Tensor) -> Tensor:
        given = super().forward(read)
        found: Tensor = given + self.adapter["up"](F.gelu(self.adapter["down"](given)))
        return found


def add_bottlenecks(encoder: "BertModel", width: int) -> None:
    """Put adapters behind the attention and the feed-forward part of each layer, in place."""
    for layer in encoder.encoder.layer:
        for part in (layer.attention.output, layer.output):
            part.dense = AdaptedLinear(part.dense, width)


def add_prefix(encoder: "BertModel", count: int) -> None:
    """Put learned keys and values [P, H] before those of a text in each layer, in place; zeros."""
    for layer in encoder.encoder.layer:
        attention = layer.attention.self
        for part in ("key", "value"):
            zeros = torch.zeros(count, attention.all_head_size)
            setattr(attention, f"prefix_{part}", nn.Parameter(zeros))
        attention.forward = partial(_attend, attention)


def _attend(
    attention: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, **_: Any
) -> tuple[Tensor, None]:
    """Return BERT's self-attention over a text and what is learned before it: [B, S, H]."""

    def divide(states: Tensor) -> Tensor:
        return states.unflatten(-1, (-1, attention.attention_head_size)).transpose(-2, -3)

    def with_prefix(part: str) -> Tensor:
        states = divide(getattr(attention, part)(hidden_states))
        learned = divide(getattr(attention, f"prefix_{part}")).to(states.dtype)
        return torch.cat([learned.expand(len(states), -1, -1, -1), states], 2)

    query, key, value = divide(attention.query(hidden_states)), with_prefix("key"), with_prefix("value")
    mask = attention_mask
    if mask is not None:
        shown = torch.ones if mask.dtype == torch.bool else torch.zeros
        seen = shown(*mask.shape[:-1], len(attention.prefix_key), dtype=mask.dtype, device=mask.device)
        mask = torch.cat([seen, mask], -1)
    dropout = attention.dropout.p if attention.training else 0.0
    context = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    return context.transpose(1, 2).flatten(-2), None


def add_virtual_tokens(encoder: "BertModel", count: int, masked_at: int | None = None) -> None:
    """Put learned tokens [P, H] before those of a text, in place; zeros. The encoder's outputs do not have their states.

    They have the first position, and the text keeps its own: the text is read where it was when the encoder was trained, and may
    be as long as without them. Those of a template, of which the one `masked_at` is the mask, stand behind the first token, and the
    text's others behind them; the state [B, H] of the mask is the encoder's `pooler_output`.
    """
    encoder.masked_at = masked_at
    encoder.embeddings.virtual = nn.Parameter(torch.zeros(count, encoder.config.hidden_size))
    encoder.register_forward_pre_hook(_prepend, with_kwargs=True)
    encoder.register_forward_hook(_cut)


def _prepend(encoder: Any, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    ids, mask = given["input_ids"], given.get("attention_mask")
    mask = torch.ones_like(ids) if mask is None else mask
    virtual = encoder.embeddings.virtual
    count = len(virtual)
    kept = {key: value for key, value in given.items() if key not in {"input_ids", "attention_mask"}}
    embedded = torch.cat([virtual.expand(len(ids), -1, -1), encoder.embeddings.word_embeddings(ids)], 1)
    places = torch.arange(ids.shape[1], device=ids.device)
    if encoder.masked_at is None:
        places = torch.cat([ids.new_zeros(count), places])
    else:
        own = torch.arange(1, count + 1, device=ids.device)
        places = torch.cat([own, torch.where(places == 0, 0, places + count)])
    shown = torch.cat([mask.new_ones(len(ids), count), mask], 1)
    return args, kept | {"inputs_embeds": embedded, "attention_mask": shown, "position_ids": places[None]}


def _cut(encoder: Any, _: tuple[Any, ...], found: Any) -> Any:
    count = len(encoder.embeddings.virtual)
    if encoder.masked_at is not None:
        found.pooler_output = found.last_hidden_state[:, encoder.masked_at]
    found.last_hidden_state = found.last_hidden_state[:, count:]
    if found.hidden_states is not None:
        found.hidden_states = tuple(states[:, count:] for states in found.hidden_states)
    return found


def add_parts(encoder: "BertModel", spec: EncoderSpec, weights: Mapping[str, Any]) -> None:
    """Put in the parts that a spec names, in place, if the weights have them: what a delta's encoder has, its base has not."""
    if spec.bottleneck is not None and "encoder.layer.0.output.dense.adapter.up.weight" in weights:
        add_bottlenecks(encoder, spec.bottleneck)
    if spec.prefix is not None and "encoder.layer.0.attention.self.prefix_key" in weights:
        add_prefix(encoder, spec.prefix)
    if spec.virtual_tokens is not None and "embeddings.virtual" in weights:
        add_virtual_tokens(encoder, spec.virtual_tokens, spec.masked_at)

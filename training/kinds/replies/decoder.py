"""The decoder of a task that generates replies: it reads what the encoder makes of a text, and writes one piece after the other.

Its layers are BERT's with cross attention, so that they can begin as layers of the encoder. The names of its parameters are those
of the manifest's weights, without `heads.TASK.`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ....runtime.errors import SetupError

if TYPE_CHECKING:
    from transformers import BertConfig

END: Final = 0
"""The number of the piece that ends a reply."""
NO_PIECE: Final = -100
"""Stands in targets behind the end: nothing is asked there."""
EXCLUDED: Final = -1e4
"""Added to scores that count for nothing."""
_OF_ATTENTION: Final = {
    **{part: f"attention.self.{part}" for part in ("query", "key", "value")},
    "output": "attention.output.dense",
    "norm": "attention.output.LayerNorm",
}
_SOURCES: Final = {
    **{f"{own}.{part}": source for own in ("self", "cross") for part, source in _OF_ATTENTION.items()},
    "feed_forward.up": "intermediate.dense",
    "feed_forward.down": "output.dense",
    "feed_forward.norm": "output.LayerNorm",
}
"""Parts of a layer, and those of an encoder's layer that they begin as."""
KeysValues = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Decoded:
    """One reply as it was decoded, piece by piece, the end with it."""

    pieces: list[int]
    margins: list[float]
    """How far the best logit lay above the second, by piece."""
    log_probabilities: list[float]
    """By piece."""

    @property
    def has_ended(self) -> bool:
        return self.pieces[-1] == END

    @property
    def score(self) -> float:
        """The geometric mean of the pieces' probabilities."""
        return float(np.exp(np.mean(self.log_probabilities)))


@dataclass
class Cache:
    """Keys and values by layer: of the text, and of the pieces so far."""

    source: list[KeysValues]
    source_bias: Tensor
    reply: list[KeysValues | None]


class ReplyDecoder(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """`pieces` V, `layers`, `positions` P: as many pieces as a reply may have, the end included. All else is the encoder's."""

    def __init__(self, config: "BertConfig", *, pieces: int, layers: int, positions: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.pieces = pieces
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.embedding = nn.Parameter(torch.empty(pieces + 1, width))
        self.position = nn.Parameter(torch.empty(positions, width))
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(layers))
        self.transform = nn.Module()
        self.transform.dense = nn.Linear(width, width)
        self.transform.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(pieces))
        for table in (self.embedding, self.position):
            nn.init.normal_(table, std=0.02)
        nn.init.eye_(self.transform.dense.weight)
        nn.init.zeros_(self.transform.dense.bias)

    def begin_from(
        self, encoder: Mapping[str, Tensor], words: Sequence[Sequence[int]], start: int, *, layers: bool = True
    ) -> None:
        """Begin as the encoder: its layers spread evenly, the last among them, for cross attention too; each piece as the mean of
        the `words` that mean it, the start as the word `start`. `encoder` are weights under BERT's names. Not the layers of one
        that goes on with its own, of which there may be more than the encoder has.
        """
        table = encoder["embeddings.word_embeddings.weight"]
        types = encoder.get("embeddings.token_type_embeddings.weight")
        depth = 1 + max(int(name.split(".")[2]) for name in encoder if name.startswith("encoder.layer."))
        with torch.no_grad():
            self.embedding.copy_(torch.stack([*(table[list(ids)].mean(0) for ids in words), table[start]]))
            positions = encoder["embeddings.position_embeddings.weight"][: len(self.position)]
            self.position[: len(positions)] = positions
            if types is not None:
                self.position.add_(types[-1])
            _copy(self.norm, encoder, "embeddings.LayerNorm")
            parameters = dict(self.named_parameters())
            for part, source in self.sources(depth).items() if layers else ():
                parameters[part].copy_(encoder[source])

    def sources(self, depth: int) -> dict[str, str]:
        """Return as which of the encoder's weights the layers' parameters begin, by their names; `depth` is the encoder's."""
        numbers = enumerate(spread_layers(len(self.layers), depth))
        return {
            f"layers.{own}.{part}.{kind}": f"encoder.layer.{number}.{source}.{kind}"
            for own, number in numbers
            for part, source in _SOURCES.items()
            for kind in ("weight", "bias")
        }

    def forward(self, states: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        """Return the logits [B, T, V] of each piece of the `target` [B, T], given those before it; NO_PIECE behind the end."""
        start = target.new_full((len(target), 1), self.pieces)
        x = self._embed(torch.cat([start, target[:, :-1].clamp_min(0)], 1), 0)
        causal = torch.full((x.shape[1],) * 2, EXCLUDED, device=x.device).triu(1)
        bias = _bias_of(mask)
        for layer in self.layers:
            x = layer(x, layer.self.project(x), causal, layer.cross.project(states), bias)
        return self._logits(x)

    def begin(self, states: Tensor, mask: Tensor) -> Cache:
        """Compute what all steps of some replies read of their texts."""
        return Cache([layer.cross.project(states) for layer in self.layers], _bias_of(mask), [None] * len(self.layers))

    def step(self, cache: Cache, piece: Tensor, position: int) -> Tensor:
        """Return the logits [B, V] that follow a piece [B], and extend the cache."""
        x = self._embed(piece[:, None], position)
        for number, layer in enumerate(self.layers):
            new, past = layer.self.project(x), cache.reply[number]
            now = new if past is None else (torch.cat([past[0], new[0]], 2), torch.cat([past[1], new[1]], 2))
            cache.reply[number] = now
            x = layer(x, now, None, cache.source[number], cache.source_bias)
        return self._logits(x[:, 0])

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def decode(self, states: Tensor, mask: Tensor, forbidden: Tensor | None = None) -> list[Decoded]:
        """Decode greedily until all replies have ended, or have as many pieces as there are positions.

        `forbidden` [B, V] is added to the logits: see `forbid_as_served`.
        """
        cache = self.begin(states, mask)
        piece = torch.full((len(states),), self.pieces, device=states.device)
        ended = torch.zeros(len(states), dtype=torch.bool, device=states.device)
        pieces, margins, likely = [], [], []
        for position in range(len(self.position)):
            logits = self.step(cache, piece, position).float()
            logits = logits if forbidden is None else logits + forbidden
            best = logits.topk(2)
            piece = best.indices[:, 0].masked_fill(ended, END)
            pieces.append(piece)
            margins.append(best.values[:, 0] - best.values[:, 1])
            likely.append(best.values[:, 0] - logits.logsumexp(-1))
            ended |= piece == END
            if bool(ended.all()):
                break
        rows = zip(*(torch.stack(each, 1).tolist() for each in (pieces, margins, likely)), strict=True)
        return [Decoded(kept := _to_end(row), gaps[: len(kept)], each[: len(kept)]) for row, gaps, each in rows]

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def sample(self, states: Tensor, mask: Tensor) -> list[list[int]]:
        """Draw replies piece by piece, the end with each that has one."""
        cache = self.begin(states, mask)
        piece = torch.full((len(states),), self.pieces, device=states.device)
        ended = torch.zeros(len(states), dtype=torch.bool, device=states.device)
        pieces = []
        for position in range(len(self.position)):
            drawn = self.step(cache, piece, position).float().softmax(-1).multinomial(1)[:, 0]
            piece = drawn.masked_fill(ended, END)
            pieces.append(piece)
            ended |= piece == END
            if bool(ended.all()):
                break
        return [_to_end(row) for row in torch.stack(pieces, 1).tolist()]

    def _embed(self, pieces: Tensor, first: int) -> Tensor:
        x = self.embedding[pieces] + self.position[first : first + pieces.shape[1]]
        found: Tensor = self.dropout(self.norm(x))
        return found

    def _logits(self, x: Tensor) -> Tensor:
        x = self.transform.norm(F.gelu(self.transform.dense(x)))
        return F.linear(x, self.embedding[: self.pieces], self.bias)


class _Layer(nn.Module):  # type: ignore[misc]
    def __init__(self, config: "BertConfig") -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.self, self.cross = _Attention(config), _Attention(config)
        self.feed_forward = nn.Module()
        self.feed_forward.up, self.feed_forward.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.feed_forward.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self, x: Tensor, reply: KeysValues, reply_bias: Tensor | None, source: KeysValues, source_bias: Tensor
    ) -> Tensor:
        x = self.cross(self.self(x, reply, reply_bias), source, source_bias)
        inner = self.feed_forward.down(F.gelu(self.feed_forward.up(x)))
        found: Tensor = self.feed_forward.norm(x + self.dropout(inner))
        return found


class _Attention(nn.Module):  # type: ignore[misc]
    def __init__(self, config: "BertConfig") -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def project(self, states: Tensor) -> KeysValues:
        """Return keys and values [B, A, S, D] of the states that are attended to."""
        return self._by_head(self.key(states)), self._by_head(self.value(states))

    def forward(self, x: Tensor, attended: KeysValues, bias: Tensor | None) -> Tensor:
        keys, values = attended
        # By hand: on a CPU the backward pass of scaled_dot_product_attention costs more at these lengths.
        scores = self._by_head(self.query(x)) @ keys.transpose(-1, -2) * keys.shape[-1] ** -0.5
        shares = (scores if bias is None else scores + bias).softmax(-1)
        joined = (shares.to(values.dtype) @ values).transpose(1, 2).reshape(x.shape)
        found: Tensor = self.norm(x + self.dropout(self.output(joined)))
        return found

    def _by_head(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


def spread_layers(count: int, depth: int) -> list[int]:
    """Return which of `depth` layers so many begin as: spread evenly, the last among them. SetupError for more than there are."""
    if count > depth:
        raise SetupError(
            f"a decoder of {count} layers cannot begin from an encoder of {depth}; set `layers` to {depth} or less"
        )
    return [round(depth * number / count) - 1 for number in range(1, count + 1)]


def _to_end(pieces: list[int]) -> list[int]:
    return pieces[: pieces.index(END) + 1] if END in pieces else pieces


def log_probabilities(logits: Tensor, target: Tensor) -> list[np.ndarray[tuple[int], np.dtype[np.float32]]]:
    """Return of each row of a batch the log-probability of each piece of its target, the end included."""
    asked = target != NO_PIECE
    found = logits.float().log_softmax(-1).gather(-1, target.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    return [row[kept].cpu().numpy() for row, kept in zip(found, asked, strict=True)]


def _bias_of(mask: Tensor) -> Tensor:
    return (1 - mask[:, None, None, :].float()) * EXCLUDED


def _copy(module: Any, encoder: Mapping[str, Tensor], name: str) -> None:
    module.weight.copy_(encoder[f"{name}.weight"])
    module.bias.copy_(encoder[f"{name}.bias"])

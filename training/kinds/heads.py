"""Heads that most kinds share: a linear layer, and one that mixes layers, pools or has a hidden layer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ...runtime.model.kinds.kind import EPSILON as LAYER_NORM
from ...schemas.manifest import HeadForm

if TYPE_CHECKING:
    from transformers import BertConfig

PADDING = -1e4
"""What stands for padding where the maximum over a text's tokens is taken."""
EPSILON = 1e-5
"""Added to a variance before its root, as in batch normalisation: a number that never changes is not divided by zero."""


def linear_head(width: int, labels: int) -> nn.Linear:
    """Make a linear layer [labels, width], drawn as BERT draws its own (normal, 0.02)."""
    head = nn.Linear(width, labels)
    draw(head)
    return head


def draw(layer: nn.Linear) -> None:
    """Draw a layer's weights as BERT draws its own (normal, 0.02)."""
    nn.init.normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)


class ScalarMix(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """scale * sum(softmax(weight)[i] * parts[i]) (Peters et al. 2018); it begins as the mean of the parts."""

    def __init__(self, parts: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(parts))
        self.scale = nn.Parameter(torch.ones(1))

    @property
    def shares(self) -> Tensor:
        """The share of each layer, 1 in all."""
        return torch.softmax(self.weight, 0)

    def forward(self, parts: Tensor) -> Tensor:
        """[..., K, W] -> [..., W]."""
        return torch.einsum("k,...kw->...w", self.shares * self.scale, parts)


class Standardise(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """(x - mean) / deviation of each number of parts [K, W], by the training texts as training begins. Nothing is learned here:
    of what an encoder gives the numbers differ a hundredfold in size, and an optimiser hardly moves the small ones.
    """

    def __init__(self, parts: int, width: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(parts, width), requires_grad=False)
        self.deviation = nn.Parameter(torch.ones(parts, width), requires_grad=False)

    def set_to(self, mean: Tensor, variance: Tensor) -> None:
        """Set the mean [K, W] and the deviation that belongs to a variance [K, W]."""
        self.mean.copy_(mean)
        self.deviation.copy_((variance + EPSILON).sqrt())

    def forward(self, parts: Tensor) -> Tensor:
        found: Tensor = (parts - self.mean) / self.deviation
        return found


class FormedHead(nn.Linear):  # type: ignore[misc]  # torch is untyped here
    """A head of the form that its task has. Itself it is the last layer, from what is read to the logits."""

    def __init__(self, config: "BertConfig", labels: int, form: HeadForm) -> None:
        width = config.hidden_size * (2 if form.pooling == "mean_max" else 1)
        parts = 1 if form.layers == "last" else config.num_hidden_layers + 1
        read = width * (parts if form.layers == "concat" else 1)
        super().__init__(form.hidden or read, labels)
        draw(self)
        self.reads_layers = form.layers != "last"
        self.norm = Standardise(parts, width)
        self.mix = ScalarMix(parts) if form.layers == "mix" else None
        self.hidden = linear_head(read, form.hidden) if form.hidden is not None else None
        self.hidden_norm = nn.LayerNorm(form.hidden, LAYER_NORM) if form.hidden and form.layer_norm else nn.Identity()
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self._pools_maximum, self.reads_mask = form.pooling == "mean_max", form.pooling == "mask"

    def pool(self, states: Tensor, mask: Tensor, layers: Sequence[Tensor], masked: Tensor | None = None) -> Tensor:
        """Return texts as vectors [B, K, W]: of the last layer's `states` [B, S, H], or of each of `layers`, the outputs of the
        embeddings and of all layers, where the head reads them; or `masked` [B, H], the state of a template's mask.
        """
        if self.reads_mask:
            assert masked is not None, "refused where the encoder has no template"
            return masked.unsqueeze(1)
        return torch.stack([self._pool(each, mask) for each in self._parts(states, layers)], 1)

    def stack(self, states: Tensor, layers: Sequence[Tensor]) -> Tensor:
        """Return tokens as vectors [B, S, K, W]. `states` and `layers` as in `pool`."""
        return torch.stack([*self._parts(states, layers)], 2)

    def _parts(self, states: Tensor, layers: Sequence[Tensor]) -> Sequence[Tensor]:
        return layers if self.reads_layers else (states,)

    def _pool(self, states: Tensor, mask: Tensor) -> Tensor:
        mean = pool_mean(states, mask)
        if not self._pools_maximum:
            return mean
        maximum = states.masked_fill(mask.unsqueeze(-1) == 0, PADDING).amax(1)
        return torch.cat([mean, maximum], -1)

    def read(self, parts: Tensor) -> Tensor:
        """Return what the last layer reads [..., W] of texts or tokens as `pool` and `stack` return them."""
        parts = self.norm(parts)
        read = self.dropout(parts.flatten(-2) if self.mix is None else self.mix(parts))
        if self.hidden is None:
            return read
        found: Tensor = self.dropout(self.hidden_norm(nn.functional.gelu(self.hidden(read))))
        return found


def pool_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Return the mean [B, H] of states [B, S, H] over the tokens of each text."""
    counted = mask.unsqueeze(-1).to(states.dtype)
    return (states * counted).sum(1) / counted.sum(1)

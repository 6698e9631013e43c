"""The network: one shared encoder, a head for each task: a linear layer, one of another form, or a decoder."""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...schemas.manifest import TaskSpec
from ..kinds.heads import FormedHead, pool_mean
from ..kinds.kind import EncodedTexts, Kind
from .methods.lora import own_parameters
from .methods.method import Method
from .padding import in_order, pad
from .vocabulary import NarrowTable

if TYPE_CHECKING:
    from transformers import BertModel


class HeadSpec(Protocol):
    """What the network asks of a task: its name, its kind, and its spec, which has a label for each logit."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> Kind: ...

    @property
    def spec(self) -> TaskSpec: ...


class MultiTask(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """Encoder and heads; `heads[i]` answers `tasks[i]`.

    Sentence heads read the mean of the last layer over the text's tokens, special tokens included, as the graphs do, unless
    their task gives them another form.
    """

    def __init__(self, encoder: "BertModel", tasks: Sequence[HeadSpec], *, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.names = [data.name for data in tasks]
        self.per_token = [data.kind.per_token for data in tasks]
        self.generates = [data.kind.generates for data in tasks]
        self.heads = nn.ModuleList(data.kind.make_head(encoder.config, data.spec) for data in tasks)
        self.reads_layers = any(isinstance(head, FormedHead) and head.reads_layers for head in self.heads)
        self.dropout = nn.Dropout(dropout)
        self.table: NarrowTable | None = None
        self.has_frozen_encoder = False
        self.method: Method | None = None
        """What is trained around the encoder, where it is not the encoder's own weights."""
        self.has_new_template = False
        """Whether the encoder has the tokens of a template that it began without."""

    def freeze_encoder(self) -> None:
        """Leave the encoder's weights as they are; it reads without dropout from now on."""
        self.encoder.requires_grad_(False)
        self.has_frozen_encoder = True
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of training; a frozen encoder stays in that of evaluation."""
        super().train(mode)
        if self.has_frozen_encoder:
            self.encoder.eval()
        return self

    def narrow(self, texts: Iterable[NDArray[np.integer[Any]]]) -> None:
        """Train only the words of these texts until `widen`; other words must not be asked meanwhile."""
        self.table = NarrowTable(self.encoder, texts)

    def widen(self) -> None:
        """Know all words again."""
        if self.table is not None:
            self.table.widen(self.encoder)
            self.table = None

    def forward(self, task: int, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the logits of one task: [B, C], or [B, S, C] for tagging."""
        return self.answer(task, self.encode(ids, mask))

    def encode(self, ids: Tensor, mask: Tensor) -> EncodedTexts:
        """Return the last layer's states, and those of all layers where a head reads them."""
        ids = ids if self.table is None else self.table.of(ids)
        found = self.encoder(input_ids=ids, attention_mask=mask, output_hidden_states=self.reads_layers)
        return EncodedTexts(found.last_hidden_state, mask, tuple(found.hidden_states or ()), found.pooler_output)

    def answer(self, task: int, texts: EncodedTexts, target: Tensor | None = None) -> Tensor:
        """Return the logits of one task from the states of its texts; of one that generates those of a `target`: [B, T, V]."""
        if self.generates[task]:
            logits: Tensor = self.heads[task](texts.states, texts.mask, target)
            return logits
        found: Tensor = self.heads[task](self.read(task, texts))
        return found

    def read(self, task: int, texts: EncodedTexts) -> Tensor:
        """Return what the last layer of a head reads: [B, W], or [B, S, W] for tagging."""
        head = self.heads[task]
        if not self.per_token[task]:
            return self.read_pooled(task, self.pool(task, texts))
        if isinstance(head, FormedHead):
            return head.read(head.stack(texts.states, texts.layers))
        found: Tensor = self.dropout(texts.states)
        return found

    def pool(self, task: int, texts: EncodedTexts) -> Tensor:
        """Return the texts of a sentence task as vectors [B, K, W]: all that its head asks of the encoder."""
        head = self.heads[task]
        if isinstance(head, FormedHead):
            return head.pool(*texts)
        return pool_mean(texts.states, texts.mask).unsqueeze(1)

    def read_pooled(self, task: int, pooled: Tensor) -> Tensor:
        """Return what the last layer of a sentence task's head reads of texts as `pool` returns them: [B, W]."""
        head = self.heads[task]
        if isinstance(head, FormedHead):
            return head.read(pooled)
        found: Tensor = self.dropout(pooled[:, 0])
        return found

    def answer_pooled(self, task: int, pooled: Tensor) -> Tensor:
        """Return the logits [B, C] of a sentence task from texts as `pool` returns them."""
        logits: Tensor = self.heads[task](self.read_pooled(task, pooled))
        return logits

    @property
    def last_layer(self) -> nn.Module:
        """The last layer that all tasks share."""
        layer: nn.Module = self.encoder.encoder.layer[-1]
        return layer

    def head_weights(self) -> dict[str, NDArray[np.float32]]:
        """Return the heads under the names of a model folder's weights, without weights that have factors."""
        return {
            f"heads.{name}.{part}": parameter.detach().float().cpu().numpy().copy()
            for name, head in zip(self.names, self.heads, strict=True)
            for part, parameter in own_parameters(head)
        }


def logits_of(
    model: MultiTask,
    task: int,
    texts: Sequence[NDArray[np.integer[Any]]],
    *,
    device: str,
    bf16: bool,
    batch_size: int = 64,
) -> list[NDArray[np.float32]]:
    """Return each text's logits without padding ([C], or [S, C]), in the order of `texts` (token ids)."""
    found = logits_of_tasks(model, {task: range(len(texts))}, texts, device=device, bf16=bf16, batch_size=batch_size)
    return [found[task][row] for row in range(len(texts))]


def logits_of_tasks(
    model: MultiTask,
    asked: Mapping[int, Container[int]],
    texts: Sequence[NDArray[np.integer[Any]]],
    *,
    device: str,
    bf16: bool,
    batch_size: int = 64,
) -> dict[int, dict[int, NDArray[np.float32]]]:
    """Return by task the logits of the texts that it is asked about, by their rows; each text goes through the encoder once."""
    return _outputs_of(model, asked, texts, model.answer, device, bf16, batch_size)


def _outputs_of(
    model: MultiTask,
    asked: Mapping[int, Container[int]],
    texts: Sequence[NDArray[np.integer[Any]]],
    compute: Callable[[int, EncodedTexts], Tensor],
    device: str,
    bf16: bool,
    batch_size: int,
) -> dict[int, dict[int, NDArray[np.float32]]]:
    model.eval()
    found: dict[int, dict[int, NDArray[np.float32]]] = {task: {} for task in asked}
    for rows in in_order(texts, batch_size):
        ids, mask = (each.to(device) for each in pad([texts[row] for row in rows]))
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=bf16):
            encoded = model.encode(ids, mask)
            for task, own in asked.items():
                if chosen := [at for at, row in enumerate(rows) if row in own]:
                    values = compute(task, encoded.choose(chosen)).float().cpu().numpy()
                    for at, value in zip(chosen, values, strict=True):
                        length = len(texts[rows[at]]) if model.per_token[task] else len(value)
                        found[task][rows[at]] = value[:length]
    return found


def states_of(
    model: MultiTask, task: int, texts: Sequence[NDArray[np.integer[Any]]], *, device: str, bf16: bool
) -> NDArray[np.float32]:
    """Return what the last layer of a sentence task's head reads of each text: [N, W], in the order of `texts` (token ids)."""
    found = _outputs_of(model, {task: range(len(texts))}, texts, model.read, device, bf16, 64)
    return np.stack([found[task][row] for row in range(len(texts))])

"""The encoder as training begins with it, and what it makes of texts."""

import random
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from numpy.typing import NDArray
from torch import nn

from ...data.example import Example
from ...model.encoders import build_encoder
from ...model.network import MultiTask, logits_of, states_of
from ...prepare.tasks import TaskData
from ..rows.encoding import Part, encode_ids, encode_part
from ..setup import Fitting

MOST_ROWS: Final = 5000
"""At most so many rows of a part are embedded, each label in proportion."""
Array = NDArray[Any]


@dataclass(frozen=True)
class Frozen:
    """The encoder as training begins, with the settings of the run."""

    run: Fitting
    network: MultiTask

    @classmethod
    def of_run(cls, run: Fitting) -> "Frozen":
        """Make a second encoder from the checkpoint; torch's random numbers stay as they are."""
        with torch.random.fork_rng():
            begins = run.checkpoint.plain or run.checkpoint
            encoder = build_encoder(begins.spec, begins.weights, dropout=0.0)
            network = MultiTask(encoder, run.tasks, dropout=0.0)
            # Held against all heads, whatever their form, is the mean of the last layer.
            network.heads, network.reads_layers = nn.ModuleList(nn.Identity() for _ in run.tasks), False
        return cls(run, network.to(run.device))

    def embed(self, task: int, examples: Sequence[Example]) -> Array:
        """Return the mean of the last layer of each text: [N, H]."""
        tokenizer = self.run.checkpoint.tokenizer
        tokenizer.enable_truncation(self.run.recipe.max_tokens)
        ids = encode_ids([example.given for example in examples], tokenizer)
        tokenizer.no_truncation()
        return states_of(self.network, task, ids, device=self.run.device, bf16=self.run.bf16)

    def embed_part(self, task: int, data: TaskData, examples: Sequence[Example]) -> tuple[list[Array], Part]:
        """Return the examples with their targets, and what a linear head reads of each: [H], or [S, H] of a task that tags."""
        tokenizer = self.run.checkpoint.tokenizer
        tokenizer.enable_truncation(self.run.recipe.max_tokens)
        part = encode_part(examples, data.kind, data.labels, tokenizer)
        tokenizer.no_truncation()
        states = logits_of(self.network, task, part.ids, device=self.run.device, bf16=self.run.bf16)
        return [*states], part


def draw_rows(labels: Sequence[Hashable], count: int, seed: int) -> list[int]:
    """Draw at most `count` rows, each label in proportion and, where there are no more than `count`, at least once."""
    by_label: dict[Hashable, list[int]] = defaultdict(list)
    for row in random.Random(seed).sample(range(len(labels)), len(labels)):
        by_label[labels[row]].append(row)
    ranked = sorted((rank / len(rows), row) for rows in by_label.values() for rank, row in enumerate(rows))
    return sorted(row for _, row in ranked[:count])

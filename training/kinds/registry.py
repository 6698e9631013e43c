"""The registry of task kinds. One file a kind, each with head, loss, decoding and metric; a new kind is one line here."""

from collections.abc import Sequence
from typing import Any, Protocol

from numpy.typing import NDArray
from tokenizers import Encoding
from torch import Tensor, nn

from ...schemas.manifest import TaskSpec
from ..data.example import Example
from .answers import Answer, Score
from .classification import Classification
from .multi_label import MultiLabel
from .tagging import Tagging

Array = NDArray[Any]


class Kind(Protocol):
    """What the trainer asks of a kind. Logits are [B, C] for sentences and [B, S, C] for `per_token` kinds."""

    per_token: bool
    several: bool
    """Labels do not exclude each other."""

    def labels(self, examples: Sequence[Example]) -> list[str]:
        """Return all labels in their order, one for each logit."""

    def unknown(self, example: Example, labels: frozenset[str]) -> str | None:
        """Return a label of the example that is not among `labels`."""

    def head(self, width: int, labels: int) -> nn.Linear:
        """Make the head's untrained weights."""

    def target(self, example: Example, encoding: Encoding, index: dict[str, int]) -> Array:
        """Return what the loss compares with, for one example."""

    def collate(self, targets: Sequence[Array], width: int) -> Tensor:
        """Stack the targets of a batch that is `width` tokens wide."""

    def asked(self, target: Tensor) -> Tensor:
        """Return which rows (for `per_token` kinds: which tokens) of a batch's target count."""

    def loss(self, logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
        """Return the mean loss of a batch."""

    def metrics(self, logits: Sequence[Array], targets: Sequence[Array], spec: TaskSpec) -> dict[str, float]:
        """Score validation logits, unpadded ([C] or [S, C] each); the key `main` is what checkpoints are compared by.

        No `main` where nothing can be said of these rows: the task has no vote then.
        """

    def score(self, answers: Sequence[Answer], spec: TaskSpec, scope: str | None) -> Score:
        """Score what the exported model answered. `scope` is the out-of-scope label, learned or not."""


KINDS: dict[str, Kind] = {
    "classification": Classification(),
    "multi_label": MultiLabel(),
    "tagging": Tagging(),
}

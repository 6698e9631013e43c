"""Soft targets: what a model answered before, as something to learn from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...kinds.kind import EncodedTexts, Kind
from ...recipe.recipe import Hold
from ...run_folders.run_folder import TeacherRecord

LossOfLabels = Callable[[Tensor, Tensor, EncodedTexts | None], Tensor]
"""Returns the mean loss of rows with labels, of logits, targets, and what the kind reads beside them."""


@dataclass(frozen=True, slots=True)
class Held:
    """One text as it was answered: logits [C] (tagging: [S, C]), and which labels are compared [C]."""

    logits: NDArray[np.float32]
    compared: NDArray[np.bool_]


class TaughtRows(Protocol):
    """What a teacher answers to the rows of a task, by row."""

    @property
    def sha256(self) -> str: ...

    @property
    def teacher(self) -> TeacherRecord: ...

    def __getitem__(self, row: int) -> Held: ...


@dataclass(frozen=True, slots=True)
class SoftTargets:
    """The rows of a batch that have soft targets [B], their logits [K, C] or [K, S, C], and the compared labels [K, C]."""

    rows: Tensor
    before: Tensor
    compared: Tensor

    def among(self, rows: Tensor) -> "SoftTargets":
        """Return them for these rows of the batch [B] alone, which hold all that have soft targets."""
        return replace(self, rows=self.rows[rows])

    def to(self, device: str) -> "SoftTargets":
        return SoftTargets(self.rows.to(device), self.before.to(device), self.compared.to(device))


def soft_targets(held: Sequence[Held | None], width: int) -> SoftTargets | None:
    """Stack what a batch of `width` tokens has of soft targets; None when it has none."""
    held_rows = [each for each in held if each is not None]
    if not held_rows:
        return None
    before = [each.logits if each.logits.ndim == 1 else _widened(each.logits, width) for each in held_rows]
    return SoftTargets(
        torch.tensor([each is not None for each in held]),
        torch.from_numpy(np.stack(before)),
        torch.from_numpy(np.stack([each.compared for each in held_rows])),
    )


def _widened(logits: NDArray[Any], width: int) -> NDArray[Any]:
    return np.pad(logits, ((0, width - len(logits)), (0, 0)))


def mixed_loss(
    kind: Kind,
    logits: Tensor,
    target: Tensor,
    soft: SoftTargets,
    hold: Hold,
    loss_of_labels: LossOfLabels,
    texts: EncodedTexts | None = None,
) -> Tensor:
    """Return the mean over what is asked of a batch (rows, or words) of the loss of its label, or of its soft target.

    Soft targets count alike, whatever `loss_of_labels` makes of labels.
    """
    every = kind.asked(target).to(target.device)
    asked = every[soft.rows]
    share = asked.sum() / every.sum().clamp_min(1)
    now, compared = logits[soft.rows], soft.compared
    before = soft.before
    if kind.per_token:
        compared = compared.unsqueeze(1).expand(-1, now.shape[1], -1)[asked]
        now, before = now[asked], before[asked]
    held = kind.hold_loss(now, before, compared, hold.temperature) if len(now) else now.sum() * 0.0  # no words
    loss = hold.weight * share * held
    if not bool(soft.rows.all()):
        rest = ~soft.rows
        others = texts.choose(rest) if texts is not None else None
        loss = loss + (1 - share) * loss_of_labels(logits[rest], target[rest], others)
    return loss

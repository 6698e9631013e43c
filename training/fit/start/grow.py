"""A head that gets new labels: the old rows go on, the new ones begin where their first examples lie."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...kinds.heads import FormedHead

if TYPE_CHECKING:
    from ...model.network import MultiTask
    from ...prepare.tasks import TaskData
    from ..rows.encoding import Part

EXAMPLES: Final = 32
"""So many texts of a label are enough for its mean."""
BACKGROUND: Final = 256
CLASS_MEAN: Final = "class mean"
RANDOM: Final = "random"
WORDS: Final = "words"
"""A piece of replies begins as the mean of the encoder's words that mean it."""


def new_labels(known: Sequence[str] | None, labels: Sequence[str]) -> list[str]:
    """Return the labels that the head before did not have; none where no head went on."""
    return [label for label in labels if label not in known] if known and set(known) <= set(labels) else []


def carry_over(head: nn.Module, data: "TaskData", known: Sequence[str], weights: Mapping[str, NDArray[Any]]) -> None:
    """Copy the rows of the labels that were known, and parts of the same shape that have no row for each label; the others
    stay as they were drawn.
    """
    if not known:
        return
    places = [data.labels.index(label) for label in known]
    inner = ("hidden.", "mix.", "norm.") if isinstance(head, FormedHead) else ("limits",)
    for part, parameter in head.named_parameters():
        before = torch.tensor(weights[f"heads.{data.name}.{part}"], dtype=parameter.dtype)
        if (len(before), len(parameter)) == (len(known), len(data.labels)) and not part.startswith(inner):
            parameter.data[places] = before
        elif part == "embedding" and data.kind.generates:
            parameter.data[[*places, len(data.labels)]] = before  # the last row is the start of a reply
        elif before.shape == parameter.shape:
            parameter.data.copy_(before)


def begin_row(model: "MultiTask", task: int, data: "TaskData", part: "Part", label: str) -> str:
    """Set the row of a new label from the mean m of its texts; returns what it began from.

    w = s * (m - u) / |m - u| and b = mean(b_old) - w.u, with u the mean of the task's texts and s the mean length of the
    rows so far: the label is likely for texts that lie where its examples do, and as likely as any other at u. Tags of a
    text's words, and heads without such a row for each label, stay as they were drawn.
    """
    head = model.heads[task]
    if data.kind.per_token or not isinstance(head, nn.Linear) or len(head.weight) != len(data.labels):
        return RANDOM
    rows = [row for row, example in enumerate(data.train) if label in example.labels and not example.soft]
    if not rows:
        return RANDOM
    every = np.linspace(0, len(data.train) - 1, min(BACKGROUND, len(data.train))).astype(int).tolist()
    middle = torch.from_numpy(_means(model, task, part, every))
    towards = torch.from_numpy(_means(model, task, part, rows[:EXAMPLES])) - middle
    place = data.labels.index(label)
    others = [number for number in range(len(data.labels)) if number != place]
    with torch.no_grad():
        row = towards / towards.norm().clamp_min(1e-6) * head.weight[others].norm(dim=1).mean()
        head.weight[place] = row
        head.bias[place] = head.bias[others].mean() - row @ middle
    return CLASS_MEAN


def _means(model: "MultiTask", task: int, part: "Part", rows: Sequence[int]) -> NDArray[np.float32]:
    """Return the mean [W] of what the last layer of the task's head reads of the texts."""
    from ...model.network import states_of  # noqa: PLC0415  (it needs batches, which this module's callers make)

    states = states_of(model, task, [part.ids[row] for row in rows], device="cpu", bf16=False)
    return np.asarray(np.mean(states, axis=0), np.float32)

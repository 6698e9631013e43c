"""Logistic regression on the frozen encoder: what the score of a classification is held against.

The encoder is the one that training begins with, pooled as the network pools; nothing of it is trained.
"""

import random
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...compute.failures import memory_of
from ...data.example import Example, digest_rows
from ...model.encoders import build_encoder
from ...model.network import MultiTask, states_of
from ...prepare.data_report import TEST, ProbeReport, ProbeScore
from ...prepare.tasks import TaskData, originals
from ..rows.encoding import encode_ids
from ..setup import Fitting
from ..start.few_rows import reason_against
from .regression import fit_regression

MOST_ROWS: Final = 5000
"""At most so many rows of a part are embedded, each label in proportion."""
Array = NDArray[Any]


@dataclass(frozen=True)
class Probe:
    """A linear head [C, H] and [C] on the mean of the last layer. `rows` are those that it was fitted on.

    A label without training rows has the bias -inf.
    """

    weight: Array
    bias: Array
    rows: int


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


@memory_of("probe on the frozen encoder", "lower max_tokens, or set `probe: false`")
def probe_tasks(run: Fitting) -> dict[str, Probe]:
    """Fit a probe for each task that can have one, and put its scores, or why there is none, into `run.data`."""
    reasons = {data.name: reason_against(run.recipe, data) or _reason_of_sets(run, data) for data in run.tasks}
    frozen = None if all(reasons.values()) else Frozen.of_run(run)
    probes: dict[str, Probe] = {}
    for at, data in enumerate(run.tasks):
        report = ProbeReport(reason=reasons[data.name])
        if frozen is not None and not report.reason:
            probe = fit_probe(frozen, at, data, run.recipe.data_seed)
            scores = {name: score_probe(frozen, probe, at, data, rows) for name, rows in _sets(data).items()}
            report = ProbeReport(rows=probe.rows, scores={name: score for name, score in scores.items() if score})
            probes[data.name] = probe
        run.data[data.name] = run.data[data.name].model_copy(update={"probe": report})
    return probes


def _sets(data: TaskData) -> dict[str, list[Example]]:
    return {TEST: data.test, **data.reports}


def _reason_of_sets(run: Fitting, data: TaskData) -> str:
    """Return why a probe would be fitted for nothing; nothing where it is scored, or a head begins from it."""
    return "" if data.name in run.few or any(_sets(data).values()) else "there is no set to score it on"


def fit_probe(frozen: Frozen, task: int, data: TaskData, seed: int) -> Probe:
    """Fit multinomial logistic regression on at most MOST_ROWS training rows."""
    rows = originals(data.train)
    rows = [rows[at] for at in draw_rows([example.labels[0] for example in rows], MOST_ROWS, seed)]
    features = frozen.embed(task, rows)
    weight, bias, found = fit_regression(features, [example.labels[0] for example in rows])
    places = [data.labels.index(label) for label in found]
    all_weights = np.zeros((len(data.labels), features.shape[1]), np.float32)
    all_biases = np.full(len(data.labels), -np.inf, np.float32)
    all_weights[places], all_biases[places] = weight, bias
    return Probe(all_weights, all_biases, len(rows))


def score_probe(frozen: Frozen, probe: Probe, task: int, data: TaskData, rows: Sequence[Example]) -> ProbeScore | None:
    """Score the forced choice on the rows in scope, at most MOST_ROWS of them. None where there are none."""
    from sklearn.metrics import f1_score  # noqa: PLC0415  (takes seconds)

    scope = data.task.out_of_scope.label if data.task.out_of_scope else None
    inner = [example for example in rows if example.labels[0] != scope]
    if not inner:
        return None
    drawn = draw_rows([example.labels[0] for example in inner], MOST_ROWS, frozen.run.recipe.data_seed)
    asked = [inner[at] for at in drawn]
    logits = frozen.embed(task, asked) @ probe.weight.T + probe.bias
    if scope in data.labels:
        logits[:, data.labels.index(scope)] = -np.inf
    truth, guess = [example.labels[0] for example in asked], [data.labels[best] for best in logits.argmax(1)]
    accuracy = float(np.mean([a == b for a, b in zip(guess, truth, strict=True)]))
    macro_f1 = float(f1_score(truth, guess, average="macro", zero_division=0))
    return ProbeScore(rows=len(asked), accuracy=accuracy, macro_f1=macro_f1, sha256=digest_rows(rows))


def draw_rows(labels: Sequence[Hashable], count: int, seed: int) -> list[int]:
    """Draw at most `count` rows, each label in proportion and, where there are no more than `count`, at least once."""
    by_label: dict[Hashable, list[int]] = defaultdict(list)
    for row in random.Random(seed).sample(range(len(labels)), len(labels)):
        by_label[labels[row]].append(row)
    ranked = sorted((rank / len(rows), row) for rows in by_label.values() for rank, row in enumerate(rows))
    return sorted(row for _, row in ranked[:count])

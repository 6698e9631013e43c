"""Logistic regression on the frozen encoder: what the score of a task is held against.

The encoder is the one that training begins with, pooled as the network pools; nothing of it is trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...compute.failures import memory_of
from ...data.example import Example, digest_rows
from ...prepare.data_report import TEST, ProbeReport, ProbeScore
from ...prepare.tasks import TaskData, originals
from ..setup import Fitting
from ..start.few_rows import reason_against
from .frozen import MOST_ROWS, Frozen, draw_rows
from .further_kinds import probe_further
from .regression import fit_regression

Array = NDArray[Any]


@dataclass(frozen=True)
class Probe:
    """A linear head [C, H] and [C] on the mean of the last layer. `rows` are those that it was fitted on.

    A label without training rows has the bias -inf.
    """

    weight: Array
    bias: Array
    rows: int


@memory_of("probe on the frozen encoder", "lower max_tokens, or set `probe: false`")
def probe_tasks(run: Fitting) -> dict[str, Probe]:
    """Fit a probe for each task that can have one, and put its scores, or why there is none, into `run.data`.

    Returned are those of classifications, from which heads may begin.
    """
    reasons = {data.name: reason_against(run.recipe, data) or _reason_of_sets(run, data) for data in run.tasks}
    frozen = None if all(reasons.values()) else Frozen.of_run(run)
    probes: dict[str, Probe] = {}
    for at, data in enumerate(run.tasks):
        report = ProbeReport(reason=reasons[data.name])
        if frozen is not None and not report.reason and (data.kind.per_token or data.kind.several):
            report = probe_further(frozen, at, data, _sets(data))
        elif frozen is not None and not report.reason:
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

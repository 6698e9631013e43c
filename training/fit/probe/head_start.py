"""What learning begins from: a head of few rows from logistic regression on the frozen encoder, then all is trained (Kumar et al.
2022), and what teachers answer.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from ..setup import Fitting, learn_from_teachers
from .probe import Probe


def begin_learning(run: Fitting, probes: Mapping[str, Probe], answers: Path | None = None) -> None:
    """Set what the run begins from; teachers' answers are kept in the run's folder, or in `answers`."""
    begin_heads(run, probes)
    learn_from_teachers(run, answers)


def begin_heads(run: Fitting, probes: Mapping[str, Probe]) -> None:
    """Set the heads of `run.few` to their probes. A label without training rows keeps its row as it was drawn."""
    for name, head in zip(run.model.names, run.model.heads, strict=True):
        if name not in run.few or name not in probes:
            continue
        probe = probes[name]
        rows = np.isfinite(probe.bias).nonzero()[0].tolist()
        with torch.no_grad():
            head.weight[rows] = torch.from_numpy(probe.weight[rows])
            head.bias[rows] = torch.from_numpy(probe.bias[rows])
        report = run.data[name]
        assert report.probe is not None
        run.data[name] = report.model_copy(update={"probe": report.probe.model_copy(update={"begins": True})})

"""What a study has found: its trials as records, the best of them, and the recipe of each written out. Pure but for writing."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from statistics import mean
from typing import Any, Final, Literal

import yaml

from ..recipe.keys.tune import Tune
from ..run_folders.os_errors import write_text
from ..run_folders.run_folder import count_steps
from .space import Space, Values

BEST: Final = "best.yaml"
RESULT: Final = "tune.json"
MOST_RECIPES: Final = 20
"""Of a Pareto front, written out."""
State = Literal["complete", "pruned", "failed", "died", "running"]


@dataclass(frozen=True)
class Trial:
    """One trial. `values` are its objectives, of a pruned one those that it had when it was ended."""

    number: int
    state: State
    params: dict[str, Any]
    values: list[float]
    error: str = ""
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    steps: int = 0
    cpu_seconds: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Result:
    """All trials of a study by number, those on the front (with one objective: the best one), and what mattered."""

    name: str
    objectives: list[str]
    trials: list[Trial]
    front: list[Trial]
    importances: dict[str, dict[str, float]]
    """By objective and key, the share of the variance that it explains; empty where too few trials have ended."""

    @property
    def best(self) -> Trial | None:
        """The trial with the highest mean of the objectives on the front."""
        return max(self.front, key=lambda each: (mean(each.values), -each.number), default=None)

    @property
    def complete(self) -> list[Trial]:
        return [each for each in self.trials if each.state == "complete"]


def find_front(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that no other is better than in one objective and as good in all; of equals the first."""
    complete = [each for each in trials if each.state == "complete"]
    front: list[Trial] = []
    for each in complete:
        if not any(_dominates(other.values, each.values) for other in complete) and each.values not in [
            other.values for other in front
        ]:
            front.append(each)
    return front


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True)) and any(a > b for a, b in zip(one, other, strict=True))


def describe_values(values: Values) -> str:
    """Return the values of a trial in a line, keys by their last part where that tells them apart."""
    short = {key: key.rpartition(".")[2] for key in values}
    names = list(short.values())
    shown = {key: name if names.count(name) == 1 else key for key, name in short.items()}
    return ", ".join(f"{shown[key]} {show(value)}" for key, value in values.items())


def show(value: Any) -> str:
    """Return a value as people read it."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return "none" if value is None else str(value)


def describe_scores(trial: Trial) -> str:
    """Return the validation figures of a trial in a line."""
    figures = ((task, name, value) for task, found in trial.scores.items() for name, value in found.items())
    return ", ".join(f"{task} {name} {value:.4f}" for task, name, value in figures if isfinite(value))


def write_recipe(path: Path, space: Space, trial: Trial, result: Result) -> None:
    """Write the recipe of a trial, as `murmura train` takes it, with the trial's figures in a comment."""
    reached = ", ".join(f"{name} {value:.6f}" for name, value in zip(result.objectives, trial.values, strict=True))
    head = [
        f"Trial {trial.number} of {len(result.trials)} of the study {result.name} (murmura tune).",
        f"On validation: {reached}.",
        describe_scores(trial),
        f"{count_steps(trial.steps)} in {trial.cpu_seconds:.0f} CPU-seconds.",
        f"Found: {describe_values(trial.params)}.",
    ]
    text = "".join(f"# {line}\n" for line in head if line)
    document = yaml.safe_dump(space.apply(trial.params), sort_keys=False, allow_unicode=True, width=110)
    replace_text(path, text + document)


def write_results(out: Path, space: Space, result: Result) -> list[Path]:
    """Write `tune.json` and the recipes of the front; `best.yaml` is that of the best trial. Return the recipes."""
    stands = {**asdict(result), "best": result.best.number if result.best else None}
    stands["front"] = [each.number for each in result.front]
    replace_text(out / RESULT, json.dumps(stands, indent=2, allow_nan=False, default=str) + "\n")
    if (best := result.best) is None:
        return []
    write_recipe(out / BEST, space, best, result)
    written = [out / BEST]
    for each in result.front[:MOST_RECIPES] if len(result.objectives) > 1 else ():
        written.append(out / f"trial-{each.number}.yaml")
        write_recipe(written[-1], space, each, result)
    return written


def rank_trials(result: Result) -> list[Trial]:
    """Return the trials, the best ones first, then those that were ended, the latest figures first, then the others."""
    order = {"complete": 0, "pruned": 1, "running": 2, "failed": 3, "died": 4}
    front = {each.number for each in result.front}

    def rank(each: Trial) -> tuple[int, bool, float, int]:
        value = mean(each.values) if each.values else 0.0
        return order[each.state], each.number not in front, -value, each.number

    return sorted(result.trials, key=rank)


def describe_pruning(tune: Tune, objectives: Sequence[str]) -> str:
    """Return how trials are ended early, in words."""
    if (tune.pruning or "median") == "none" or len(objectives) > 1:
        return "none is ended early"
    if tune.pruning == "halving":
        return "ended early where a trial is in the lower half of those that came as far (successive halving)"
    return "ended early where a trial is worse at a scoring than half of those before it (median)"


def replace_text(path: Path, text: str) -> None:
    """Write a file that is whole at any time."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # other processes of the study write it, too
    write_text(part, text)
    part.replace(path)

"""Trainings beside the candidate's, by which the gate judges it: without the corrections (placebo), and with other seeds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from ..export.export import export
from ..mix.write import RECIPE
from ..run_folders.os_errors import write_text

Train = Callable[[Path, Path, Path], Any]
"""Trains by a recipe on the data of a folder into a run folder, or resumes."""


def placebo_of(folder: Path) -> Path:
    """Return the model folder of the placebo."""
    return folder / "placebo" / "model"


def candidate_of(folder: Path, seed: int) -> Path:
    """Return the model folder of the candidate with another seed."""
    return folder / f"seed-{seed}" / "model"


class Trainings:
    """Trains and exports each model in a folder of its own. One that is exported is not trained again."""

    def __init__(self, folder: Path, train: Train) -> None:
        self._folder, self._train = folder, train
        self.made: list[str] = []
        """What there is, in words."""

    def add_placebo(self, write_rows: Callable[[Path], Any]) -> None:
        """Train on the rows that `write_rows(folder)` writes with their recipe."""
        model = placebo_of(self._folder)
        if not model.is_dir():
            rows = model.with_name("mix")
            rows.mkdir(parents=True, exist_ok=True)
            write_rows(rows)
            _change(rows / RECIPE, rows / RECIPE, {})
            self._make(rows / RECIPE, rows, model)
        self.made.append("a placebo without the corrections")

    def add_seed(self, recipe: Path, data: Path, seed: int) -> None:
        """Train by a recipe with another seed."""
        model = candidate_of(self._folder, seed)
        if not model.is_dir():
            model.parent.mkdir(parents=True, exist_ok=True)
            changed = model.with_name(RECIPE)
            _change(recipe, changed, {"seed": seed})
            self._make(changed, data, model)
        self.made.append(f"the candidate with seed {seed}")

    def _make(self, recipe: Path, data: Path, model: Path) -> None:
        run = model.with_name("run")
        self._train(recipe, data, run)
        export(run, model)


def _change(recipe: Path, into: Path, keys: dict[str, Any]) -> None:
    """Write a recipe with other keys; without `report`, as nobody reads what these trainings say of their rows."""
    document = yaml.safe_load(recipe.read_text(encoding="utf-8")) | keys
    document.pop("report", None)
    write_text(into, yaml.safe_dump(document, sort_keys=False, allow_unicode=True))

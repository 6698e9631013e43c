"""Gathers what the page shows: the model's manifest, its scores, and what is left of its training."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from ...schemas.manifest import ModelManifest
from ..prepare.data_report import TaskReport
from ..recipe.recipe import Recipe
from ..run_folders.curves import STEP, Entry, read_curves
from ..run_folders.label_errors import LabelErrors, read_label_errors
from ..run_folders.run_folder import PRETRAIN, RECIPE, RECORD, WEIGHTS, RunRecord, run_beside
from ..run_folders.smaller import Compared, read_comparison
from .made import Made, read_recipe
from .markdown import Scores
from .plots import Plot, Series

_MOST_HEADER_BYTES: Final = 16 * 2**20


@dataclass(frozen=True)
class PageData:
    """All that the sections read. What is not known is None or empty: a model may be evaluated without its run."""

    manifest: ModelManifest
    scores: Scores
    description: str = ""
    recipe: str = ""
    """The text of the recipe."""
    record: RunRecord | None = None
    curves: list[Entry] = field(default_factory=list)
    settings: Recipe | None = None
    """The recipe, read."""
    pretraining: list[Entry] = field(default_factory=list)
    """The curves of the stage `pretrain`."""
    smaller: Compared | None = None
    """How a smaller model compares with its teacher."""
    parameters: int | None = None
    """Of the encoder and all heads."""
    trained: int | None = None
    """Parameters that the run's checkpoint keeps: with low-rank factors far fewer."""
    ranks: Mapping[str, int] = field(default_factory=dict)
    """Of the factors that the run's checkpoint keeps, by the weight of the encoder."""
    label_errors: Mapping[str, LabelErrors] = field(default_factory=dict)
    """Labels of training rows that are probably wrong, by task, where the run looked for them."""
    with_texts: bool = False
    """Whether the page may show what rows say: their texts and the values of their columns."""

    drawings: dict[str, Plot] = field(default_factory=dict)
    """By name: the same in a page with texts and in one without."""

    def draw(self, name: str, make: Callable[[], Plot]) -> Plot:
        """Return the drawing of this name, which is made once."""
        if name not in self.drawings:
            self.drawings[name] = make()
        return self.drawings[name]

    def series(self, prefix: str, curves: Sequence[Entry] | None = None) -> list[Series]:
        """Return the curves of training (or these) whose names begin so, under the rest of their names."""
        curves = self.curves if curves is None else curves
        names = dict.fromkeys(name for entry in curves for name in entry if name.startswith(prefix))
        found = []
        for name in names:
            points = [(entry[STEP], entry[name]) for entry in curves if name in entry]
            found.append(Series(name.removeprefix(prefix), [x for x, _ in points], [y for _, y in points]))
        return found

    @property
    def made(self) -> Made:
        """How the model was made."""
        return Made(self.manifest, self.settings, self.record)

    @property
    def data(self) -> Mapping[str, TaskReport]:
        """What training read, by task."""
        return {name: TaskReport.model_validate(found) for name, found in self.manifest.data.items()}


def gather(folder: Path, manifest: ModelManifest, scores: Scores, description: str, run: Path | None) -> PageData:
    """Return the data of a page without texts. `run` is the folder of the training that made the model."""
    recipe, trained = folder / RECIPE, manifest.path_of("training")
    return PageData(
        manifest=manifest,
        scores=scores,
        description=description.strip(),
        recipe=recipe.read_text(encoding="utf-8") if recipe.is_file() else "",
        settings=read_recipe(folder),
        record=read_record(run) if run is not None else None,
        curves=read_curves(run) if run is not None else [],
        pretraining=read_curves(run / PRETRAIN) if run is not None else [],
        label_errors=read_label_errors(run) if run is not None else {},
        smaller=read_comparison(run) if run is not None else None,
        parameters=count_parameters(folder / trained) if trained is not None else None,
        trained=count_parameters(run / WEIGHTS) if run is not None else None,
        ranks=read_ranks(run / WEIGHTS) if run is not None else {},
    )


def find_run(folder: Path, manifest: ModelManifest) -> Path | None:
    """Return the run folder beside a model folder, FOLDER.run, where the model was made from it; else None."""
    run = run_beside(folder.resolve())
    record = read_record(run)
    same = record is not None and (record.name, record.recipe_sha256) == (manifest.name, manifest.recipe)
    return run if same else None


def read_record(run: Path) -> RunRecord | None:
    """Return the record of a run; None where there is none of this version."""
    try:
        return RunRecord.model_validate_json((run / RECORD).read_bytes())
    except (OSError, ValidationError):
        return None


def count_parameters(file: Path) -> int | None:
    """Return the number of values in a safetensors file, from its header alone; None where there is none."""
    header = _read_header(file)
    shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
    return sum(prod(shape) for shape in shapes) if header else None


def read_ranks(file: Path) -> dict[str, int]:
    """Return the ranks of the factors of the encoder's weights in a safetensors file, from its header alone."""
    factors = {name.split("/")[1]: entry for name, entry in _read_header(file).items() if _is_factor(name)}
    return {name: entry["shape"][0] for name, entry in factors.items()}


def _is_factor(name: str) -> bool:
    return name.startswith("low_rank/encoder.layer.") and name.endswith("/a")


def _read_header(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            found = json.loads(opened.read(size)) if size <= _MOST_HEADER_BYTES else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}

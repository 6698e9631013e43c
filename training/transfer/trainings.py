"""One training of a comparison: trained, exported and asked. What it leaves is small, and it is not taken twice.

Its folder has the run (curves and record, without the checkpoint), `answers.safetensors`, the model where it is kept, and `done.json`, which is written last.
A training that was killed goes on where its state was last saved.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.numpy import load_file, save_file
from tokenizers import Encoding

from ...runtime.errors import SetupError
from ...runtime.model.model import Model
from ...schemas.manifest import Sha256, TaskSpec
from ..data.example import Example, digest_rows
from ..evaluate.evaluate import answers as ask
from ..export.export import export
from ..fit.loop import fit
from ..kinds.answers import Answer
from ..report.page_data import count_parameters
from ..run_folders.curves import Entry, read_curves
from ..run_folders.os_errors import as_os_error, write_text
from ..run_folders.run_folder import RECIPE, STATE, WEIGHTS, digest
from .plan import Document, Training

DONE: Final = "done.json"
ANSWERS: Final = "answers.safetensors"
RUN: Final = "run"
MODEL: Final = "model"


@dataclass(frozen=True)
class AskedSet:
    """The rows that the models of one task answer. `scope` is the label that means none of the others."""

    name: str
    examples: list[Example]
    scope: str | None
    group: str
    """Column whose equal values make one conversation."""


class AnswersOfTask(BaseModel):
    """What a model answered to a set, in the order of its rows; logits of texts lie beside it."""

    set: str
    rows_sha256: Sha256
    spec: TaskSpec
    outputs: list[dict[str, Any]]


class Taken(BaseModel):
    """`done.json`: a training that has come to its end."""

    model_config = ConfigDict(frozen=True)

    recipe_sha256: Sha256
    cpu_seconds: float
    parameters: int
    steps: int
    answers: dict[str, AnswersOfTask]
    data_files: dict[str, Sha256]
    model_kept: bool = False


def take(
    training: Training,
    document: Document,
    data: Path,
    folder: Path,
    sets: Mapping[str, AskedSet],
    *,
    quiet: bool,
    print_line: Callable[[str], None],
    keep_model: bool = False,
) -> Taken:
    """Train, export and ask, or return what is there. SetupError where the folder belongs to another recipe or other rows, or
    has no model that should be kept.
    """
    recipe = folder / RECIPE
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    if recipe.is_file() and recipe.read_text(encoding="utf-8") != text:
        raise SetupError(f"{recipe}: a training of another recipe; give --out another folder, or remove {folder}")
    if (taken := read_taken(folder)) is not None:
        _refuse_other_rows(folder, taken, sets)
        if keep_model and not taken.model_kept:
            raise SetupError(f"{folder}: its model was not kept; remove the folder to train it again")
        return taken
    folder.mkdir(parents=True, exist_ok=True)
    write_text(recipe, text)
    record = fit(recipe, data, folder / RUN, seed=training.seed, quiet=quiet, resume=True, print_line=print_line)
    model_folder = folder / MODEL
    manifest = export(folder / RUN, model_folder)
    weights = manifest.path_of("training")
    parameters = count_parameters(model_folder / weights) if weights is not None else None
    found = _ask_all(Model.load(model_folder, device="auto"), sets, folder)
    taken = Taken(
        recipe_sha256=digest(recipe),
        cpu_seconds=record.cpu_seconds,
        parameters=parameters or 0,
        steps=record.steps,
        answers=found,
        data_files=record.data_files,
        model_kept=keep_model,
    )
    draft = folder / f"{DONE}.part"
    write_text(draft, taken.model_dump_json())
    draft.replace(folder / DONE)
    _tidy(folder, taken)
    return taken


def read_taken(folder: Path) -> Taken | None:
    """Return what a training left; None where it has not come to its end."""
    try:
        found = Taken.model_validate_json((folder / DONE).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise SetupError(f"{folder / DONE}: not what a training left: {first['msg']}; remove {folder}") from None
    _tidy(folder, found)
    return found


def was_begun(folder: Path) -> bool:
    """Return whether a training can go on where it was killed."""
    return (folder / RUN / STATE).is_file() or (folder / RUN / WEIGHTS).is_file()


def curves_of(folder: Path) -> list[Entry]:
    """Return the curves of a training."""
    return read_curves(folder / RUN)


def answers_of(folder: Path, taken: Taken, task: str, asked: AskedSet) -> list[Answer]:
    """Return what the model of a training answered, by row."""
    found, logits = taken.answers[task], load_file(folder / ANSWERS)
    by_row = logits.get(task, np.empty((len(asked.examples), 0), np.float32))
    rows = zip(asked.examples, found.outputs, by_row, strict=True)
    return [Answer(example, Encoding(), output, each) for example, output, each in rows]


def _ask_all(model: Model, sets: Mapping[str, AskedSet], folder: Path) -> dict[str, AnswersOfTask]:
    logits: dict[str, NDArray[Any]] = {}
    found: dict[str, AnswersOfTask] = {}
    for name, spec in model.tasks.items():
        asked = sets[name]
        by_row = _ask(model, spec, asked.examples)
        found[name] = AnswersOfTask(
            set=asked.name,
            rows_sha256=digest_rows(asked.examples),
            spec=spec,
            outputs=[json.loads(json.dumps(each.output)) for each in by_row],
        )
        if by_row[0].logits.ndim == 1:
            logits[name] = np.stack([each.logits for each in by_row]).astype(np.float32)
    with as_os_error(folder / ANSWERS):
        save_file(logits, folder / ANSWERS)
    return found


def _ask(model: Model, spec: TaskSpec, examples: Sequence[Example]) -> list[Answer]:
    """Return the answers in the order of the rows."""
    places = {id(example): at for at, example in enumerate(examples)}
    found = {places[id(each.example)]: each.without_tokens() for each in ask(model, spec, examples)}
    return [found[at] for at in range(len(examples))]


def _refuse_other_rows(folder: Path, taken: Taken, sets: Mapping[str, AskedSet]) -> None:
    for name, found in taken.answers.items():
        if found.rows_sha256 != digest_rows(sets[name].examples):
            raise SetupError(
                f"{folder / DONE}: task {name} answered other rows than those of {found.set} now; remove {folder}"
            )


def _tidy(folder: Path, taken: Taken) -> None:
    """Remove the checkpoint, and the model unless it is kept: nothing needs them any more."""
    if not taken.model_kept:
        shutil.rmtree(folder / MODEL, ignore_errors=True)
    (folder / RUN / WEIGHTS).unlink(missing_ok=True)

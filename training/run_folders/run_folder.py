"""What `fit` leaves for `export`: the best checkpoint with everything that was decided on the way.

A run begins in a folder without a checkpoint and a record of an earlier one. The record is written last and holds the
SHA-256 of the files that it belongs to, so that files of two runs cannot be exported as one.
"""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from ...runtime.errors import SetupError
from ...runtime.model.inputs import TextPair
from ...schemas.manifest import MANIFEST_NAME, EncoderSpec, Sha256, TaskSpec
from ..prepare.data_report import TaskReport
from .curves import CURVES
from .label_errors import LABEL_ERRORS
from .os_errors import as_os_error, save_tokenizer, write_bytes, write_text
from .provenance import Environment

WEIGHTS: Final = "checkpoint.safetensors"
RECORD: Final = "run.json"
RECIPE: Final = "recipe.yaml"
TOKENIZER: Final = "tokenizer.json"
TENSORBOARD: Final = "tensorboard"
PAIRS: Final = "validation_pairs.json"
"""Of tasks that generate: what the export compares replies on. Absent where there is none."""
PAGE: Final = "report.html"
"""The report with texts of rows; `murmura evaluate` writes it anew."""
STATE: Final = "state.safetensors"
"""Only while a run is under way, or after it was interrupted."""
SECOND_STAGE: Final = "second_stage.safetensors"
"""The same of a second stage, beside the state of the run, which is that of its end."""
PRETRAIN: Final = "pretrain"
"""The folder of the stage `pretrain`, itself a run."""
SMALLER: Final = "smaller"
"""The folder of the stage `smaller`: the teacher with fewer or narrower layers."""
COMPARED: Final = "compared_with_teacher.json"
"""How a smaller model compares with its teacher; `murmura evaluate` writes it."""
TEACHERS: Final = "teachers"
"""The folder of what teachers answer to the training rows."""
PRETRAINED: Final = "pretrained"
"""The encoder that this stage leaves."""
DIGESTED: Final = (WEIGHTS, TOKENIZER, RECIPE)
FAILED_STEP: Final = "failed_step.json"
"""The rows of a step whose loss is not finite."""
_STATES: Final = (STATE, SECOND_STAGE, f"{STATE}.part", f"{SECOND_STAGE}.part")
Weights = dict[str, NDArray[Any]]


class PhaseRecord(BaseModel):
    """How a phase of a training went. `validation` holds the metrics of all tasks at its best step."""

    name: str
    tasks: list[str]
    """Those that it taught; the others were held to their answers."""
    steps: int
    best_step: int
    validation: dict[str, dict[str, float]]
    rows_read: dict[str, int] = {}
    """Rows of each task that its steps read. Empty in records of earlier versions."""


class TrainedCount(BaseModel):
    """How many numbers a training changes: in the encoder, or around it by a method, and in the heads."""

    model_config = ConfigDict(frozen=True)

    encoder: int
    heads: int


class TeacherRecord(BaseModel):
    """The folder of a teacher, and the SHA-256 of the file with what it learned."""

    model_config = ConfigDict(frozen=True)

    folder: str
    sha256: Sha256


class SmallerRecord(BaseModel):
    """The layers of the teacher, from 0, that a student began as, `of` so many, and the neurons of each feed-forward part."""

    model_config = ConfigDict(frozen=True)

    teacher: TeacherRecord
    layers: list[int]
    of: int
    neurons: int | None = None
    of_neurons: int | None = None
    """None where all of them stayed."""


class RunRecord(BaseModel):
    """`run.json`: what was trained and how it went. Records of earlier versions have further fields."""

    model_config = ConfigDict(frozen=True)

    name: str
    encoder: EncoderSpec
    encoder_folder: str = ""
    """Where the encoder lay when it was named by a folder."""
    tasks: list[TaskSpec]
    max_tokens: int
    pooled: bool = False
    """Whether the graphs get the pooled output."""
    pooled_layers: list[int] = []
    """Layers that it is made of, by the weights `heads.pooled`; without any it is the mean of the last."""
    recipe_sha256: str
    attribution: str = ""
    low_rank: bool = False
    """The checkpoint holds factors and heads only; the encoder's own weights are those of its source."""
    seed: int
    steps: int
    """Steps taken."""
    planned_steps: int | None = None
    """Steps that the budget allows; more than `steps` after an early end. None in records of earlier versions."""
    interrupted: bool = False
    """The run was ended before its plan and its patience were at their end."""
    best_step: int
    cpu_seconds: float
    validation: dict[str, dict[str, float]]
    phases: list[PhaseRecord] = []
    """How the phases of the training went, in their order; empty where it had none."""
    rows_read: dict[str, int] = {}
    """Rows of each task that the steps read, those of all phases together. Empty in records of earlier versions."""
    trained: TrainedCount | None = None
    """Of the training as it begins; what a phase freezes is not left out. None in records of earlier versions."""
    data: dict[str, TaskReport] = {}
    """What was read, by task. Empty in records of earlier versions."""
    grown: dict[str, dict[str, str]] = {}
    """Labels that the model before did not have, by task, and what their rows of the head began from."""
    environment: Environment | None = None
    """None in records of earlier versions."""
    pretraining: dict[str, Any] | None = None
    """`pretraining.json` of the encoder, where it was pre-trained here."""
    teachers: dict[str, TeacherRecord] = {}
    """By task the model whose answers it learned."""
    smaller: SmallerRecord | None = None
    """Where a smaller model began; None for others."""
    data_files: dict[str, Sha256] = {}
    """SHA-256 of the data files, by their paths in the recipe."""
    files: dict[str, Sha256] = {}
    """SHA-256 of checkpoint, tokenizer and recipe, by file name. Empty in records of earlier versions."""

    @property
    def teacher_folders(self) -> list[str]:
        """The folders of the models whose answers were learned."""
        smaller = [self.smaller.teacher] if self.smaller is not None else []
        return [teacher.folder for teacher in (*smaller, *self.teachers.values())]


@dataclass
class RunFolder:
    """A folder `run.json`, `checkpoint.safetensors`, `tokenizer.json`, `recipe.yaml`, `tensorboard/`."""

    path: Path

    def find_problems(self) -> Iterator[str]:
        """Yield why no run can begin here."""
        if self.path.exists() and not self.path.is_dir():
            yield f"{self.path}: a file, expected a folder for the run; give --run another one"
        elif self.path.exists() and any(self.path.iterdir()) and not self._is_run():
            yield f"{self.path}: not empty and not a run of ours; give --run another folder"

    def _is_run(self) -> bool:
        """True also where a run was interrupted in or after a stage that comes before it; false for a model folder, which has
        a recipe, too.
        """
        staged = (PRETRAIN, RECIPE), (SMALLER, MANIFEST_NAME)
        if (self.path / MANIFEST_NAME).is_file():
            return False
        return (self.path / RECIPE).is_file() or any((self.path / folder / name).is_file() for folder, name in staged)

    def begin(self, recipe: Path, tokenizer: Tokenizer, *, staged: bool = False) -> None:
        """Make the folder and remove what an earlier run left in it, but `staged` for a stage before it, which has been.

        SetupError when it holds anything but a run.
        """
        for problem in self.find_problems():
            raise SetupError(problem)
        self.path.mkdir(parents=True, exist_ok=True)
        # The record goes first: what a crash leaves of the rest cannot be exported without it.
        for name in (
            RECORD,
            WEIGHTS,
            PAIRS,
            CURVES,
            PAGE,
            LABEL_ERRORS,
            COMPARED,
            FAILED_STEP,
            *_STATES,
            f"{WEIGHTS}.part",
        ):
            (self.path / name).unlink(missing_ok=True)
        for name in (TENSORBOARD, TEACHERS, *(() if staged else (PRETRAIN, PRETRAINED, SMALLER))):
            shutil.rmtree(self.path / name, ignore_errors=True)
        write_bytes(self.path / RECIPE, recipe.read_bytes())
        save_tokenizer(tokenizer, self.path / TOKENIZER)

    def phase_start(self, number: int) -> Path:
        """Return where the weights lie that a phase began from, while it is under way."""
        return self.path / f"phase-{number}.safetensors"

    def phase_end(self, number: int) -> Path:
        """Return where the best weights of a phase lie, from before it is decided whether they are kept until the run has ended."""
        return self.path / f"phase-{number}-end.safetensors"

    def put(self, source: Path, into: Path) -> None:
        """Copy weights of this folder; a crash half-way leaves what was there before."""
        draft = into.with_name(f"{into.name}.part")
        shutil.copyfile(source, draft)
        draft.replace(into)

    def remove_phase_starts(self, but: int | None = None) -> None:
        """Remove the weights that phases began from, but those of one."""
        for path in self.path.glob("phase-*.safetensors*"):
            if but is None or path != self.phase_start(but):
                path.unlink()

    def remove_state(self) -> None:
        """Remove what a run goes on from: it has come to its end."""
        for name in (FAILED_STEP, *_STATES):
            (self.path / name).unlink(missing_ok=True)
        self.remove_phase_starts()

    @property
    def recipe_sha256(self) -> str:
        """The SHA-256 of the recipe as it was when the run began."""
        return digest(self.path / RECIPE)

    def save_weights(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Write the checkpoint; a crash half-way leaves the one before."""
        self._draft_weights(weights).replace(self.path / WEIGHTS)

    def _draft_weights(self, weights: Mapping[str, NDArray[Any]]) -> Path:
        draft = self._weights_draft
        with as_os_error(draft):
            save_file({name: np.ascontiguousarray(array) for name, array in weights.items()}, draft)
        draft.chmod(0o644)  # safetensors writes for the owner alone
        return draft

    @property
    def _weights_draft(self) -> Path:
        return self.path / f"{WEIGHTS}.part"

    def save_record(self, record: RunRecord, weights: Mapping[str, NDArray[Any]] | None = None) -> RunRecord:
        """Write `run.json` with the digests of the files that it belongs to, and return it as written.

        With `weights` these replace the checkpoint. A crash leaves both as they were, or the record, which completes the
        exchange when it is read.
        """
        digests = {name: digest(self.path / name) for name in DIGESTED}
        if weights is not None:
            digests[WEIGHTS] = digest(self._draft_weights(weights))
        written = record.model_copy(update={"files": digests})
        draft = self.path / f"{RECORD}.part"
        write_text(draft, written.model_dump_json(indent=2) + "\n")
        draft.replace(self.path / RECORD)
        if weights is not None:
            self._weights_draft.replace(self.path / WEIGHTS)
        return written

    def record(self) -> RunRecord:
        """Read `run.json`. SetupError when the training has not come to its end, or for files of another run."""
        file = self.path / RECORD
        if not file.is_file() and (self.path / STATE).is_file():
            raise SetupError(
                f"{self.path}: the run was interrupted; `murmura train --resume` goes on with it, `--finish` exports it as "
                "far as it got"
            )
        if not file.is_file():
            raise SetupError(f"{self.path}: no {RECORD}; expected the folder of a finished `murmura train`")
        try:
            record = RunRecord.model_validate_json(file.read_bytes())
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(str(part) for part in first["loc"]) or "the whole"
            raise SetupError(f"{file}: not the record of a run: {field}: {first['msg']}; train again") from None
        self._finish_exchange(record)
        self._refuse_other_files(record)
        return record

    def _finish_exchange(self, record: RunRecord) -> None:
        """Put the weights of a record in their place where a crash came between the two."""
        draft, expected = self._weights_draft, record.files.get(WEIGHTS)
        if draft.is_file() and expected == digest(draft):
            draft.replace(self.path / WEIGHTS)

    def _refuse_other_files(self, record: RunRecord) -> None:
        for name, expected in (record.files or {RECIPE: record.recipe_sha256}).items():
            path = self.path / name
            if not path.is_file():
                raise SetupError(f"{path}: is missing, {RECORD} names it; train again")
            if digest(path) != expected:
                raise SetupError(f"{path}: not the file that {RECORD} belongs to (SHA-256 differs); train again")

    def save_pairs(self, pairs: Mapping[str, Sequence[TextPair]]) -> None:
        """Write the validation rows of tasks that generate, by task."""
        rows = {name: [each[:2] for each in found] for name, found in pairs.items()}
        write_text(self.path / PAIRS, json.dumps(rows, ensure_ascii=False))

    def pairs(self) -> dict[str, list[TextPair]]:
        """Return the validation rows of tasks that generate, by task."""
        file = self.path / PAIRS
        rows = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        return {name: [TextPair(*each) for each in found] for name, found in rows.items()}

    def weights(self) -> Weights:
        return dict(load_file(self.path / WEIGHTS))

    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_file(str(self.path / TOKENIZER))


def run_beside(out: Path) -> Path:
    """Return the run folder of a model folder where none is named: OUT.run."""
    named = out if out.name not in {"", ".."} else out.resolve()
    return named.with_name(f"{named.name}.run")


def count_steps(steps: int) -> str:
    """Return a number of steps in words."""
    return f"{steps:,} step{'' if steps == 1 else 's'}"


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()

"""What `fit` leaves for `export`: the best checkpoint with everything that was decided on the way."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from ..runtime.errors import SetupError
from ..schemas.manifest import EncoderSpec, TaskSpec

WEIGHTS: Final = "checkpoint.safetensors"
RECORD: Final = "run.json"
Weights = dict[str, NDArray[Any]]


class RunRecord(BaseModel):
    """`run.json`: what was trained and how it went."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    encoder: EncoderSpec
    encoder_folder: str = ""
    """Where the encoder lay when it was named by a folder."""
    tasks: list[TaskSpec]
    max_tokens: int
    recipe_sha256: str
    attribution: str = ""
    low_rank: bool = False
    """The checkpoint holds factors and heads only; the encoder's own weights are those of its source."""
    seed: int
    steps: int
    best_step: int
    cpu_seconds: float
    validation: dict[str, dict[str, float]]
    overlap: dict[str, int]
    unknown: dict[str, float]
    grown: dict[str, dict[str, str]] = {}
    """Labels that the model before did not have, by task, and what their rows of the head began from."""


@dataclass
class RunFolder:
    """A folder `run.json`, `checkpoint.safetensors`, `tokenizer.json`, `recipe.yaml`, `tensorboard/`."""

    path: Path

    def begin(self, recipe: Path, tokenizer: Tokenizer) -> None:
        """Make the folder. An earlier run in it is overwritten, but only when it is one of ours."""
        if self.path.exists() and any(self.path.iterdir()) and not (self.path / "recipe.yaml").is_file():
            raise SetupError(f"{self.path}: not empty and not a run of ours; give --out another folder")
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "recipe.yaml").write_bytes(recipe.read_bytes())
        tokenizer.save(str(self.path / "tokenizer.json"))

    def save_weights(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Write the checkpoint; a crash half-way leaves the one before."""
        draft = self.path / f"{WEIGHTS}.part"
        save_file({name: np.ascontiguousarray(array) for name, array in weights.items()}, draft)
        draft.chmod(0o644)  # safetensors writes for the owner alone
        draft.replace(self.path / WEIGHTS)

    def save_record(self, record: RunRecord) -> None:
        (self.path / RECORD).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def record(self) -> RunRecord:
        """Read `run.json`; SetupError when the training has not come to its end."""
        file = self.path / RECORD
        if not file.is_file():
            raise SetupError(f"{self.path}: no {RECORD}; expected the folder of a finished `murmura train`")
        return RunRecord.model_validate_json(file.read_bytes())

    def weights(self) -> Weights:
        return dict(load_file(self.path / WEIGHTS))

    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_file(str(self.path / "tokenizer.json"))

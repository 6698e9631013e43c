"""Day zero: examples of labels that the current version does not know, or not well, as a data set to retrain on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ...runtime.errors import SetupError
from ...runtime.wire.feedback import known_labels
from ...schemas.manifest import ModelManifest, TaskSpec
from ..kinds.registry import kind_of
from ..prepare.few_examples import read_sound
from ..prepare.tasks import divide
from ..recipe.keys.reading import Source
from ..recipe.keys.tasks import Task
from .corrections import HELDOUT, TRAIN, write_rows

LEAST_HELD_OUT: Final = 6
"""Fewer right answers to new labels prove nothing: the sign test of six has p = 1/64."""


def write_examples(files: Mapping[str, Path], manifest: ModelManifest, folder: Path, heldout: float) -> None:
    """Write the examples of each task (columns `text` and `label`) as a data set in `folder`, of each label a share held out.

    SetupError for examples that cannot be learned from, and for a label that is new to a task which is not open.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, file in files.items():
        spec = next(spec for spec in manifest.tasks if spec.name == name)
        kind = kind_of(spec)
        task = Task(kind=spec.kind, train=[Source(path=file.name)])
        examples = read_sound(file, task, seed=0)
        _refuse_closed(file, spec, {label for example in examples for label in example.labels})
        train, held_out = divide(examples, heldout, seed=0) if heldout else (examples, [])
        for suffix, rows in ((TRAIN, train), (HELDOUT, held_out)):
            write_rows(folder / f"{name}{suffix}", [kind.write_row(example) for example in rows])


def _refuse_closed(file: Path, spec: TaskSpec, labels: set[str]) -> None:
    new = sorted(labels - known_labels(spec))
    if new and not spec.open:
        raise SetupError(
            f"{file}: label {new[0]!r} is new, and the task {spec.name} of the model is closed: it gets new labels where its recipe "
            "says `open: true`"
        )

"""The rows that feedback brought, task by task, as far as the model can learn them."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import file_digest
from pathlib import Path
from typing import Any, Final

from ...runtime.errors import SetupError
from ...runtime.wire.feedback import known_labels
from ...schemas.manifest import ModelManifest, TaskSpec
from ..data.example import Example, labels_of
from ..ingest.manifest import DATASET_NAME, load_data_set
from ..kinds.registry import kind_of
from ..prepare.reading import read_part
from ..recipe.keys.reading import Source
from ..recipe.keys.tasks import Task, describe_form
from ..run_folders.os_errors import write_text

TRAIN: Final = ".train.jsonl"
HELDOUT: Final = ".heldout.jsonl"


class TooLittleFeedback(SetupError):
    """Nothing is wrong with the job: there is not enough yet to learn from, or to show that it was learned."""


@dataclass(frozen=True)
class Corrections:
    """What there is to learn for one task, and to test it on."""

    spec: TaskSpec
    train: list[Example]
    heldout: list[Example]
    new: list[str]
    """Labels that the task does not have yet."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Rows by a label that is not learned: new to a closed task, or too rare."""

    @property
    def labels(self) -> list[str]:
        """All labels of the head to be: the old ones in their places, then the new ones."""
        return [*self.spec.labels, *kind_of(self.spec).label_logits(self.new)]

    def is_new(self, example: Example) -> bool:
        return bool(set(labels_of(example)) & set(self.new))


def read_corrections(folder: Path, manifest: ModelManifest, least_rows: int) -> dict[str, Corrections]:
    """Read a data set folder; SetupError when it was changed or names a task that the model lacks.

    TooLittleFeedback when it has no rows.
    """
    check_whole(folder)
    found = {}
    specs = {spec.name: spec for spec in manifest.tasks}
    for file in sorted(folder.glob(f"*{TRAIN}")):
        task = file.name.removesuffix(TRAIN)
        if task not in specs:
            raise SetupError(f"{file}: the model has no task {task}; it has {', '.join(specs)}")
        train, heldout = (
            rows_of(folder, f"{task}{TRAIN}", specs[task]),
            rows_of(folder, f"{task}{HELDOUT}", specs[task]),
        )
        if train:
            found[task] = _learnable(specs[task], train, heldout, least_rows)
    if not any(each.train for each in found.values()):
        raise TooLittleFeedback(
            f"{folder}: no TASK{TRAIN} with rows that can be learned; expected the folder of `murmura ingest`"
        )
    return found


def check_whole(folder: Path) -> None:
    """Raise SetupError unless every file that a data set names is as it was written."""
    if not (folder / DATASET_NAME).is_file():
        return
    for entry in load_data_set(folder).files:
        path = folder / entry.path
        try:
            with path.open("rb") as file:
                found = file_digest(file, "sha256").hexdigest()
        except OSError as error:
            why = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
            raise SetupError(f"{path}: {why}; {DATASET_NAME} names it; ingest again") from None
        if found != entry.sha256:
            raise SetupError(f"{path}: it is not what {DATASET_NAME} says (SHA-256); ingest again")


def rows_of(folder: Path, name: str, spec: TaskSpec) -> list[Example]:
    if not (folder / name).is_file() or not (folder / name).stat().st_size:
        return []
    form = describe_form(spec) if spec.generation is not None else {}
    task = Task(kind=spec.kind, train=[Source(path=name)], **form)
    return read_part(task.train, task, folder, seed=0, confirmed=True)


def _learnable(spec: TaskSpec, train: Sequence[Example], heldout: Sequence[Example], least_rows: int) -> Corrections:
    known = known_labels(spec)
    counted = Counter(label for example in train for label in set(labels_of(example)) if label not in known)
    new = sorted(label for label, rows in counted.items() if spec.open and rows >= least_rows)
    learned = known | set(new)
    kept = [[e for e in part if set(labels_of(e)) <= learned] for part in (train, heldout)]
    dropped = Counter(label for e in (*train, *heldout) for label in set(labels_of(e)) - learned)
    return Corrections(spec, kept[0], kept[1], new, dropped)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> int:
    """Write JSON lines and return their number; nothing is written for none."""
    if rows:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_text(path, text)
    return len(rows)


def describe_origin(example: Example) -> tuple[Path, int]:
    """Return file and line of an example."""
    file, _, line = example.place.rpartition(":")
    return Path(file), int(line)


def raw_rows(file: Path, lines: set[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield some lines of a JSON lines file with their numbers, from 1."""
    with file.open(encoding="utf-8") as rows:
        for number, line in enumerate(rows, 1):
            if number in lines:
                yield number, json.loads(line)

"""What teachers answer to the training rows: computed once before the first step, kept in the run folder.

`teachers/TASK.npy` holds logits [N, C] in fp32, a row for each text, of tagging one for each token; `teachers/TASK.json` the
digests of what they are made of. Both are read again when a run goes on. At most CHUNK texts are held in memory.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from ....schemas.manifest import Sha256, TaskSpec
from ...compute.failures import memory_of
from ...data.example import Example
from ...kinds.kind import Kind
from ...kinds.registry import kind_of
from ...model.encoders import build_encoder
from ...model.network import MultiTask, logits_of
from ...prepare.tasks import TaskData, label_by_distance
from ...recipe.recipe import Recipe
from ...run_folders.os_errors import as_os_error, write_text
from ...run_folders.run_folder import TeacherRecord, digest
from ...run_folders.trained_model import TrainedModel, open_trained
from ..rows.encoding import encode_ids
from ..rows.soft_targets import Held
from .models import folders_of, spec_of

CHUNK = 2048
Texts = Sequence[NDArray[np.int32]]


class Digests(BaseModel):
    """What answers belong to."""

    teacher: Sha256
    rows: Sha256
    answers: Sha256


@dataclass(frozen=True)
class Answers:
    """A teacher's logits, on disk; those of row i begin at starts[i]."""

    logits: NDArray[np.float32]
    starts: NDArray[np.int64]
    compared: NDArray[np.bool_]
    """Which labels [C] are learned."""
    per_token: bool
    sha256: Sha256
    """Of the logits."""
    teacher: TeacherRecord

    def __getitem__(self, row: int) -> Held:
        own = np.array(self.logits[self.starts[row] : self.starts[row + 1]])
        return Held(own if self.per_token else own[0], self.compared)


@dataclass(frozen=True)
class TaskOfTeacher:
    """A head of the teacher's network: what it asks of a task."""

    spec: TaskSpec

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def kind(self) -> Kind:
        return kind_of(self.spec)


def ask_teachers(
    recipe: Recipe,
    tasks: Sequence[TaskData],
    examples: Sequence[Sequence[Example]],
    texts: Sequence[Texts],
    folder: Path,
    device: str,
) -> dict[int, Answers]:
    """Return the teachers' answers to the training rows by the task's number; those that lie in `folder` already are read.

    `examples[i]` are the rows of `tasks[i]`, `texts[i]` their token ids. A teacher reads texts with its own tokenizer, up to its
    own limit; one that answers each token reads the tokens that are learned.
    """
    found: dict[int, Answers] = {}
    for path, taught in folders_of(recipe, tasks).items():
        model = open_trained(path)
        model.tokenizer.enable_truncation(model.max_tokens)
        for at in taught:
            data, spec = tasks[at], spec_of(recipe, model, tasks[at])
            given = [example.given for example in examples[at]]
            read = texts[at] if data.kind.per_token else encode_ids(given, model.tokenizer)
            found[at] = _answers_of(model, spec, data, read, folder / data.name, device)
    return found


def find_compared(data: TaskData) -> NDArray[np.bool_]:
    """Return which labels [C] a teacher teaches. Where out of scope goes by distance, the class of that label is none: its logit
    is not learned by steps, and lies infinitely low until the limit is chosen, so that a teacher that sees it at all would
    outweigh everything else.
    """
    outside = label_by_distance(data.task)
    return np.array([label not in outside for label in data.labels])


@memory_of("answers of a teacher", "take a smaller teacher, or one that reads fewer tokens")
def _answers_of(model: TrainedModel, spec: TaskSpec, data: TaskData, texts: Texts, path: Path, device: str) -> Answers:
    per_token, labels = kind_of(spec).per_token, data.labels
    counts = [len(ids) if per_token else 1 for ids in texts]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    file, about = path.with_name(f"{path.name}.npy"), path.with_name(f"{path.name}.json")
    rows = _digest_texts(labels, texts)
    kept = _read(about)
    if kept is None or (kept.teacher, kept.rows) != (model.sha256, rows) or not _is_whole(file, kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        with as_os_error(part), part.open("wb") as into:  # mapped, a full disk would end the process by a signal
            shape = {"descr": "<f4", "fortran_order": False, "shape": (int(starts[-1]), len(labels))}
            np.lib.format.write_array_header_1_0(into, shape)
            for logits in _compute(model, spec, labels, texts, device):
                into.write(logits.astype("<f4").tobytes())
        part.replace(file)
        kept = Digests(teacher=model.sha256, rows=rows, answers=digest(file))
        write_text(about, kept.model_dump_json() + "\n")
    return Answers(
        np.load(file, mmap_mode="r"),
        starts,
        find_compared(data),
        per_token,
        kept.answers,
        TeacherRecord(folder=str(model.folder), sha256=model.sha256),
    )


def _compute(
    model: TrainedModel,
    spec: TaskSpec,
    labels: Sequence[str],
    texts: Texts,
    device: str,
) -> Iterator[NDArray[Any]]:
    """Yield the logits of each text, with the labels in our order. No random number of the training is drawn."""
    order = [spec.labels.index(label) for label in labels]
    with torch.random.fork_rng(devices=[]):
        network = build_network(model, [spec]).to(device)
    for begin in range(0, len(texts), CHUNK):
        chunk = texts[begin : begin + CHUNK]
        for logits in logits_of(network, 0, chunk, device=device, bf16=False):
            yield logits[..., order]


def build_network(model: TrainedModel, tasks: Sequence[TaskSpec]) -> MultiTask:
    """Make the network of a trained model with the heads of these tasks."""
    encoder = build_encoder(model.encoder, model.weights, dropout=0.0)
    network = MultiTask(encoder, [TaskOfTeacher(spec) for spec in tasks], dropout=0.0)
    for spec, head in zip(tasks, network.heads, strict=True):
        for name, parameter in head.named_parameters():
            parameter.data = torch.from_numpy(np.array(model.weights[f"heads.{spec.name}.{name}"], np.float32))
    return network


def _digest_texts(labels: Sequence[str], texts: Texts) -> str:
    sums = sha256(json.dumps([*labels]).encode())
    for part in _as_bytes(texts):
        sums.update(part)
    return sums.hexdigest()


def _as_bytes(texts: Texts) -> Iterable[bytes]:
    for ids in texts:
        yield len(ids).to_bytes(4, "little") + ids.tobytes()


def _read(about: Path) -> Digests | None:
    try:
        return Digests.model_validate_json(about.read_bytes())
    except (OSError, ValidationError):
        return None


def _is_whole(file: Path, kept: Digests) -> bool:
    return file.is_file() and digest(file) == kept.answers

"""A smaller model beside its teacher: scores on the same rows, and the speed of both graphs."""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from ...runtime.errors import SetupError
from ...runtime.model.graph.build import build_graph
from ...runtime.model.inputs import Input
from ...runtime.model.model import Model
from ...runtime.model.onnx_session import open_session
from ...schemas.manifest import Limits, ModelManifest, TaskSpec
from ..data.example import Example
from ..kinds.answers import Answer
from ..kinds.registry import kind_of
from ..run_folders.run_folder import SmallerRecord
from ..run_folders.smaller import Compared, TaskCompared
from ..run_folders.trained_model import TrainedModel, open_trained

ROWS: Final = 32
MOST_TEXTS: Final = 512
"""At most so many texts of the sets are timed, in their order."""
ROUNDS: Final = 5
"""Both models read the texts in turns; the middle one of so many ratios counts."""


class AskedSet(NamedTuple):
    """Rows that both answer for a task. `scope` is its out-of-scope label."""

    task: str
    name: str
    examples: Sequence[Example]
    scope: str | None


Ask = Callable[[Model, TaskSpec, Sequence[Example]], Iterable[Answer]]


def compare_with_teacher(
    model: Model, run: Path, record: SmallerRecord, sets: Sequence[AskedSet], ask: Ask
) -> Compared:
    """Score both on the sets, and time them. `model` is the exported student, on whatever device, `run` its run folder.

    SetupError where the teacher has learned something else since.
    """
    trained = open_trained(Path(record.teacher.folder))
    if trained.sha256 != record.teacher.sha256:
        raise SetupError(
            f"{trained.folder}: not the teacher that was learned from (SHA-256 differs); put it back, or train again"
        )
    teacher = serve_on_cpu(trained)
    tasks = []
    for asked in sets:
        scores = []
        for each in (teacher, model):
            spec = each.tasks[asked.task]
            scores.append(kind_of(spec).outcome([*ask(each, spec, asked.examples)], spec, asked.scope).metric)
        rows = len(asked.examples)
        tasks.append(TaskCompared(task=asked.task, set=asked.name, rows=rows, teacher=scores[0], student=scores[1]))
    texts = [example.given for asked in sets for example in asked.examples]
    timed = choose_timed(texts)
    of_teacher, of_student = time_both(teacher, serve_on_cpu(open_trained(run)), timed)
    return Compared(
        layers=record.layers,
        of=record.of,
        neurons=record.neurons,
        of_neurons=record.of_neurons,
        tasks=tasks,
        texts=len(timed),
        teacher_seconds=of_teacher,
        student_seconds=of_student,
    )


def choose_timed(texts: Sequence[Input]) -> Sequence[Input]:
    """Return the texts that are timed: at most MOST_TEXTS, spread over all of them."""
    return texts[:: max(1, -(-len(texts) // MOST_TEXTS))]


def serve_on_cpu(trained: TrainedModel) -> Model:
    """Return a model as it is served, on the CPU with one thread, without replies."""
    manifest = ModelManifest(
        name=trained.name,
        encoder=trained.encoder,
        tasks=[spec for spec in trained.tasks if not kind_of(spec).generates],
        limits=Limits(max_tokens=trained.max_tokens),
        files=[],
    )
    graph = build_graph(manifest.encoder, manifest.tasks, trained.weights)
    return Model(manifest, trained.tokenizer, open_session(graph, "cpu"))


def time_both(teacher: Model, student: Model, texts: Sequence[Input]) -> tuple[float, float]:
    """Return the CPU-seconds of both for the texts, in batches of ROWS in their order, tokenised before: the round in the middle
    by the ratio.
    """
    rounds = [(_time(teacher, texts), _time(student, texts)) for _ in range(ROUNDS + 1)][1:]
    middle = median(one / other for one, other in rounds)
    return min(rounds, key=lambda found: abs(found[0] / found[1] - middle))


def _time(model: Model, texts: Sequence[Input]) -> float:
    encoded = [model.encode(texts[at : at + ROWS]) for at in range(0, len(texts), ROWS)]
    began = time.process_time()
    for batch in encoded:
        model.run(batch)
    return max(time.process_time() - began, 1e-9)

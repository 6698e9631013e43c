"""Everything before the first step: data read and encoded, the network made, the steps laid out."""

import math
import random
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
import torch
from accelerate import Accelerator
from pydantic import BaseModel

from ...runtime.generation.reply_vocabulary import ReplyVocabulary
from ..compute import dealing
from ..compute.device import open_accelerator, precision_of
from ..compute.failures import memory_of
from ..compute.phase_rows import count_run_rows
from ..data.example import Example
from ..kinds.heads import FormedHead
from ..kinds.replies.decoder import ReplyDecoder
from ..model.encoders import Checkpoint, build_encoder
from ..model.methods.make import make_method
from ..model.network import MultiTask
from ..model.special_tokens import SpecialTokens
from ..model.verbaliser import begin_from_words, form_of_words, refuse_words, with_template
from ..prepare.data_report import TaskReport
from ..prepare.tasks import TaskData, read_tasks
from ..prepare.vocabularies import with_pieces
from ..recipe.phase_recipe import teaches
from ..recipe.recipe import Recipe
from ..run_folders.run_folder import TEACHERS, PhaseRecord, RunFolder, TrainedCount
from .check_data import open_encoder, refuse_recipe, refuse_unknown, report_tasks, settle
from .check_phases import refuse_few_steps
from .rows.encoding import Part, encode_part, number_texts
from .start import grow
from .start.few_rows import (
    find_few,
    known_labels,
    learned_examples,
    learned_rows,
    refuse_idle_self_training,
    refuse_untaught,
    with_few_rows_rate,
)
from .start.freezing import count_trained, freeze, trained_names
from .start.hold import hold_answers
from .start.standardise import standardise_inputs
from .teachers.answers import ask_teachers
from .teachers.models import refuse_teachers
from .weights.make import make_weighting, refuse_processes
from .weights.static import Static
from .weights.weighting import Weighting

REGRESSION: Final = "regression"
"""What the rows of new labels begin from where the whole head begins from logistic regression."""


class SinceEntry(BaseModel):
    """What has been counted since the last entry of the curves."""

    steps: int = 0
    skipped: int = 0
    """Steps that fp16 left out."""
    clipped: int = 0
    norms: float = 0.0
    """The sum of the norms of the gradients before the clip."""


class Standing(BaseModel):
    """How far a run is: what is kept for `--resume` beside weights and optimiser."""

    step: int = 0
    """Steps taken."""
    best: float = -math.inf
    """The highest weighted mean of the tasks' main validation metrics."""
    best_step: int = 0
    """0: no checkpoint was kept yet."""
    stale: int = 0
    """Scorings since the last better one."""
    scores: dict[str, dict[str, float]] = {}
    """The validation metrics of the best checkpoint, by task."""
    smoothed: dict[str, float] = {}
    """The smoothed loss of each task."""
    since_entry: SinceEntry = SinceEntry()
    cpu_seconds: float = 0.0
    phase: int = 0
    """The number of the phase that the run is in; steps and scores are those of the phase."""
    before: int = 0
    """Steps of the phases before."""
    phases: list[PhaseRecord] = []
    """How the phases before went."""


@dataclass
class Fitting:
    """What one run works with, and its standing, which alone changes on the way."""

    recipe: Recipe
    tasks: list[TaskData]
    checkpoint: Checkpoint
    model: MultiTask
    train: list[Part]
    validation: list[Part]
    plan: list[dealing.StepRows]
    folder: RunFolder
    accelerator: Accelerator
    precision: str
    """Of the forward passes of training: fp32, bf16 or fp16."""
    data: dict[str, TaskReport]
    """What was read, by task."""
    grown: dict[str, dict[str, str]] = field(default_factory=dict)
    """Labels that a head of the model before did not have, by task, and what their rows began from."""
    few: frozenset[str] = frozenset()
    """Tasks whose heads begin from logistic regression on the frozen encoder, and that learn the names of their labels."""
    weighting: Weighting = field(default_factory=Static)
    """How the tasks of a step count; what it holds changes on the way, too."""
    trained: frozenset[str] = frozenset()
    """The names of the parameters that are trained where nothing is frozen."""
    trained_count: TrainedCount | None = None
    """How many numbers are trained as the run begins."""
    taught: frozenset[str] = frozenset()
    """The tasks that the phase teaches, whose validation rows choose the checkpoint; empty: all."""
    unlabelled: list[str] = field(default_factory=list)
    """Texts that self-training guesses."""
    guesses: dict[int, list[Example]] = field(default_factory=dict)
    """By task the texts with guesses that stand behind its rows in the phase."""
    guessed: str = ""
    """A digest of the guesses that are learned in the phase."""
    further_phases: int = 0
    """Phases that are still to come behind the steps of the plan."""
    standing: Standing = field(default_factory=Standing)
    inputs_sha256: str | None = None

    @property
    def device(self) -> str:
        """`cpu` or `cuda`, which is the GPU of this process."""
        return str(self.accelerator.device.type)

    @property
    def bf16(self) -> bool:
        """Whether validation rows are scored in bf16."""
        return self.precision == "bf16"

    @property
    def gold_shares(self) -> dict[int, float]:
        """By task that the phase teaches, how much of the target of rows with a teacher is their label in the step to come."""
        teachers, at = self.recipe.teachers, self.standing
        found: dict[int, float] = {}
        for task, (data, part) in enumerate(zip(self.tasks, self.train, strict=True)):
            if teachers is not None and part.taught is not None and data.name in self.voting_rows:
                before = sum(teaches(self.recipe, phase, data.name) for phase in self.recipe.phases[: at.phase])
                found[task] = teachers.gold_at(before, at.step, len(self.plan))
        return found

    @property
    def rows_read(self) -> dict[str, int]:
        """Rows of each task that the steps taken in the phase have read."""
        counts = [0] * len(self.tasks)
        for task, rows in chain.from_iterable(self.plan[: self.standing.step]):
            counts[task] += len(rows)
        return {data.name: count for data, count in zip(self.tasks, counts, strict=True)}

    @property
    def validation_rows(self) -> dict[str, int]:
        """By task, as they are scored while training."""
        return {data.name: len(part.ids) for data, part in zip(self.tasks, self.validation, strict=True)}

    @property
    def voting_rows(self) -> dict[str, int]:
        """Those of the tasks whose scores choose the checkpoint of the phase."""
        return {name: rows for name, rows in self.validation_rows.items() if name in self.taught or not self.taught}


@dataclass(frozen=True)
class Material:
    """What a run reads: the rows, encoded, and the encoder to begin with. Runs whose recipes read alike may share it."""

    tasks: list[TaskData]
    checkpoint: Checkpoint
    reports: dict[str, TaskReport]
    few: frozenset[str]
    """As in `Fitting`."""
    train: list[Part]
    validation: list[Part]


@memory_of("reading of the rows and the encoder", "read fewer `rows` of a source, or take a smaller encoder")
def read_material(recipe: Recipe, data: Path) -> Material:
    """Read the data, open the encoder, and encode everything."""
    tasks = read_tasks(recipe, data)
    checkpoint = open_encoder(recipe, tasks)
    tasks = with_pieces(tasks, checkpoint.tokenizer, checkpoint.manifest)
    refuse_words(recipe, {task.name: task.labels for task in tasks}, checkpoint)
    refuse_teachers(recipe, tasks, checkpoint.tokenizer)
    reports = report_tasks(recipe, tasks, checkpoint)
    refuse_unknown(reports, allow=recipe.allow_unknown)
    known = known_labels(checkpoint, tasks)
    held_learned = {task.name: learned_rows(checkpoint, task.name) for task in tasks}
    few = find_few(recipe, tasks, checkpoint)
    for task in tasks:
        goes_on = known.get(task.name) and set(known[task.name]) <= set(task.labels) and task.name not in few
        if goes_on and held_learned[task.name]:
            reports[task.name] = carry_learned(reports[task.name], held_learned[task.name])
    tokenizer = checkpoint.tokenizer
    tokenizer.enable_truncation(recipe.max_tokens)
    learned = learned_examples(tasks, few)
    parts = [encode_part(rows, task.kind, task.labels, tokenizer) for rows, task in zip(learned, tasks, strict=True)]
    validation = [encode_part(sample(task.validation, recipe), task.kind, task.labels, tokenizer) for task in tasks]
    tokenizer.no_truncation()
    return Material(tasks, checkpoint, reports, few, parts, validation)


@memory_of("network", "take a smaller encoder")
def prepare(recipe: Recipe, data: Path, folder: RunFolder, material: Material | None = None) -> Fitting:
    """Open the device, read the data, open the encoder, encode everything and lay out the steps.

    With `material` nothing is read: it is that of a recipe which reads the same.
    """
    refuse_recipe(recipe)
    accelerator = open_accelerator(recipe, folder)
    refuse_processes(recipe, accelerator.num_processes)
    read = material or read_material(recipe, data)
    tasks = [replace(task, task=recipe.tasks[task.name]) for task in read.tasks]
    few, reports = read.few, dict(read.reports)
    recipe = settle(recipe, read.checkpoint.spec)
    checkpoint, form = with_template(recipe, read.checkpoint), form_of_words(recipe, read.checkpoint)
    tasks = [replace(task, form=form) for task in tasks]
    parts, validation = [replace(part, held={}) for part in read.train], list(read.validation)
    known = known_labels(checkpoint, tasks)
    if len(few) == len(tasks):
        recipe = with_few_rows_rate(recipe)
    refuse_few_steps(recipe, {task.name: len(part.ids) for task, part in zip(tasks, parts, strict=True)})
    refuse_idle_self_training(recipe, tasks, few)
    refuse_untaught(recipe, tasks, known, few)
    model = build_model(recipe, tasks, checkpoint)
    narrow(recipe, model, [*parts, *validation], checkpoint.special)
    trained = trained_names(model)
    freeze(model, recipe.freeze, trained)
    grown: dict[str, dict[str, str]] = {}
    for part, held in zip(parts, hold_answers(model, tasks, parts, known), strict=True):
        part.held.update(held)
    for at, (task, part) in enumerate(zip(tasks, parts, strict=True)):
        if not (known.get(task.name) and set(known[task.name]) <= set(task.labels)):
            standardise_inputs(model, at, part)
        new = grow.new_labels(known.get(task.name), task.labels)
        if task.kind.generates:
            grown |= {task.name: dict.fromkeys(new, grow.WORDS)} if new else {}
        elif task.name in few:
            grown |= {task.name: dict.fromkeys(new, REGRESSION)} if new else {}
        elif new:
            grown[task.name] = {label: grow.begin_row(model, at, task, part, label) for label in new}
    plan = lay_out(recipe, tasks, parts)
    return Fitting(
        recipe=recipe,
        tasks=tasks,
        checkpoint=checkpoint,
        model=model,
        train=parts,
        validation=validation,
        plan=plan,
        folder=folder,
        accelerator=accelerator,
        precision=precision_of(recipe),
        data=reports,
        grown=grown,
        few=few,
        trained=trained,
        trained_count=count_trained(model),
        weighting=make_weighting(recipe, tasks, [len(part.ids) for part in parts]),
    )


def learn_from_teachers(run: Fitting, folder: Path | None = None) -> None:
    """Put the teachers' answers beside the training rows. The first process asks them, the others read what it wrote, into
    `folder` or that of the run.
    """
    if run.recipe.teachers is None:
        return
    texts = [part.ids for part in run.train]
    with run.accelerator.main_process_first():
        examples = learned_examples(run.tasks, run.few)
        found = ask_teachers(run.recipe, run.tasks, examples, texts, folder or run.folder.path / TEACHERS, run.device)
    for at, answers in found.items():
        run.train[at] = replace(run.train[at], taught=answers)


def narrow(recipe: Recipe, model: MultiTask, parts: list[Part], special: SpecialTokens) -> None:
    """Train only the words that the parts have, where the encoder's own weights are trained."""
    if recipe.low_rank:
        return
    met = chain.from_iterable(part.ids for part in parts)
    dropped_as = [np.array([special.unknown])] if special.unknown is not None else []  # by word_dropout
    model.narrow(chain(met, dropped_as))


def sample(validation: list[Example], recipe: Recipe) -> list[Example]:
    """Draw the validation rows that are scored while training: files are often sorted by label."""
    count = recipe.budget.validation_rows
    if count is None or count >= len(validation):
        return validation
    return random.Random(recipe.data_seed).sample(validation, count)


def build_model(recipe: Recipe, tasks: list[TaskData], checkpoint: Checkpoint) -> MultiTask:
    """Make the network; heads of a model of ours go on where the task has the same kind and labels, or these and new ones."""
    torch.manual_seed(recipe.seed)
    encoder = build_encoder(checkpoint.spec, checkpoint.weights, dropout=recipe.dropout)
    begins = {name: weight.detach() for name, weight in encoder.state_dict().items()}
    if checkpoint.base is not None:
        begins = {name: torch.from_numpy(array) for name, array in checkpoint.base.items()}
    method = make_method(recipe.around_encoder) if recipe.around_encoder else None
    if method is not None and not recipe.encoder.frozen:
        method.attach(encoder)
    model = MultiTask(encoder, tasks, dropout=recipe.dropout)
    model.method = method if not recipe.encoder.frozen else None
    model.has_new_template = checkpoint.plain is not None
    known = known_labels(checkpoint, tasks)
    for task, head in zip(tasks, model.heads, strict=True):
        before = known.get(task.name, [])
        goes_on = bool(before) and set(before) <= set(task.labels)
        if isinstance(head, FormedHead):
            begin_from_words(recipe, head, task.labels, checkpoint)
        if isinstance(head, ReplyDecoder):
            words = ReplyVocabulary(task.labels).lower_ids(checkpoint.tokenizer)
            head.begin_from(begins, words, checkpoint.tokenizer.encode("").ids[0], layers=not goes_on)
        if goes_on:
            grow.carry_over(head, task, before, checkpoint.weights)
        elif isinstance(head, ReplyDecoder) and method is not None:
            method.attach_to_decoder(head)  # one that goes on is no encoder's layers any more: it is trained whole
    if recipe.encoder.frozen:
        model.freeze_encoder()
    return model


def carry_learned(report: TaskReport, learned: int) -> TaskReport:
    """Carry on, with a note, that the head that goes on has learned rows that were held back."""
    note = (
        f"the head that goes on has learned {learned} rows that were held back: where they are the validation rows here, "
        "calibration and thresholds come out too sure"
    )
    return report.model_copy(update={"learned_validation": learned, "notes": [*report.notes, note]})


def lay_out(recipe: Recipe, tasks: list[TaskData], parts: list[Part]) -> list[dealing.StepRows]:
    """Return the rows of each step of the run: `batch_size` in all, divided among the tasks by their shares."""
    rows = {data.name: len(part.ids) for data, part in zip(tasks, parts, strict=True)}
    lengths = [part.lengths for part in parts]
    return dealing.deal(lengths, count_run_rows(recipe, rows), recipe.seed, number_texts(parts))

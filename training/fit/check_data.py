"""Checks a recipe's data, encoder and machine as far as that is possible without training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from ...runtime.errors import SetupError
from ...runtime.model.texts.tokenizing import refuse_without_template
from ...schemas.manifest import EncoderSpec
from ..compute.device import refuse_unsupported
from ..data.rules import sources_of
from ..model.encoders import Checkpoint, open_checkpoint
from ..model.methods.refuse import refuse_methods, refuse_parts
from ..model.special_tokens import refuse_word_dropout
from ..model.verbaliser import refuse_mask, refuse_verbaliser, refuse_words
from ..prepare.data_report import TRAIN, TaskReport
from ..prepare.data_summary import parts_of, summarise
from ..prepare.reading import read_part
from ..prepare.tasks import TaskData, read_task
from ..prepare.vocabularies import with_pieces
from ..pretrain.unlabelled import read_unlabelled
from ..recipe.idle.keys import describe_idle_keys, refuse_idle_keys
from ..recipe.keys.tasks import Task
from ..recipe.last_phase import with_self_training
from ..recipe.phase_recipe import describe_static_phases, with_whole_freeze
from ..recipe.recipe import Recipe
from ..run_folders.run_folder import SMALLER
from ..smaller.stage import start_smaller
from .check_phases import describe_late_weights, refuse_few_steps, refuse_layers, refuse_phases
from .rows.encoding import count_tokens
from .start.few_rows import (
    describe_idle_phases,
    describe_refit_keys,
    find_few,
    known_labels,
    learned_examples,
    refuse_idle_self_training,
    refuse_untaught,
)
from .teachers.models import refuse_teachers
from .weights.make import refuse_weights

TOLERATED: Final = 0.02
"""Share of mostly unknown texts that a task may have: chat has messages of one emoji."""
_REFUSALS: Final = (refuse_weights, refuse_phases, refuse_methods, refuse_verbaliser, refuse_idle_keys)


@dataclass(frozen=True)
class CheckedData:
    """`reports` of the tasks that can be read; each of the `problems`, one line, keeps the recipe from being trained.
    `unlabelled`: how many texts self-training may guess. `notes`, a line each, keep it from nothing.
    """

    reports: dict[str, TaskReport]
    problems: list[str]
    unlabelled: int = 0
    notes: Sequence[str] = ()


def check_data(recipe: Recipe, folder: Path) -> CheckedData:
    """Read every task and open the encoder. What is wrong with one task does not hide what is wrong with another."""
    if recipe.smaller is None:
        return _check(recipe, folder)
    with TemporaryDirectory(prefix="murmura-") as scratch:
        try:
            started = start_smaller(recipe, Path(scratch) / SMALLER)
        except SetupError as error:
            return CheckedData({}, [str(error)])
        return _check(started, folder)


def _check(recipe: Recipe, folder: Path) -> CheckedData:
    tasks: list[TaskData] = []
    problems: list[str] = []
    try:
        recipe = with_self_training(recipe)
    except SetupError as error:
        problems.append(str(error))
    for refuse in (refuse_unsupported, *_REFUSALS):
        try:
            refuse(recipe)
        except SetupError as error:
            problems.append(str(error))
    for name in recipe.tasks:
        try:
            tasks.append(read_task(name, recipe, folder))
        except SetupError as error:
            problems += _mistakes_of_sources(recipe.tasks[name], recipe, folder) or [str(error)]
    reports = {data.name: summarise(data, {}) for data in tasks}
    try:
        if tasks:
            checkpoint = open_encoder(recipe, tasks)
            recipe = settle(recipe, checkpoint.spec)
            tasks = with_pieces(tasks, checkpoint.tokenizer, checkpoint.manifest)
            refuse_words(recipe, {task.name: task.labels for task in tasks}, checkpoint)
            refuse_teachers(recipe, tasks, checkpoint.tokenizer)
            reports = report_tasks(recipe, tasks, checkpoint)
            refuse_unknown(reports, allow=recipe.allow_unknown)
        if len(tasks) == len(recipe.tasks) and not problems:
            refuse_few_steps(recipe, count_learned(recipe, tasks, checkpoint))
            few = find_few(recipe, tasks, checkpoint)
            refuse_idle_self_training(recipe, tasks, few)
            refuse_untaught(recipe, tasks, known_labels(checkpoint, tasks), few)
        unlabelled = len(read_unlabelled(recipe, tasks, folder)) if not problems else 0
    except SetupError as error:
        problems.append(str(error))
        unlabelled = 0
    notes = describe_notes(recipe, tasks, find_few(recipe, tasks, checkpoint)) if not problems else []
    return CheckedData(reports, [*dict.fromkeys(problems)], unlabelled, notes)


def describe_notes(recipe: Recipe, tasks: Sequence[TaskData], few: frozenset[str]) -> list[str]:
    """Return a line for each thing that a recipe says in vain."""
    said = [*describe_static_phases(recipe), *describe_idle_keys(recipe)]
    said += [*describe_refit_keys(recipe, tasks, few), *describe_idle_phases(recipe, tasks, few)]
    rows = [len(learned) for learned in learned_examples(tasks, few)]
    return [*said, *describe_late_weights(recipe, dict(zip((task.name for task in tasks), rows, strict=True)))]


def count_learned(recipe: Recipe, tasks: Sequence[TaskData], checkpoint: Checkpoint) -> dict[str, int]:
    """Return how many rows each task learns."""
    examples = learned_examples(tasks, find_few(recipe, tasks, checkpoint))
    return {task.name: len(rows) for task, rows in zip(tasks, examples, strict=True)}


def refuse_recipe(recipe: Recipe) -> None:
    """Raise SetupError for the first thing in a recipe that does not mix, before anything is read."""
    for refuse in _REFUSALS:
        refuse(recipe)


def settle(recipe: Recipe, encoder: EncoderSpec) -> Recipe:
    """Return the recipe with what its encoder says of it: whether a number of frozen layers is all. SetupError for what it cannot
    do with this encoder.
    """
    refuse_parts(recipe, encoder)
    refuse_layers(recipe, encoder)
    refuse_mask(recipe, encoder)
    settled = with_whole_freeze(recipe, encoder.layers)
    if settled is not recipe:
        refuse_recipe(settled)
    return settled


def _mistakes_of_sources(task: Task, recipe: Recipe, folder: Path) -> list[str]:
    """Return the first mistake of each source, read alone."""
    problems = []
    for source in sources_of(task):
        try:
            read_part([source], task, folder, seed=recipe.data_seed)
        except SetupError as error:
            problems.append(str(error))
    return problems


def open_encoder(recipe: Recipe, tasks: Sequence[TaskData]) -> Checkpoint:
    """Open the recipe's encoder; from scratch its vocabulary is trained on the tasks' training texts."""
    texts = (text for task in tasks for example in task.train for text in (example.text, example.second) if text)
    checkpoint = open_checkpoint(recipe.encoder, texts, seed=recipe.seed)
    if checkpoint.delta is not None and not recipe.encoder.frozen:
        raise recipe.refusal(
            ("encoder", "source"),
            f"{recipe.encoder.source} is a delta, whose encoder can only be read; assemble it (`murmura models assemble`) or set `frozen: true`",
        )
    if recipe.encoder.frozen and checkpoint.manifest and recipe.max_tokens != checkpoint.manifest.limits.max_tokens:
        limit = checkpoint.manifest.limits.max_tokens
        message = f"{recipe.max_tokens}, but the tasks that stay read {limit} tokens: write {limit}"
        raise recipe.refusal(("max_tokens",), message)
    refuse_word_dropout(recipe.word_dropout, checkpoint.special)
    if any(task.kind.per_pair for task in tasks):
        _check_template(recipe, checkpoint)
    _refuse_deep_decoders(recipe, tasks, checkpoint)
    if recipe.max_tokens > checkpoint.spec.max_positions:
        limit = checkpoint.spec.max_positions
        raise recipe.refusal(("max_tokens",), f"{recipe.max_tokens} is more than the encoder's max_positions {limit}")
    return checkpoint


def _refuse_deep_decoders(recipe: Recipe, tasks: Sequence[TaskData], checkpoint: Checkpoint) -> None:
    """Raise SetupError for a decoder that begins as layers of the encoder, which has fewer. One that goes on has its own."""
    depth, manifest = checkpoint.spec.layers, checkpoint.manifest
    known = {spec.name for spec in manifest.tasks if spec.generation is not None} if manifest is not None else set()
    for data in tasks:
        sizes = data.task.generation()
        if sizes is not None and data.name not in known and sizes.layers > depth:
            message = f"a decoder of {sizes.layers} layers cannot begin from an encoder of {depth}; set `layers` to {depth} or less"
            raise recipe.refusal(("tasks", data.name, "layers"), message)


def _check_template(recipe: Recipe, checkpoint: Checkpoint) -> None:
    try:
        refuse_without_template(checkpoint.tokenizer)
    except ValueError as error:
        raise recipe.refusal(("encoder",), f"{error}; take another encoder for tasks that read two") from error


def report_tasks(recipe: Recipe, tasks: Sequence[TaskData], checkpoint: Checkpoint) -> dict[str, TaskReport]:
    """Count what was read, and what the tokenizer makes of it. SetupError for texts that are mostly unknown to it."""
    tokenizer = checkpoint.tokenizer
    unknown_ids = checkpoint.special.unknown_ids
    tokenizer.enable_truncation(recipe.max_tokens)
    reports = {}
    for data in tasks:
        texts = {name: [example.given for example in part] for name, part in parts_of(data).items()}
        reports[data.name] = summarise(
            data, {name: count_tokens(part, tokenizer, unknown_ids) for name, part in texts.items()}
        )
    tokenizer.no_truncation()
    return reports


def refuse_unknown(reports: Mapping[str, TaskReport], *, allow: bool) -> None:
    """Stop when a task's texts are not in the vocabulary's language. SetupError gives the share for each task."""
    tokens = {name: report.parts[TRAIN].tokens for name, report in reports.items()}
    shares = {name: t.mostly_unknown for name, t in tokens.items() if t is not None and t.mostly_unknown is not None}
    if allow or all(share <= TOLERATED for share in shares.values()):
        return
    listed = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    raise SetupError(
        f"texts that are mostly unknown to the encoder's vocabulary: {listed}; take an encoder of their language, "
        "`encoder: scratch`, or set `allow_unknown: true`"
    )

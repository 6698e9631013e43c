"""From a file of examples to a model folder, by the way that every recipe takes."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from ...runtime.errors import SetupError
from ...runtime.model.folders.folder import read_manifest
from ...schemas.manifest import MANIFEST_NAME, TaskSpec
from ..compute.failures import OutOfMemory
from ..data.files import read_rows
from ..evaluate.evaluate import Scores, evaluate, write_report
from ..export.export import describe_lost_base, export, find_problems
from ..fit.loop import fit
from ..prepare.data_report import describe_cross_validation
from ..prepare.few_examples import check_columns, describe_counts, read_examples, refuse_test_labels
from ..recipe.keys.reading import Columns, Reading
from ..recipe.recipe import Recipe, load_recipe
from ..report.decisions import describe_decisions
from ..run_folders.os_errors import write_text
from ..run_folders.run_folder import RunFolder, run_beside
from .recipe import Wanted, make_recipe

Say = Callable[[str], None]


def make_model(wanted: Wanted, out: Path, say: Say) -> Scores:
    """Write the model folder `out`, and the run that it was made by beside it, OUT.run.

    `say` hears a line of what was read, of the score that is to be expected, and of where the limits lie. Returns the scores
    on the test rows; none without them. SetupError for what is wrong, before anything is written.
    """
    began, folder = time.monotonic(), run_beside(out)
    for problem in (*find_problems(out, wanted.encoder, ("ragged",), delta=False), *RunFolder(folder).find_problems()):
        raise SetupError(problem)
    refuse_lost(wanted, out)
    file = check_columns(wanted.examples, Columns(text=wanted.text, label=wanted.label))
    rows = sum(1 for _ in read_rows(file, Reading()))
    with tempfile.TemporaryDirectory(prefix="murmura-") as scratch:
        recipe = Path(scratch) / f"{out.name}.yaml"
        write_text(recipe, yaml.safe_dump(make_recipe(out.name, wanted, rows), sort_keys=False))
        read = load_recipe(recipe)
        task = read.tasks[wanted.task]
        examples = read_examples(wanted.examples, task, read.data_seed)
        refuse_test_labels(wanted.examples, task, examples, read.data_seed)
        for line in describe_replaced(wanted):
            say(line)
        try:
            record = fit(recipe, wanted.examples.parent, folder, quiet=True)
        except OutOfMemory as error:
            raise SetupError(f"{error.what}; {say_what_to_lower(wanted, read.max_tokens)}: {error.found}") from None
    export(folder, out)
    if line := describe_lost_base(record, out):
        say(line)
    report = record.data[wanted.task]
    labels = len({example.labels[0] for example in examples} - {wanted.out_of_scope})
    say(f"{wanted.task}: {len(examples)} examples of {labels} labels")
    if report.cross_validated is not None:
        for line in describe_cross_validation(report.cross_validated):
            say(line)
    for line in (*describe_counts(examples, wanted.out_of_scope), *(f"note: {note}" for note in report.notes)):
        say(line)
    (spec,) = (spec for spec in record.tasks if spec.name == wanted.task)
    if decided := describe_decisions(spec):
        say(decided)
    scores = _report(wanted, read, out, folder, say)
    say(f"{out}: {time.monotonic() - began:.1f} s")
    return scores


def say_what_to_lower(wanted: Wanted, max_tokens: int) -> str:
    """Return what takes less memory, in words of the command."""
    without = " or leave --tune-encoder out," if wanted.tune_encoder else ""
    return f"lower --max-tokens ({max_tokens}),{without} or take a smaller --encoder"


def describe_replaced(wanted: Wanted) -> list[str]:
    """Return a line where the model that it starts from has a task of this name, which is learned anew from the examples alone, and
    one on its other tasks where they do not stay.
    """
    before = _tasks_of(wanted)
    lines = []
    if wanted.task in before:
        count = len(before[wanted.task].labels)
        hint = "" if wanted.tune_encoder else "; another --task keeps both"
        lines.append(
            f"note: the task {wanted.task} of {wanted.encoder}, with {count} labels, is replaced: its head is learned from these "
            f"examples alone{hint}"
        )
    if lost := list_lost(wanted):
        lines.append(
            f"note: the new model has the task {wanted.task} alone: {', '.join(lost)} of {wanted.encoder} cannot go on behind an encoder "
            "that --tune-encoder changes; leave it out to keep them"
        )
    return lines


def list_lost(wanted: Wanted) -> list[str]:
    """Return the tasks of the model that it starts from which the new one does not have."""
    return [name for name in _tasks_of(wanted) if name != wanted.task] if wanted.tune_encoder else []


def refuse_lost(wanted: Wanted, out: Path) -> None:
    """Raise SetupError where tasks would be removed with the folder of the model that it starts from."""
    if (lost := list_lost(wanted)) and Path(wanted.encoder).resolve() == out.resolve():
        raise SetupError(
            f"{out}: its tasks {', '.join(lost)} would be lost, as they cannot go on behind an encoder that --tune-encoder changes; leave "
            "it out, or choose another --out"
        )


def _tasks_of(wanted: Wanted) -> dict[str, TaskSpec]:
    """Return the tasks of the model that it starts from, by name; none where that is a checkpoint."""
    if not (Path(wanted.encoder) / MANIFEST_NAME).is_file():
        return {}
    return {spec.name: spec for spec in read_manifest(Path(wanted.encoder)).tasks}


def _report(wanted: Wanted, recipe: Recipe, out: Path, folder: Path, say: Say) -> Scores:
    if wanted.test is not None:
        return evaluate(out, wanted.examples.parent, run=folder, print_line=say)
    write_report(out, read_manifest(out), {}, recipe, run=folder, print_line=say)
    return {}

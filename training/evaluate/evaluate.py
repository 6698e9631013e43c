"""Scores an exported folder as it will be served: through the runtime's own model code, thresholds applied."""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from tokenizers import Encoding

from ...runtime.errors import SetupError
from ...runtime.generation.facts import is_fact_piece
from ...runtime.generation.reply_vocabulary import list_slots
from ...runtime.model.deltas.delta import assemble
from ...runtime.model.folders.folder import read_manifest, write_manifest
from ...runtime.model.generated import Generated
from ...runtime.model.kinds.forms import Reads
from ...runtime.model.kinds.generation import make_output
from ...runtime.model.model import Model
from ...schemas.manifest import MANIFEST_NAME, ModelManifest, TaskSpec
from ..data.example import Example, digest_rows
from ..kinds.answers import Answer, Score
from ..kinds.examine import examine
from ..kinds.registry import kind_of
from ..prepare.data_report import TaskReport
from ..prepare.format_keys import describe_unused_keys
from ..prepare.reading import read_part
from ..recipe.keys.reading import Source
from ..recipe.keys.tasks import Task
from ..recipe.recipe import Recipe, load_recipe
from ..report.figures import rounded
from ..report.made import Made, read_recipe
from ..report.markdown import markdown
from ..report.page import contained, write_pages
from ..report.page_data import find_run, gather, read_record
from ..report.parts import describe_training
from ..run_folders.os_errors import as_os_error, write_text
from ..run_folders.run_folder import PAGE
from ..run_folders.smaller import read_comparison, remove_comparison, save_comparison
from .against_teacher import AskedSet, compare_with_teacher
from .baselines import Baselines
from .recent_logits import ask, join_logits

TEST: Final = "test"
_ASKED_ROWS: Final = 256
Scores = dict[str, dict[str, Score]]
"""Task, then set."""


def evaluate(
    folder: Path,
    data: Path,
    *,
    recipe: Path | None = None,
    base: Path | None = None,
    run: Path | None = None,
    texts: bool = True,
    print_line: Callable[[str], None] = lambda line: None,
) -> Scores:
    """Score a model or delta folder on its recipe's test parts and further `reports`; write the report into it.

    The figures stand in `report.json`, `report.md`, `report.html` and the manifest's `metrics`. `recipe` is needed when data lies beside
    it, `base` when a delta's base is a folder. `run` is the folder of its training, by default FOLDER.run where that made
    it: its curves are shown, and with `texts` it gets a page of its own with texts of rows. `print_line` is called with
    notes on the recipe, and with what failed in making the pages. Raises SetupError when there is nothing to score.
    """
    manifest = read_manifest(folder)
    read = load_recipe(recipe or folder / "recipe.yaml", past=True)
    for note in describe_unused_keys(read, data):
        print_line(f"note: {note}")
    with tempfile.TemporaryDirectory(prefix="murmura-") as scratch:
        # A delta is assembled apart: in the user's cache it would stay behind once the manifest has its figures.
        servable = folder
        if manifest.is_delta:
            servable = Path(scratch) / "model"
            assemble(folder, base, servable, weights=False)
        model = Model.load(servable, device="auto")
        scores = {
            spec.name: score_task(model, spec, read, data, print_line)
            for spec in manifest.tasks
            if spec.name in read.tasks
        }
        run = run or find_run(folder, manifest)
        with contained("no comparison with the teacher", print_line):
            compare_smaller(model, read, data, run, print_line)
    if not any(scores.values()):
        raise SetupError(
            f"{recipe or folder / 'recipe.yaml'}: no task names `test` or `reports`; there is nothing to score"
        )
    write_report(folder, manifest, scores, read, run=run, texts=texts, print_line=print_line)
    return scores


def compare_smaller(model: Model, recipe: Recipe, data: Path, run: Path | None, say: Callable[[str], None]) -> None:
    """Hold a model that was distilled into a smaller one against its teacher, and write into its run how they compare."""
    record = read_record(run) if run is not None else None
    if run is None or record is None or record.smaller is None:
        return
    remove_comparison(run)
    asked = []
    for name, task in recipe.tasks.items():
        sets = sets_of(task) if name in model.tasks and not kind_of(model.tasks[name]).generates else {}
        for which, sources in [*sets.items()][:1]:
            scope = task.out_of_scope.label if task.out_of_scope else None
            asked.append(AskedSet(name, which, read_part(sources, task, data, seed=recipe.data_seed), scope))
    if asked:
        found = compare_with_teacher(model, run, record.smaller, asked, answers)
        save_comparison(run, found)
        say(found.describe())


def score_task(
    model: Model, spec: TaskSpec, recipe: Recipe, data: Path, print_line: Callable[[str], None] = lambda line: None
) -> dict[str, Score]:
    """Return the scores of one task by set."""
    task = recipe.tasks[spec.name]
    scope = task.out_of_scope.label if task.out_of_scope else None
    sets, found = sets_of(task), {}
    baselines = (
        Baselines(model, spec.generation, recipe, spec.name, data) if spec.generation is not None and sets else None
    )
    for name, sources in sets.items():
        examples = read_part(sources, task, data, seed=recipe.data_seed)
        refuse_unknown_labels(examples, spec, scope)
        score = score_answers([*answers(model, spec, examples)], spec, scope, print_line)
        if baselines is not None:
            score = baselines.add_to(score, examples)
        found[name] = with_probe(score, model.manifest, spec.name, name, examples)
    return found


def score_answers(
    found: Sequence[Answer], spec: TaskSpec, scope: str | None, print_line: Callable[[str], None]
) -> Score:
    """Return the score of answers with what the page shows beside it; the latter fails in a line alone."""
    score = kind_of(spec).score(found, spec, scope)
    with contained(f"{PAGE} shows no details of {spec.name}", print_line):
        return replace(score, findings=examine(kind_of(spec), found, spec, scope))
    return score


def with_probe(score: Score, manifest: ModelManifest, task: str, name: str, examples: Sequence[Example]) -> Score:
    """Put the probe's main figure beside the model's, where training scored it on these very rows."""
    report = TaskReport.model_validate(manifest.data[task]).probe if task in manifest.data else None
    found = report.scores.get(name) if report is not None else None
    if found is None or found.sha256 != digest_rows(examples):
        return score
    main, probed = found.main
    figures: dict[str, float | None] = {}
    for figure, value in score.figures.items():
        figures[figure] = value
        if figure == main:
            figures[f"probe_{main}"] = probed
    return replace(score, figures=figures)


def sets_of(task: Task) -> Mapping[str, Sequence[Source]]:
    """Return the test part and the further sets by name."""
    return ({TEST: task.test} if task.test else {}) | task.reports


def refuse_unknown_labels(examples: Sequence[Example], spec: TaskSpec, scope: str | None) -> None:
    """Raise SetupError for a label that the model does not have."""
    known, kind = frozenset(spec.labels), kind_of(spec)
    for example in examples:
        if scope not in example.labels and (unknown := kind.unknown(example, known)):
            raise SetupError(f"{example.place}: label {unknown!r} is not among those of the model's task {spec.name}")


def answers(model: Model, spec: TaskSpec, examples: Sequence[Example], *, as_served: bool = False) -> Iterator[Answer]:
    """Ask the model for one task, in batches, shortest texts first; answers come in that order.

    A text that the model was asked lately, for whatever task, is not run again. `as_served`: replies are decoded once more, as
    the dialogue agent asks for them.
    """
    if kind_of(spec).generates:
        yield from _replies(model, spec, examples, as_served)
        return
    ordered = sorted(examples, key=lambda example: len(example.text) + len(example.second or ""))
    by_token = kind_of(spec).serving.reads is Reads.TOKENS
    for begin in range(0, len(ordered), _ASKED_ROWS):
        examples = ordered[begin : begin + _ASKED_ROWS]
        texts = [example.given for example in examples]
        asked = ask(model, texts)
        logits = join_logits(asked, spec.name, by_token=by_token)
        outputs = model.decode(logits, [each.encoded for each in asked], texts, [(spec.name,)] * len(asked))
        for example, each, output in zip(examples, asked, outputs, strict=True):
            yield Answer(example, each.encoded.encoding, output[spec.name], each.logits[spec.name])


def _replies(model: Model, spec: TaskSpec, examples: Sequence[Example], as_served: bool) -> Iterator[Answer]:
    given = [each.given for each in examples]
    served: Sequence[Mapping[str, Any] | None] = [None] * len(given)
    if as_served:
        served = [make_output(reply) for reply in generate_as_served(model, spec, examples)]
    for example, reply, other in zip(examples, model.generate(given, task=spec.name), served, strict=True):
        yield Answer(example, Encoding(), dict(make_output(reply)), np.empty(0), other)


def generate_as_served(model: Model, spec: TaskSpec, examples: Sequence[Example]) -> list[Generated]:
    """Return the replies that the dialogue agent would be given: see `forbid_as_served`."""
    known = frozenset(spec.generation.slots if spec.generation is not None else ())
    slots = [known.intersection(list_slots(each.reply or "")) for each in examples]
    return model.generate([each.given for each in examples], slots, task=spec.name, is_forbidden=is_fact_piece)


def record_score(score: Score) -> dict[str, Any]:
    """Return the figures of a set as `report.json` and the manifest hold them; `intervals` has those of 95 % by figure."""
    figures: dict[str, Any] = {**rounded(score.figures)}
    found = {name: score.interval(name) for name, value in figures.items() if value is not None}
    intervals = {name: [round(each.low, 4), round(each.high, 4)] for name, each in found.items() if each is not None}
    return figures | ({"intervals": intervals} if intervals else {})


def write_report(
    folder: Path,
    manifest: ModelManifest,
    scores: Scores,
    recipe: Recipe,
    *,
    run: Path | None = None,
    texts: bool = True,
    texts_into: Path | None = None,
    print_line: Callable[[str], None] = lambda line: None,
) -> None:
    """Write the figures beside the model and into its manifest, and the pages as `evaluate` says; the one with texts goes into
    the folder `texts_into`, by default into that of the run.
    """
    figures = {task: {name: record_score(score) for name, score in by_set.items()} for task, by_set in scores.items()}
    write_text(folder / "report.json", json.dumps(figures, indent=2) + "\n")
    run = run or find_run(folder, manifest)
    smaller = read_comparison(run) if run is not None else None
    made = Made(manifest, read_recipe(folder), read_record(run) if run is not None else None)
    parts = describe_training(made, print_line)
    write_text(folder / "report.md", markdown(manifest, scores, recipe.description, smaller, parts))
    metrics: dict[str, dict[str, Any]] = {}
    for task, by_set in figures.items():
        others = {name: values for name, values in by_set.items() if name != TEST}
        metrics[task] = {**by_set.get(TEST, {}), **({"reports": others} if others else {})}
    roles = {entry.path: str(entry.role) for entry in manifest.files} | {"report.json": "report", "report.md": "report"}
    with as_os_error(folder / MANIFEST_NAME):
        manifest = write_manifest(folder, manifest.model_copy(update={"metrics": metrics}), roles)
    with contained(f"no {PAGE}", print_line):
        page = gather(folder, manifest, scores, recipe.description, run)
        write_pages(page, folder, texts_into or run, texts=texts and recipe.report.texts, say=print_line)

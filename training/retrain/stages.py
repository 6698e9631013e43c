"""The stages of a retraining: each writes a folder of its own, and reads those of the stages before it."""

import asyncio
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from ...runtime.errors import SetupError
from ...runtime.model.folders.folder import read_manifest
from ...runtime.model.model import Model
from ...runtime.release.store import ModelStore
from ...runtime.settings.yaml_file import YamlFile
from ...schemas.manifest import ModelManifest
from ...schemas.result import ModelRef
from ...schemas.review import Review
from ...schemas.training_event import TrainingEventKind as Event
from ..compute.state_file import CannotResume
from ..evaluate.evaluate import Scores, answers, score_answers, write_report
from ..export.export import export
from ..fit.finish.kept_tasks import keep_untaught
from ..fit.loop import Progress, fit
from ..gate.changed_answers import count_changed
from ..gate.held_out import HeldOutSet, held_answers, held_out_sets, unmeasured, with_targets
from ..gate.judged_versions import Judged, count_versions, write_versions
from ..gate.report import to_markdown
from ..gate.targets import find_targets
from ..gate.verdict import Comparison, GateResult, from_json
from ..gate.weigh import Placebo, metrics_by_set, weigh
from ..mix.corrections import Corrections, read_corrections
from ..mix.examples import write_examples
from ..mix.plan import Mix, plan_mix
from ..mix.write import RECIPE, write_mix
from ..recipe.job import Job
from ..recipe.recipe import load_recipe
from ..run_folders.label_errors import read_label_errors
from ..run_folders.os_errors import write_text
from ..run_folders.run_folder import RunFolder, RunRecord, count_steps
from .announce import Announcer
from .checks import check_mix
from .doubts import find_doubts
from .feedback import ingest_for
from .going_live import already_there, check_live, identity, make_current
from .job_files import digest_files, refuse_changed_files
from .limits import describe_kept, keep_limits
from .refits import Trainings, candidate_of, placebo_of
from .sibling_runs import find_judged_candidates
from .starting_point import StartingPoint
from .work_folder import Facts, WorkFolder

REVIEWS: Final = "reviews.jsonl"
RESUMABLE: Final = ("fit", "refits")
"""Stages that an interrupted run finds as it left them."""
Say = Callable[[str], None]


class Stages:
    """What there is to do, by stage. Every `_STAGE(folder)` fills the folder and returns what is worth noting."""

    def __init__(
        self,
        file: YamlFile[Job],
        work: WorkFolder,
        announcer: Announcer,
        start: StartingPoint | None,
        *,
        quiet: bool,
        say: Say,
        begins: Say = lambda stage: None,
    ) -> None:
        self._file, self._job = file, file.value
        self._work, self._announcer, self._start = work, announcer, start
        self._quiet, self._say, self._begins = quiet, say, begins
        self._answered: list[HeldOutSet] | None = None

    # -- what the stages before have left ----------------------------------------------------------------------------

    def _folder(self, stage: str) -> Path:
        return self._work.path / stage

    def _facts(self, stage: str) -> Facts:
        facts = self._work.facts(stage)
        assert facts is not None
        return facts

    @cached_property
    def current(self) -> Path:
        """The folder of the version that the run starts from."""
        return self._folder("current") / str(self._facts("current")["folder"])

    @cached_property
    def manifest(self) -> ModelManifest:
        return read_manifest(self.current)

    @property
    def candidate(self) -> Path:
        return self._folder("evaluate") / "model"

    @cached_property
    def corrections(self) -> Mapping[str, Corrections]:
        return read_corrections(self._folder("data") / "set", self.manifest, self._job.feedback.least_rows)

    @cached_property
    def mix(self) -> Mix:
        known = self._work.facts("mix")
        if known is not None:
            refuse_changed_files(self._work.path, known["files"], digest_files(self._job))
        return plan_mix(self._job, self.manifest, self.corrections)

    @cached_property
    def held_out(self) -> list[HeldOutSet]:
        return held_out_sets(self.mix)

    @cached_property
    def sets(self) -> list[HeldOutSet]:
        """The same, with the targets marked, once they are known."""
        return with_targets(self.held_out, self._facts("mix")["targets"])

    def _held_answers(self, current: Model) -> list[HeldOutSet]:
        """Ask the current version for what is to be agreed with, once a process."""
        if self._answered is None:
            self._answered = held_answers(current, self.mix)
        return self._answered

    @property
    def gate(self) -> GateResult:
        return from_json((self._folder("gate") / "gate.json").read_text(encoding="utf-8"))

    # -- the stages --------------------------------------------------------------------------------------------------

    def _watched(self, sets: Sequence[HeldOutSet], what: str) -> Iterator[HeldOutSet]:
        """Yield the sets beside a bar, on a terminal only."""
        rows = sum(len(held.examples) for held in sets)
        with tqdm(total=rows, desc=what, unit="row", disable=True if self._quiet else None, leave=False) as bar:
            for held in sets:
                yield held
                bar.update(len(held.examples))

    def _current(self, folder: Path) -> Facts:
        start = self._start
        assert start is not None
        name, version = start.manifest.name, start.manifest.version
        start.copy_to(folder / f"{name}-{version}", self._job.model.base)
        facts = {"name": name, "version": version, "digest": start.digest, "folder": f"{name}-{version}"}
        return facts | {"identity": identity(start.manifest), "said": f"{name} {version}"}

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """After a refusal the next run sees the feedback that has come in until then, and what is live by then."""
        try:
            yield
        except SetupError:
            self._work.forget("data")
            self._work.forget("current")
            raise

    def _data(self, folder: Path) -> Facts:
        given, target = self._job.feedback, folder / "set"
        with self._refusing():
            if given.data is not None:
                if not given.data.is_dir():  # a resumed run does not look for it beforehand
                    raise self._file.refusal(("feedback", "data"), f"{given.data}: no such folder")
                shutil.copytree(given.data, target)
            elif given.examples is not None:
                write_examples(given.examples, self.manifest, target, given.examples_heldout)
            else:
                asyncio.run(ingest_for(self._job, self.manifest, target, quiet=self._quiet))
            found = read_corrections(target, self.manifest, given.least_rows)
        said = [f"{name} {len(each.train)} rows and {len(each.heldout)} held out" for name, each in found.items()]
        new = {name: each.new for name, each in found.items() if each.new}
        said += [f"new to {name}: {', '.join(labels)}" for name, labels in new.items()]
        return {"new": new, "said": "; ".join(said)}

    def _mix(self, folder: Path) -> Facts:
        for stage in RESUMABLE:
            self._work.drop(stage)  # it was begun on other rows
        with self._refusing():
            check_mix(self._file, self.mix)
            current = Model.load(self.current)
            sets = [*self.held_out, *self._held_answers(current)]
            targets = find_targets(self._file, current, self.mix, sets)
        counts = write_mix(self.mix, self.current, folder)
        said = [f"{task} {_counted(each['rows'])}" for task, each in counts.items()]
        kept = [f"{task}: {describe_kept(self.mix, task)}" for task in self.mix.kept_limits]
        notes = [*self.mix.unused_keys, *targets.notes, *kept]
        facts = {"tasks": counts, "targets": targets.sets, "notes": notes, "files": digest_files(self._job)}
        return {**facts, "placebo": [*targets.placebo], "said": "; ".join(said)}

    def _fit(self, folder: Path) -> Facts:
        began = self._facts("current")  # perhaps days ago
        check_live(self._job, began["name"], began["identity"], began["version"])
        mixed = self._folder("mix")
        record = self._train(mixed / RECIPE, mixed, folder / "run", self._report_progress)
        grown = {task: dict(labels) for task, labels in record.grown.items()}
        said = f"{count_steps(record.steps)} in {record.cpu_seconds:.0f} CPU-seconds, best at {record.best_step}"
        return {"grown": grown, "steps": record.steps, "cpu_seconds": record.cpu_seconds, "said": said}

    def _train(self, recipe: Path, data: Path, out: Path, report: Callable[[Progress], None]) -> RunRecord:
        """Train on from the current version, or resume; returns the record."""
        train = partial(fit, recipe, data, out, encoder=self.current, quiet=self._quiet, on_progress=report)
        try:
            record = train(resume=True)
        except CannotResume as error:
            self._say(f"{out.parent.name}: begins anew: {error.reason}")
            record = train()
        keep_untaught(RunFolder(out), self.current, self.manifest)
        keep_limits(out, self.mix)
        return record

    def _report_progress(self, progress: Progress) -> None:
        self._announcer.say(
            Event.PROGRESS, step=progress.step, steps=progress.steps, loss=progress.loss, metrics=progress.metrics
        )

    def _export(self, folder: Path) -> Facts:
        made = export(self._folder("fit") / "run", folder / "model")
        return {"said": f"{sum(entry.bytes for entry in made.files) / 1e6:.1f} MB, equal to torch"}

    def _evaluate(self, folder: Path) -> Facts:
        shutil.copytree(self._folder("export") / "model", folder / "model")
        model = Model.load(folder / "model")
        scores: Scores = {}
        for held in self._watched(self.sets, "evaluate"):
            spec = model.tasks[held.task]
            found = score_answers([*answers(model, spec, held.examples)], spec, held.scope, self._say)
            scores.setdefault(held.task, {})[held.name] = found
        made, run = folder / "model", self._folder("fit") / "run"
        recipe = load_recipe(made / RECIPE, past=True)
        write_report(made, model.manifest, scores, recipe, run=run, texts_into=folder, print_line=self._say)
        write_versions(folder / "model", self._count_versions(self.sets))
        rows = sum(len(held.examples) for held in self.sets)
        return {"said": f"{rows} held-out rows in {len(self.sets)} sets"}

    def _count_versions(self, sets: Sequence[HeldOutSet]) -> dict[tuple[str, str], Judged]:
        others = find_judged_candidates(self._work.path, self._facts("current")["identity"])
        return count_versions(self.current, sets, others=others)

    def _refits(self, folder: Path) -> Facts:
        """Train what the gate needs beside the candidate: a placebo, and candidates of other seeds."""
        mixed, withheld = self._folder("mix"), self._facts("mix")["placebo"]
        trainings = Trainings(folder, lambda recipe, data, out: self._train(recipe, data, out, lambda progress: None))
        if withheld:
            steps = RunFolder(self._folder("fit") / "run").record().planned_steps
            trainings.add_placebo(lambda data: write_mix(self.mix, self.current, data, withheld=withheld, steps=steps))
        for seed in self._other_seeds:
            trainings.add_seed(mixed / RECIPE, mixed, seed)
        return {"said": ", ".join(trainings.made) or "none needed"}

    @property
    def _other_seeds(self) -> range:
        return range(self._job.fit.seed + 1, self._job.fit.seed + self._job.gate.seeds)

    def _gate(self, folder: Path) -> Facts:
        before, after = Model.load(self.current), Model.load(self.candidate)
        trainings, withheld = self._folder("refits"), self._facts("mix")["placebo"]
        placebo = Placebo(Model.load(placebo_of(trainings)), withheld) if withheld else None
        others = {seed: Model.load(candidate_of(trainings, seed)) for seed in self._other_seeds}
        sets = [*self.sets, *self._held_answers(before)]
        notes = [*self._facts("mix")["notes"], *unmeasured(self.mix, sets)]
        versions = {place: each.versions for place, each in self._count_versions(sets).items()}
        result = weigh(before, after, self._watched(sets, "gate"), self._job.gate, notes, versions, placebo, others)
        result = replace(result, changed=tuple(count_changed(before, after, self.mix)))
        write_text(folder / "gate.json", result.to_json())
        about = {"model": self.manifest.name, "current": str(self.manifest.version), "run": self._work.run}
        write_text(folder / "gate.md", to_markdown(result, about))
        self._announcer.say(Event.EVALUATED, metrics=metrics_by_set(result))
        outcome = Event.GATE_PASSED if result.passed else Event.GATE_REFUSED
        self._announcer.say(outcome, gate=[c.figure() for c in result.comparisons], message=result.reason or None)
        reviews = find_doubts(
            after,
            sets,
            self.corrections,
            current=before,
            replayed={name: self.mix.replayed(name) for name in self.mix.old},
            roots=self._roots(),
            label_errors=read_label_errors(self._folder("fit") / "run"),
        )
        if result.passed:  # asked once the version has its number
            write_text(folder / REVIEWS, "".join(f"{each.model_dump_json()}\n" for each in reviews))
        else:
            self._announcer.ask(reviews)
        said = "; ".join(["passed" if result.passed else "refused", *notes])
        return {"passed": result.passed, "reason": result.reason, "said": said}

    def _roots(self) -> list[Path]:
        old = self._job.old
        return [*([old.folder] if old and old.recipe else []), self._folder("data"), self._file.path.parent.resolve()]

    def _push(self, folder: Path) -> Facts:
        if not self._job.release.push or self._job.model.store is None:
            why = "the job names no model.store" if self._job.release.push else "release.push is false"
            self._ask(None)
            return {"said": f"not pushed: {why}; the candidate lies in {self.candidate}"}
        store = ModelStore(self._job.model.store)
        version = already_there(store, read_manifest(self.candidate)) or store.push(self.candidate)
        self._ask(version)
        name = self.manifest.name
        return {
            "version": version,
            "digest": store.digest(name, version),
            "said": f"{name} {version} in {store.address}",
        }

    def _ask(self, version: int | None) -> None:
        lines = (self._folder("gate") / REVIEWS).read_text(encoding="utf-8").splitlines()
        reviews: Iterable[Review] = (Review.model_validate_json(line) for line in lines)
        if version is not None:
            by = ModelRef(name=self.manifest.name, version=version)
            reviews = (review.model_copy(update={"model": by}) for review in reviews)
        self._announcer.ask(list(reviews))

    def _release(self, folder: Path) -> Facts:
        pushed, began = self._facts("push"), self._facts("current")
        if "version" not in pushed or not self._job.release.release or self._job.kafka is None:
            return {"said": "not released"}
        name, version = self.manifest.name, pushed["version"]
        generation = asyncio.run(
            make_current(
                self._job,
                name,
                version,
                pushed["digest"],
                began=began["identity"],
                began_version=began["version"],
                why=self._job.release.why or _gain(self.gate),
            )
        )
        self._announcer.say(Event.RELEASED, version=version, generation=generation)
        return {"generation": generation, "said": f"{name} {version} is current (generation {generation})"}


def _gain(result: GateResult) -> str:
    gains = [_describe_gain(each) for each in result.targets if each.passes]
    return f"right now, held out: {'; '.join(gains)}"[:900]


def _describe_gain(c: Comparison) -> str:
    if c.unit:
        return f"{c.task} {c.unit} {100 * c.found.candidate:.1f}, before {100 * c.found.current:.1f} ({c.set})"
    before = f", before {round(c.found.current * c.found.rows)}" if c.drawn else ""
    return f"{c.task} {round(c.found.candidate * c.found.rows)} of {c.found.rows}{before} ({c.set})"


def _counted(rows: Mapping[str, Any]) -> str:
    return ", ".join(f"{count} {name}" for name, count in rows.items() if count)

"""Retraining as a job: feedback in, a released version out, or a refusal with its figures.

Each stage writes a folder of its own and is not done twice, so that an interrupted run goes on where it was.
"""

import asyncio
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from ..runtime.errors import MurmuraError, SetupError, VersionRefused
from ..runtime.model import Model
from ..runtime.model_store import ModelStore
from ..runtime.releases import publish_state, read_states
from ..runtime.store import read_manifest
from ..schemas.manifest import ModelManifest
from ..schemas.release import released
from ..schemas.result import ModelRef
from ..schemas.training_event import TrainingEventKind as Event
from .announce import Announcer
from .corrections import Corrections, read_corrections
from .doubts import find_doubts
from .evaluate import Scores, answers, write_report
from .export import export
from .fit import Progress, fit
from .gate import GateResult, from_json
from .gate_rows import HeldOutSet, accuracy_by_set, held_out_sets, weigh
from .job import Job, check_names, read_job
from .job_feedback import ingest_for
from .kinds import KINDS
from .mix import RECIPE, Mix, plan_mix, write_mix
from .recipe import load_recipe
from .run_folder import RunFolder
from .starting_point import StartingPoint, find_start
from .work_folder import DONE, Facts, WorkFolder

STAGES: Final = ("current", "data", "mix", "fit", "export", "evaluate", "gate", "push", "release")
Say = Callable[[str], None]


class GateRefused(MurmuraError):
    """The candidate is not good enough. The message is one line with the reason and where the report lies."""


@dataclass(frozen=True)
class Retrained:
    """What came of a job. `version` is None when it was not to be pushed, `generation` when it was not to be released."""

    name: str
    gate: GateResult
    report: Path
    version: int | None = None
    generation: int | None = None


def retrain(path: Path, work: Path, *, quiet: bool = False, say: Say = lambda line: None) -> Retrained:
    """Do what a job says; goes on from the last finished stage in `work`.

    Raises SetupError for what is wrong beforehand, GateRefused when the candidate may not take the current one's place.
    """
    file = read_job(path)
    job = file.value
    start = None
    if not (work / "current" / DONE).is_file():
        start = find_start(job)
        check_names(file, start.manifest)
        if job.old is not None:
            load_recipe(job.old.recipe)
    started = WorkFolder(work, path)
    name = start.manifest.name if start else started.facts("current")["name"]  # type: ignore[index]
    with Announcer(job.kafka, job.prefix, started.run, name) as announcer:
        run = Retraining(job, started, announcer, start, quiet=quiet, say=say)
        try:
            return run.to_the_end()
        except GateRefused:
            raise
        except Exception as error:
            announcer.say(Event.FAILED, message=str(error) if isinstance(error, MurmuraError) else type(error).__name__)
            raise


class Retraining:
    """One run of a job. Owns the work folder; what a stage needs of those before it, it reads from their folders."""

    def __init__(
        self,
        job: Job,
        work: WorkFolder,
        announcer: Announcer,
        start: StartingPoint | None,
        *,
        quiet: bool,
        say: Say,
    ) -> None:
        self._job, self._work, self._announcer, self._start = job, work, announcer, start
        self._quiet, self._say = quiet, say

    def to_the_end(self) -> Retrained:
        """Take every stage that is not done yet."""
        for stage in STAGES:
            known = self._work.facts(stage)
            facts = self._work.take(stage, getattr(self, f"_{stage}"))
            self._say(f"{stage}: {facts['said']}{' (done before)' if known else ''}")
            if stage == "current":
                self._announcer.current = ModelRef(name=facts["name"], version=facts["version"])
                self._announcer.say(Event.STARTED, message="goes on" if known else None)
            if stage == "gate" and not facts["passed"]:
                report = self._folder("gate") / "gate.md"
                raise GateRefused(f"the gate refused the candidate: {self.gate.reason}; report: {report}")
        pushed, made_current = self._facts("push"), self._facts("release")
        report = self._folder("gate") / "gate.md"
        return Retrained(self.manifest.name, self.gate, report, pushed.get("version"), made_current.get("generation"))

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
        return plan_mix(self._job, self.manifest, self.corrections)

    @cached_property
    def sets(self) -> list[HeldOutSet]:
        return held_out_sets(self.mix)

    @property
    def gate(self) -> GateResult:
        return from_json((self._folder("gate") / "gate.json").read_text(encoding="utf-8"))

    # -- the stages --------------------------------------------------------------------------------------------------

    def _current(self, folder: Path) -> Facts:
        start = self._start
        assert start is not None
        name, version = start.manifest.name, start.manifest.version
        start.copy_to(folder / f"{name}-{version}", self._job.model.base)
        facts = {"name": name, "version": version, "digest": start.digest, "folder": f"{name}-{version}"}
        return facts | {"in_store": start.store is not None, "said": f"{name} {version}"}

    def _data(self, folder: Path) -> Facts:
        given, target = self._job.feedback, folder / "set"
        if given.data is not None:
            if not given.data.is_dir():
                raise SetupError(
                    f"{given.data}: no such folder; expected one that `murmura ingest` made (feedback.data)"
                )
            shutil.copytree(given.data, target)
        else:
            assert self._job.kafka is not None
            asyncio.run(ingest_for(self._job, self.manifest, target))
        found = read_corrections(target, self.manifest, given.least_rows)
        said = [f"{name} {len(each.train)} rows and {len(each.heldout)} held out" for name, each in found.items()]
        new = {name: each.new for name, each in found.items() if each.new}
        said += [f"new to {name}: {', '.join(labels)}" for name, labels in new.items()]
        return {"new": new, "said": "; ".join(said)}

    def _mix(self, folder: Path) -> Facts:
        if not self.sets or not any(held.target for held in self.sets):
            raise SetupError(
                "the feedback has no held-out rows of a target, so nothing could pass the gate; raise feedback.ingest.heldout, "
                "or see gate.target"
            )
        counts = write_mix(self.mix, self.current, folder)
        said = [f"{task} {_counted(each['rows'])}" for task, each in counts.items()]
        return {"tasks": counts, "said": "; ".join(said)}

    def _fit(self, folder: Path) -> Facts:
        mixed = self._folder("mix")
        out = folder / "run"
        record = fit(mixed / RECIPE, mixed, out, encoder=self.current, quiet=self._quiet, told=self._tell_progress)
        self._keep_limits(out)
        grown = {task: dict(labels) for task, labels in record.grown.items()}
        said = f"{record.steps} batches in {record.cpu_seconds:.0f} CPU-seconds, best at {record.best_step}"
        return {"grown": grown, "steps": record.steps, "cpu_seconds": record.cpu_seconds, "said": said}

    def _keep_limits(self, run: Path) -> None:
        """Tasks without old data keep calibration and thresholds: what they were held to are no labels to choose on."""
        folder = RunFolder(run)
        record = folder.record()
        specs = [
            spec
            if spec.name in self.mix.old
            else spec.model_copy(
                update={
                    "calibration": self.manifest.task(spec.name).calibration,
                    "thresholds": self.manifest.task(spec.name).thresholds,
                }
            )
            for spec in record.tasks
        ]
        folder.save_record(record.model_copy(update={"tasks": specs}))

    def _tell_progress(self, progress: Progress) -> None:
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
        for held in self.sets:
            spec = model.tasks[held.task]
            found = KINDS[spec.kind].score(list(answers(model, spec, held.examples)), spec, held.scope)
            scores.setdefault(held.task, {})[held.name] = found
        write_report(folder / "model", model.manifest, scores)
        rows = sum(len(held.examples) for held in self.sets)
        return {"said": f"{rows} held-out rows in {len(self.sets)} sets"}

    def _gate(self, folder: Path) -> Facts:
        before, after = Model.load(self.current), Model.load(self.candidate)
        result = weigh(before, after, self.sets, self._job.gate)
        (folder / "gate.json").write_text(result.to_json(), encoding="utf-8")
        about = {"model": self.manifest.name, "current": str(self.manifest.version), "run": self._work.run}
        (folder / "gate.md").write_text(result.to_markdown(about), encoding="utf-8")
        self._announcer.say(Event.EVALUATED, metrics=accuracy_by_set(result))
        outcome = Event.GATE_PASSED if result.passed else Event.GATE_REFUSED
        figures = [each.figure() for each in result.comparisons]
        self._announcer.say(outcome, gate=figures, message=result.reason or None)
        self._announcer.ask(find_doubts(after, self.sets, self.corrections))
        return {"passed": result.passed, "reason": result.reason, "said": "passed" if result.passed else "refused"}

    def _push(self, folder: Path) -> Facts:
        if not self._job.release.push or self._job.model.store is None:
            why = "the job names no model.store" if self._job.release.push else "release.push is false"
            return {"said": f"not pushed: {why}; the candidate lies in {self.candidate}"}
        store = ModelStore(self._job.model.store)
        version = _already_there(store, read_manifest(self.candidate)) or store.push(self.candidate)
        name = self.manifest.name
        return {"version": version, "digest": store.digest(name, version), "said": f"{name} {version} in {store.where}"}

    def _release(self, folder: Path) -> Facts:
        pushed = self._facts("push")
        if "version" not in pushed or not self._job.release.release or self._job.kafka is None:
            return {"said": "not released"}
        generation = asyncio.run(self._make_current(pushed["version"], pushed["digest"]))
        name, version = self.manifest.name, pushed["version"]
        self._announcer.say(Event.RELEASED, version=version, generation=generation)
        return {"generation": generation, "said": f"{name} {version} is current (generation {generation})"}

    async def _make_current(self, version: int, digest: str) -> int:
        assert self._job.kafka is not None
        kafka, topic = self._job.kafka, f"{self._job.prefix}.models"
        name, began = self.manifest.name, self._facts("current")
        state = (await read_states(kafka, topic)).get(name)
        if state is not None:
            if state.current.digest == digest:
                return state.generation
            if began["in_store"] and state.current.digest != began["digest"]:
                raise SetupError(
                    f"{name} {state.current.version} was released meanwhile; the gate compared with {began['version']}: "
                    f"release {version} by hand, or run the job anew in another --work"
                )
        why = self._job.release.why or _gain(self.gate)
        new = released(state, name, version, digest, by=self._job.release.by, why=why, at=datetime.now(UTC))
        await publish_state(kafka, topic, new)
        return new.generation


def _already_there(store: ModelStore, manifest: ModelManifest) -> int | None:
    """Return the version that is this very model: pushed before an interruption, which came before the marker."""

    def files(of: ModelManifest) -> set[tuple[str, str]]:
        return {(entry.path, entry.sha256) for entry in of.files}

    try:
        newest = store.versions(manifest.name)[-3:]
    except VersionRefused:  # a folder that the first push makes; any other trouble meets the push, too
        return None
    return next((v for v in reversed(newest) if files(store.describe(manifest.name, v)) == files(manifest)), None)


def _gain(result: GateResult) -> str:
    gains = [
        f"{c.task}: {100 * c.found.current:.1f} to {100 * c.found.candidate:.1f}"
        for c in result.comparisons
        if c.target
    ]
    return f"feedback, held out: {'; '.join(gains)}"[:900]


def _counted(rows: Mapping[str, Any]) -> str:
    return ", ".join(f"{count} {name}" for name, count in rows.items() if count)

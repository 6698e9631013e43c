"""Retraining as a job: feedback in, a released version out, or a refusal with its figures.

Each stage writes a folder of its own and is not done twice, and training resumes at the last saved state, so that an
interrupted run goes on where it was.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...runtime.errors import MurmuraError, SetupError
from ...runtime.settings.yaml_file import YamlFile
from ...schemas.result import ModelRef
from ...schemas.training_event import TrainingEventKind as Event
from ..gate.verdict import GateResult
from ..recipe.job import Job, read_job
from .announce import Announcer
from .checks import check_job
from .outbox import Outbox
from .stages import RESUMABLE, Say, Stages
from .starting_point import StartingPoint
from .work_folder import WorkFolder, refuse_overlaps

STAGES: Final = ("current", "data", "mix", "fit", "export", "evaluate", "refits", "gate", "push", "release")


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
    before: bool = False
    """It was finished before, and nothing has been done now."""


def retrain(
    path: Path,
    work: Path,
    *,
    quiet: bool = False,
    say: Say = lambda line: None,
    begins: Say = lambda stage: None,
) -> Retrained:
    """Do what a job says; goes on from the last finished stage in `work`. `say` hears of what is done, `begins` of what is next.

    Raises SetupError for what is wrong beforehand, GateRefused when the candidate may not take the current one's place.
    """
    file = read_job(path)
    refuse_overlaps(file.value, work)
    folder = WorkFolder(work.resolve(), path)
    # Before the folder is made: a job with a mistake leaves nothing behind.
    start = None if folder.goes_on(["current"]) else check_job(file).start
    with folder:
        if start is None and not folder.goes_on(["current"]):  # another process has begun anew meanwhile
            start = check_job(file).start
        return _go_on(file, folder, start, quiet=quiet, say=say, begins=begins)


def _go_on(
    file: YamlFile[Job], folder: WorkFolder, start: StartingPoint | None, *, quiet: bool, say: Say, begins: Say
) -> Retrained:
    job, outbox = file.value, Outbox(folder.path)
    before = folder.facts("current")
    name = str(before["name"]) if before else start.manifest.name if start else ""
    gate = folder.facts("gate")
    ended = folder.goes_on(STAGES) or bool(gate and not gate["passed"])
    kafka = None if ended and not outbox.unsent else job.kafka
    announcer = Announcer(kafka, job.prefix, folder.run, name, outbox)
    run = Retraining(file, folder, announcer, start, quiet=quiet, say=say, begins=begins)
    try:
        if ended:
            with suppress(SetupError), announcer:  # only to publish what is left
                pass
            return run.as_it_ended()
        with announcer:
            return _run_to_the_end(run, announcer)
    finally:
        if job.kafka is not None and outbox.unsent:
            say(
                f"warning: {outbox.unsent} records about the run could not be published; they are kept in "
                f"{folder.path}, and the same command publishes them once the broker answers"
            )


def _run_to_the_end(run: "Retraining", announcer: Announcer) -> Retrained:
    try:
        return run.to_the_end()
    except GateRefused:
        raise
    except Exception as error:
        announcer.say(Event.FAILED, message=str(error) if isinstance(error, MurmuraError) else type(error).__name__)
        raise


class Retraining(Stages):
    """One run of a job. Owns the work folder; what a stage needs of those before it, it reads from their folders."""

    def to_the_end(self) -> Retrained:
        """Take every stage that is not done yet."""
        for stage in STAGES:
            known = self._work.facts(stage)
            if not known:
                self._begins(stage)
            facts = self._work.take(stage, getattr(self, f"_{stage}"), resumes=stage in RESUMABLE)
            self._say(f"{stage}: {facts['said']}{' (done before)' if known else ''}")
            if stage == "current":
                self._announcer.current = ModelRef(name=facts["name"], version=facts["version"])
                self._announcer.say(Event.STARTED, message="goes on" if known else None)
            if stage == "gate":
                self._refuse()
        return self._ended()

    def as_it_ended(self) -> Retrained:
        """Return, or raise, once more what came of a run that is over."""
        self._refuse()
        return self._ended(before=True)

    def _refuse(self) -> None:
        if not self._facts("gate")["passed"]:
            report = self._folder("gate") / "gate.md"
            raise GateRefused(f"the gate refused the candidate: {self.gate.reason}; report: {report}")

    def _ended(self, *, before: bool = False) -> Retrained:
        pushed, made_current = self._facts("push"), self._facts("release")
        return Retrained(
            self.manifest.name,
            self.gate,
            self._folder("gate") / "gate.md",
            pushed.get("version"),
            made_current.get("generation"),
            before,
        )

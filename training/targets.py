"""What the gate must be able to see before anything is trained: that something became better, and nothing worse."""

from collections.abc import Mapping, Sequence

from ..runtime.errors import SetupError
from ..runtime.model.model import Model
from ..runtime.settings.yaml_file import Place, YamlFile
from .corrections import TooLittleFeedback
from .evaluate import answers
from .gate import LEAST_ROWS
from .gate_rows import FEEDBACK, NEW_LABELS, HeldOutSet, scope_of
from .job import Job
from .mix import Mix
from .outcomes import is_wrong


def find_targets(file: YamlFile[Job], current: Model, mix: Mix, sets: Sequence[HeldOutSet]) -> list[str]:
    """Return the tasks that the job names, else those with ten held-out rows that the current version gets wrong.

    Confirmations alone and stray corrections make no target: on them nothing can be proven better. TooLittleFeedback
    when there is none, or too few rows of one that was named: nothing could pass the gate. SetupError when none of the
    `sets`, held answers included, would show that a task which is trained on feedback forgets the rest.
    """
    wrong = {}
    for task, each in mix.corrections.items():
        spec, scope = current.tasks[task], scope_of(mix, task)
        wrong[task] = sum(is_wrong(answer, spec, scope) for answer in answers(current, spec, each.heldout))
    named = file.value.gate.target
    found = _corrected(file, wrong, mix) if named is None else _named(file, named, mix)
    if not file.value.gate.allow_unmeasured:
        _refuse_unmeasured(file, wrong, mix, sets)
    return found


def _named(file: YamlFile[Job], named: list[str], mix: Mix) -> list[str]:
    for at, task in enumerate(named):
        rows = len(mix.corrections[task].heldout) if task in mix.corrections else 0
        if rows < LEAST_ROWS:
            raise _too_little(
                file,
                ("gate", "target", at),
                f"the feedback holds {rows} rows of {task} out, a target needs {LEAST_ROWS}; raise "
                "feedback.ingest.heldout, gather more feedback, or leave it out",
            )
    if not named:
        raise file.refusal(("gate", "target"), "expected at least one task; leave it out for those that were corrected")
    return list(named)


def _corrected(file: YamlFile[Job], wrong: Mapping[str, int], mix: Mix) -> list[str]:
    found = [task for task, rows in wrong.items() if rows >= LEAST_ROWS]
    if not found:
        there = ", ".join(
            f"{rows} of {len(mix.corrections[task].heldout)} rows of {task}" for task, rows in wrong.items()
        )
        raise _too_little(
            file,
            ("feedback",),
            f"no task could be shown to become better: the current version is wrong on {there or 'no row'} that the "
            f"feedback holds out, {LEAST_ROWS} of a task are needed; gather more corrections, raise "
            "feedback.ingest.heldout, or name gate.target",
        )
    return found


def _too_little(file: YamlFile[Job], place: Place, message: str) -> SetupError:
    return TooLittleFeedback(str(file.refusal(place, message)))


def _refuse_unmeasured(file: YamlFile[Job], wrong: Mapping[str, int], mix: Mix, sets: Sequence[HeldOutSet]) -> None:
    """What was new or wrong before says nothing of what may be lost: only other rows do."""
    for task, each in mix.corrections.items():
        others = [held for held in sets if held.task == task and held.name not in {FEEDBACK, NEW_LABELS}]
        rows = sum(len(held.examples) for held in others) + len(each.heldout) - wrong[task]
        if rows < LEAST_ROWS:
            raise file.refusal(
                ("feedback",),
                f"nothing would show what task {task} forgets: {rows} rows held out that it gets right now, "
                f"{LEAST_ROWS} are needed; name usual texts in hold.texts, labelled ones in gate.reports, old data, or "
                "set gate.allow_unmeasured: true",
            )

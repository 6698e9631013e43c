"""What a job would do, as far as that can be known without doing it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ...runtime.release.store_address import StoreAddress
from ...schemas.manifest import TaskSpec
from ..gate.held_out import DRAWN, HELD, NEW_LABELS, texts_to_agree_on
from ..recipe.job import Job, read_job
from .checks import Checked, check_job
from .going_live import releases

_AIMS: Final = {NEW_LABELS: ", of which all have to become right", DRAWN: ", of which more have to be right"}


def preview(path: Path) -> Iterator[str]:
    """Yield a line for each thing that a job would do; SetupError for the first that it could not."""
    checked = check_job(read_job(path))
    manifest = checked.start.manifest
    yield f"start from {manifest.name} {manifest.version}: {', '.join(_describe_task(spec) for spec in manifest.tasks)}"
    yield from _ingested(checked) if checked.plan is not None else _learned(checked)
    yield from _kept(checked)
    yield from _compared(checked)
    yield from _trained_beside(checked)
    yield _end(checked.file.value)


def _describe_task(spec: TaskSpec) -> str:
    return f"{spec.name} ({len(spec.labels)} labels{', open' if spec.open else ''})"


def _ingested(checked: Checked) -> Iterator[str]:
    assert checked.plan is not None
    for role in ("feedback", "results", "requests"):
        ranges = [each for each in checked.plan.ranges if each.role == role]
        count = sum(each.end - each.start for each in ranges)
        yield f"ingest {count:,} records of {role} from {', '.join(sorted({each.topic for each in ranges}))}"


def _learned(checked: Checked) -> Iterator[str]:
    for name, each in checked.corrections.items():
        new = f", new labels: {', '.join(each.new)}" if each.new else ""
        yield f"learn {name}: {len(each.train)} rows, {len(each.heldout)} held out{new}"
        for label, rows in sorted(each.left_out.items()):
            yield f"left out {name}: {rows} rows of {label!r}, which is new and too rare, or the task is closed"


def _kept(checked: Checked) -> Iterator[str]:
    mix, job = checked.mix, checked.file.value
    yield from (f"note: {line}" for line in mix.unused_keys)
    for spec in checked.start.manifest.tasks:
        if spec.name in mix.old:
            pool = len(mix.old[spec.name].train) + len(mix.taught_earlier(spec.name))
            yield f"replay {spec.name}: {len(mix.replayed(spec.name)):,} of {pool:,} old rows"
        elif spec.name in mix.untaught:
            yield f"keep the decoder of {spec.name} as it is: no rows"
        elif spec.generation is not None:
            yield f"learn {spec.name} without old rows: what it words otherwise so far is not held on to"
        else:
            yield f"hold on to {spec.name}: the current answers on the new texts and {len(job.hold.texts)} further files"
            if earlier := len(mix.taught_earlier(spec.name)):
                yield f"learn {spec.name} once more: {earlier:,} rows of earlier feedback"


def _compared(checked: Checked) -> Iterator[str]:
    # What topics hold is not known yet.
    for task, why in checked.mix.kept_limits.items() if checked.plan is None else ():
        yield f"keep calibration and thresholds of {task}: {why}"
    for held in checked.sets:
        aim = _AIMS.get(held.name, ", of which the corrected ones have to become right") if held.target else ""
        yield f"compare {held.task} ({held.name}): {len(held.examples)} rows{aim}"
    for task, texts in texts_to_agree_on(checked.mix).items():
        more = " or more" if checked.plan else ""
        yield f"compare {task} ({HELD}): {len(texts)}{more} texts, as far as the current version is sure of its answers"


def _trained_beside(checked: Checked) -> Iterator[str]:
    gate = checked.file.value.gate
    if checked.placebo:
        tasks = ", ".join(checked.placebo)
        yield f"train a placebo without the corrections of {tasks}, as fewer than {gate.least_flip_rows} other rows are wrong: one more training"
    elif checked.plan is not None:
        yield f"train a placebo as well, where corrections are judged and fewer than {gate.least_flip_rows} other rows are wrong"
    if gate.seeds > 1:
        yield f"train the candidate with {gate.seeds - 1} more seeds"


def _end(job: Job) -> str:
    if not job.release.push or job.model.store is None:
        return "push nothing"
    into = f"push into {StoreAddress(job.model.store).shown} when the gate has passed"
    return f"{into}, and release" if releases(job) else f"{into}; release nothing"

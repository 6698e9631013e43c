"""What a job would do, as far as that can be known without doing it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

from ..schemas.manifest import ModelManifest, TaskSpec
from .corrections import read_corrections
from .gate_rows import held_out_sets
from .job import Job, check_names, read_job
from .job_feedback import plan_for
from .mix import plan_mix
from .recipe import load_recipe
from .starting_point import find_start


def preview(path: Path) -> Iterator[str]:
    """Yield a line for each thing that a job would do; SetupError for the first that it could not."""
    file = read_job(path)
    job = file.value
    start = find_start(job)
    manifest = start.manifest
    check_names(file, manifest)
    yield f"start from {manifest.name} {manifest.version}: {', '.join(_told(spec) for spec in manifest.tasks)}"
    if job.feedback.data is not None:
        yield from _with_rows(job, job.feedback.data, manifest)
    else:
        if job.old is not None:
            load_recipe(job.old.recipe)
        ranges = asyncio.run(plan_for(job, manifest)).ranges
        for role in ("feedback", "results", "requests"):
            count = sum(each.end - each.start for each in ranges if each.role == role)
            yield f"ingest {count:,} records of {role} from {', '.join(sorted({r.topic for r in ranges if r.role == role}))}"
    yield _end(job)


def _told(spec: TaskSpec) -> str:
    return f"{spec.name} ({len(spec.labels)} labels{', open' if spec.open else ''})"


def _with_rows(job: Job, folder: Path, manifest: ModelManifest) -> Iterator[str]:
    corrections = read_corrections(folder, manifest, job.feedback.least_rows)
    mix = plan_mix(job, manifest, corrections)
    for name, each in corrections.items():
        new = f", new labels: {', '.join(each.new)}" if each.new else ""
        yield f"learn {name}: {len(each.train)} rows, {len(each.heldout)} held out{new}"
        for label, rows in sorted(each.left_out.items()):
            yield f"left out {name}: {rows} rows of {label!r}, which is new and too rare, or the task is closed"
    for spec in manifest.tasks:
        if spec.name in mix.old and job.old is not None:
            count = round(job.old.replay * len(mix.old[spec.name].train))
            yield f"replay {spec.name}: {count:,} of {len(mix.old[spec.name].train):,} old rows"
        else:
            yield f"hold on to {spec.name}: the current answers on the new texts and {len(job.hold.texts)} further files"
    for held in held_out_sets(mix):
        yield f"compare {held.task} ({held.name}): {len(held.examples)} rows{', has to become better' if held.target else ''}"


def _end(job: Job) -> str:
    if not job.release.push or job.model.store is None:
        return "push nothing"
    into = f"push into {job.model.store} when the gate has passed"
    return f"{into}, and release" if job.release.release and job.kafka else f"{into}; release nothing"

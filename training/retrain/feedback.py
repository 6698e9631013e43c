"""What a job takes from the topics: a data set made once more, or everything that is there now."""

from pathlib import Path

from ...schemas.manifest import ModelManifest
from ...schemas.topics import named_topics
from ..ingest.earlier import earlier_sets
from ..ingest.make import ingest, make_plan
from ..ingest.manifest import Options, Plan, labels_of_model, load_data_set
from ..ingest.progress import show_progress
from ..recipe.job import Job


async def ingest_for(job: Job, manifest: ModelManifest, out: Path, *, quiet: bool = True) -> None:
    """Make the data set that the job names in the new folder `out`; with bars on a terminal, unless it is to be quiet."""
    assert job.kafka is not None
    plan = await plan_for(job, manifest)
    with show_progress(plan, quiet) as progress:
        await ingest(job.kafka, plan, out, progress=progress)


async def plan_for(job: Job, manifest: ModelManifest) -> Plan:
    """Return the records that the job names: those of a manifest, or all that its topics hold now."""
    if job.feedback.manifest is not None:
        return load_data_set(job.feedback.manifest)
    asked = job.feedback.ingest
    assert asked is not None
    assert job.kafka is not None
    ours = [name for name, _ in named_topics(job.prefix) if name.split(".")[-2] in {"classification", "analysis"}]
    turns = ([f"{job.prefix}.dialogue.turns"] if asked.turns is None else asked.turns) if asked.replies else []
    return await make_plan(
        job.kafka,
        feedback=asked.feedback or [f"{job.prefix}.feedback"],
        results=asked.results or [name for name in ours if name.endswith(".results")],
        requests=[*(asked.requests or [name for name in ours if name.endswith(".requests")]), *turns],
        replies=asked.replies,
        reviews=[f"{job.prefix}.reviews"] if asked.reviews is None else asked.reviews,
        options=Options(
            heldout=asked.heldout,
            split=asked.split,
            tasks=asked.tasks,
            operators=asked.operators,
            earlier=earlier_sets(job.old.feedback if job.old else ()),
            labels=labels_of_model(manifest),
            inputs=asked.inputs,
            constants=asked.constants,
        ),
    )

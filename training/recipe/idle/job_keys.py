"""Keys of a job that have no effect beside its other keys: refused with their line before anything starts. Pure."""

from collections.abc import Iterator

from pydantic import BaseModel

from ....runtime.settings.yaml_file import Place
from ..job import Job

Problem = tuple[Place, str]


def find_idle_keys(job: Job) -> Iterator[Problem]:
    """Yield place and message of each key that is set and has no effect."""
    if job.fit.steps is not None and is_given(job.fit, "epochs"):
        yield ("fit", "epochs"), "has no effect beside `fit.steps`; expected one of them"
    if job.fit.lora is not None and is_given(job.fit.lora, "decoder_rank"):
        yield ("fit", "lora", "decoder_rank"), "has no effect: decoders go on from the version, and are trained whole"
    for key in ("data", "replay"):
        if job.old is not None and job.old.recipe is None and is_given(job.old, key):
            yield ("old", key), "has no effect without `old.recipe`, whose rows it is about"
    ingest = job.feedback.ingest
    for key in ("turns", "constants"):
        if ingest is not None and not ingest.replies and getattr(ingest, key):
            yield (
                ("feedback", "ingest", key),
                "has no effect without `replies`, topics whose edited replies are learned",
            )
    if job.kafka is None and is_given(job, "prefix"):
        yield ("prefix",), "has no effect without `kafka`: it names topics"
    yield from _find_in_release(job)


def is_given(model: BaseModel, key: str) -> bool:
    """Return whether a key is set, and not to null, which says as much as leaving it out."""
    return key in model.model_fields_set and getattr(model, key) is not None


def _find_in_release(job: Job) -> Iterator[Problem]:
    """Yield what says how a version goes where it does not go."""
    given = {key: value for key, value in job.release if key in job.release.model_fields_set}
    pushes = job.release.push and job.model.store is not None
    if given.get("push") and not pushes:
        yield ("release", "push"), "has no effect without `model.store`, where versions are pushed"
    if pushes and job.release.release and job.kafka is not None:
        return
    why = "beside `release: false`"
    if job.release.release:
        why = (
            "without `kafka`" if pushes else "as nothing is pushed" if not job.release.push else "without `model.store`"
        )
    for key in ("release", "by", "why"):
        if given.get(key):
            yield ("release", key), f"has no effect {why}: nothing is released"

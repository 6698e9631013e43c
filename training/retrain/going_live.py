"""From a candidate that has passed to the version that everybody serves: pushed once, released only over what it beat."""

import asyncio
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

from ...runtime.errors import SetupError, VersionRefused
from ...runtime.model.folders.folder import OPTIONAL
from ...runtime.release.states import publish_state, read_states
from ...runtime.release.store import ModelStore
from ...schemas.manifest import ModelManifest
from ...schemas.release import ReleaseState, released
from ..recipe.job import Job

_LOOKED_AT: Final = 3


def identity(manifest: ModelManifest) -> str:
    """Return a digest of all that decides how a version answers: its files and its tasks' limits, not its number."""
    files = sorted(f"{entry.path}\0{entry.sha256}" for entry in manifest.files if entry.role not in OPTIONAL)
    tasks = [spec.model_dump_json() for spec in manifest.tasks]
    return sha256("\n".join([*files, *tasks]).encode()).hexdigest()


def releases(job: Job) -> bool:
    """Say whether a job makes its version current."""
    return bool(job.kafka and job.model.store and job.release.push and job.release.release)


async def live_state(job: Job, name: str) -> ReleaseState | None:
    """Return what is current of a model; None when nothing was ever released."""
    assert job.kafka is not None
    return (await read_states(job.kafka, f"{job.prefix}.models")).get(name)


def check_live(job: Job, name: str, began: str, version: int) -> None:
    """Ask the broker, if the job releases anything, and refuse as `refuse_another_live` does."""
    if releases(job):
        refuse_another_live(job, asyncio.run(live_state(job, name)), began, version)


def refuse_another_live(job: Job, state: ReleaseState | None, began: str, version: int) -> None:
    """Raise SetupError when another version is live than the one that the gate compares with, or is in an experiment.

    `began` is the identity of what the run started from, `version` its number.
    """
    if state is None:
        return
    if (tried := state.candidate) is not None and tried.experiment is not None:
        raise SetupError(
            f"{state.name} {tried.version} is in experiment {tried.experiment.id}, which a release would end: run the job "
            f"after it, end it with `murmura models stop {state.name}`, or set release.release: false"
        )
    assert job.model.store is not None
    store, live = ModelStore(job.model.store), state.current
    try:
        same = store.digest(state.name, live.version) == live.digest
        manifest = store.describe(state.name, live.version)
    except VersionRefused as error:
        raise SetupError(
            f"{state.name} {live.version} is live, and the gate has to compare with it, but it cannot be had: {error}"
        ) from None
    if not same or identity(manifest) != began:
        raise SetupError(
            f"{state.name} {live.version} is live (generation {state.generation}), and the gate compares with "
            f"{version}, which is another: start from the live one with model.name and without model.folder, in "
            "another --work, or set release.release: false"
        )


def already_there(store: ModelStore, manifest: ModelManifest) -> int | None:
    """Return the version that is this very model: pushed before an interruption, which came before the marker."""
    try:
        newest = store.versions(manifest.name)[-_LOOKED_AT:]
    except VersionRefused:  # a folder that the first push makes; any other trouble meets the push, too
        return None
    return next((version for version in reversed(newest) if _is_same(store, version, manifest)), None)


def _is_same(store: ModelStore, version: int, manifest: ModelManifest) -> bool:
    try:
        return _files(store.describe(manifest.name, version)) == _files(manifest)
    except VersionRefused as error:
        if error.retriable:  # it may be the one, and would be pushed twice
            raise
        return False


def _files(manifest: ModelManifest) -> set[tuple[str, str]]:
    return {(entry.path, entry.sha256) for entry in manifest.files}


async def make_current(
    job: Job, name: str, version: int, digest: str, *, began: str, began_version: int, why: str
) -> int:
    """Release a version and return the generation, also of the release that an interruption left without a marker.

    SetupError when another version was released meanwhile, or when this one was and somebody has gone back since.
    """
    assert job.kafka is not None
    state = await live_state(job, name)
    if state is not None and state.current.digest == digest:
        return state.generation
    ours = next((step for step in reversed(state.history) if step.digest == digest), None) if state else None
    if ours is not None and state is not None:
        raise SetupError(
            f"{name} {version} was released before (generation {ours.generation}), and since generation "
            f"{state.generation} {name} {state.current.version} is live: it is not released again; "
            f"`murmura models release {name} {version}` would do so"
        )
    refuse_another_live(job, state, began, began_version)
    new = released(state, name, version, digest, by=job.release.by, why=why, at=datetime.now(UTC))
    await publish_state(job.kafka, f"{job.prefix}.models", new)
    return new.generation

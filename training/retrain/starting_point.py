"""The version that a retraining starts from: found, checked, and copied with the weights to train on."""

import asyncio
import shutil
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from ...runtime.errors import SetupError
from ...runtime.model.deltas.delta import assemble
from ...runtime.model.folders.folder import check_folder, read_manifest, read_manifest_bytes
from ...runtime.release.states import read_states
from ...runtime.release.store import ModelStore
from ...schemas.manifest import ModelManifest
from ..recipe.job import Job


@dataclass(frozen=True)
class StartingPoint:
    """A model folder, or a version of a store; `digest` is that of its manifest."""

    manifest: ModelManifest
    digest: str
    folder: Path | None = None
    store: ModelStore | None = None

    def copy_to(self, folder: Path, base: Path | None) -> ModelManifest:
        """Write a model folder that can be served and trained; a delta is assembled. SetupError when it cannot be had."""
        if not self.manifest.is_delta:
            self._fetch(folder)
            return check_folder(folder)
        delta = folder.with_name(f"{folder.name}.delta")
        self._fetch(delta)
        assemble(delta, base, folder)
        shutil.rmtree(delta)
        return read_manifest(folder)

    def _fetch(self, folder: Path) -> None:
        if self.folder is not None:
            check_folder(self.folder)
            shutil.copytree(self.folder, folder)
        elif self.store is not None:
            self.store.copy(self.manifest.name, self.manifest.version, folder)


def find_start(job: Job) -> StartingPoint:
    """Find the version to start from. SetupError when there is none, or when it comes without weights to train on."""
    found = _in_store(job) if job.model.folder is None else _in_folder(job.model.folder)
    has_weights = any(entry.role == "training" for entry in found.manifest.files)
    if not found.manifest.is_delta and not has_weights:
        raise SetupError(
            f"{found.manifest.name} {found.manifest.version} has no weights to train on (role training); push the "
            "folder that `murmura export` wrote"
        )
    if job.model.name is not None and found.manifest.name != job.model.name:
        raise SetupError(
            f"{job.model.folder} is the model {found.manifest.name}, the job's model.name {job.model.name}"
        )
    return found


def _in_folder(folder: Path) -> StartingPoint:
    manifest = read_manifest(folder)
    return StartingPoint(manifest, sha256(read_manifest_bytes(folder)).hexdigest(), folder=folder)


def _in_store(job: Job) -> StartingPoint:
    assert job.model.store is not None
    assert job.model.name is not None
    store, name = ModelStore(job.model.store), job.model.name
    version = _current(job, name)
    if version is None:
        versions = store.versions(name)
        if not versions:
            raise SetupError(
                f"model store {store.address} has no version of {name}; `murmura models push FOLDER` adds one"
            )
        version = versions[-1]
    return StartingPoint(store.describe(name, version), store.digest(name, version), store=store)


def _current(job: Job, name: str) -> int | None:
    if job.kafka is None:
        return None
    state = asyncio.run(read_states(job.kafka, f"{job.prefix}.models")).get(name)
    return state.current.version if state else None

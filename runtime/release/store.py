"""The model store: numbered, immutable versions of models, and fetching one into the cache of a serving process."""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, Final, Protocol

from ...schemas.manifest import MANIFEST_NAME, FileEntry, ModelManifest
from ...schemas.serving_event import RejectReason as Reason
from ..errors import DISK_FULL, ModelRefused, VersionRefused
from ..model.deltas.cache import discard, remove_old, temporary_path, touch
from ..model.folders.folder import (
    MAX_FILE_BYTES,
    MAX_MANIFEST_BYTES,
    OPTIONAL,
    check_folder,
    check_roles,
    is_whole,
    open_checked,
    parse_manifest,
    read_manifest_bytes,
    refuse_path,
    too_large_error,
)
from .store_backends import open_storage

MAX_VERSION_BYTES: Final = 8 * 2**30
_CHUNK: Final = 2**20
_FREE_BYTES: Final = 64 * 2**20


class ModelStore:
    """A folder or an fsspec URL with `NAME/VERSION/`. Every call blocks, and raises VersionRefused on failure.

    Invariants:
    - versions of a name are increasing integers from 1, complete and never changed;
    - nothing is written to a cache before the digest of the manifest and the safety of all its paths are checked;
    - a folder in a cache is complete, and was checked when `fetch` returned it.
    """

    def __init__(self, url: str | Path) -> None:
        """Raises SetupError for a URL of an unknown kind, or one that needs a package that is not installed."""
        self._storage = open_storage(str(url))
        self.address = self._storage.address
        """The address, without credentials."""

    def names(self) -> list[str]:
        """Return the names of all models with at least one version."""
        return self._storage.names()

    def versions(self, name: str) -> list[int]:
        """Return the versions of a model, oldest first; empty without one."""
        _refuse_name(name)
        return self._storage.versions(name)

    def digest(self, name: str, version: int) -> str:
        """Return the SHA-256 of a version's manifest, which names all other files by digest."""
        return sha256(self._manifest_bytes(name, version)).hexdigest()

    def describe(self, name: str, version: int) -> ModelManifest:
        """Return the manifest of a version."""
        return self._manifest(name, version, self._manifest_bytes(name, version))

    def verify(self, name: str, version: int) -> str:
        """Read every file of a version that serving needs, and return the version's digest. Raises VersionRefused."""
        raw = self._manifest_bytes(name, version)
        manifest = self._manifest(name, version, raw)
        wanted = [entry for entry in manifest.files if entry.role not in OPTIONAL]
        with self._name_version_in_errors(name, version):
            _refuse_dangers(manifest, wanted, f"{name} {version}")
        for entry in wanted:
            try:
                with self._storage.open(name, version, entry.path) as source:
                    for _ in verify_chunks(source, entry):
                        pass
            except ModelRefused as error:
                raise VersionRefused(error.reason, f"{name} {version} in {self.address}: {error}") from error
        return sha256(raw).hexdigest()

    def push(self, folder: Path) -> int:
        """Add a model or delta folder as the next version of its model, and return the number.

        The folder is checked first, and every byte again while it is copied. Files that only training reads may be absent;
        then the new version's manifest does not name them. Raises ModelRefused.
        """
        raw = read_manifest_bytes(folder)
        manifest = parse_manifest(raw, str(folder / MANIFEST_NAME))
        check_folder(folder)
        entries = [entry for entry in manifest.files if os.path.lexists(folder / entry.path)]
        copies = {entry.path: _make_copy(folder, entry) for entry in entries}
        return self._storage.add(manifest.name, copies, _make_manifest_writer(raw, {entry.path for entry in entries}))

    def fetch(self, name: str, version: int, digest: str, cache: Path) -> Path:
        """Return the folder in `cache` with the files of a version for serving; its manifest must have this SHA-256.

        A folder in the cache is checked, and fetched again only if it is incomplete. The folder of a delta version is a
        delta folder: `assembled.resolve` assembles it.
        """
        _refuse_name(name)
        folder = cache / f"{name}-{version}-{digest[:32]}"
        if os.path.lexists(folder):
            if is_whole(folder, digest):
                touch(folder)
                return folder
            discard(folder)
        raw = self._manifest_bytes(name, version)
        if sha256(raw).hexdigest() != digest:
            message = f"{name} {version} in {self.address}: its manifest is not the one that was released (SHA-256)"
            raise VersionRefused(Reason.WRONG_DIGEST, message)
        manifest = self._manifest(name, version, raw)
        wanted = [entry for entry in manifest.files if entry.role not in OPTIONAL]
        with self._name_version_in_errors(name, version):
            _refuse_dangers(manifest, wanted, f"{name} {version}")
            self._download(manifest, wanted, raw, folder)
        remove_old(cache, name, folder)
        return folder

    def copy(self, name: str, version: int, folder: Path) -> str:
        """Write all files of a version, also those only for training, into a new folder; returns the version's digest."""
        raw = self._manifest_bytes(name, version)
        manifest = self._manifest(name, version, raw)
        with self._name_version_in_errors(name, version):
            _refuse_dangers(manifest, manifest.files, f"{name} {version}")
            self._download(manifest, manifest.files, raw, folder)
        return sha256(raw).hexdigest()

    def _download(self, manifest: ModelManifest, wanted: list[FileEntry], raw: bytes, folder: Path) -> None:
        temporary = temporary_path(folder)
        try:
            temporary.mkdir(parents=True)
            _check_room(temporary, wanted)
            for entry in wanted:
                target = temporary / entry.path
                target.parent.mkdir(parents=True, exist_ok=True)
                with self._storage.open(manifest.name, manifest.version, entry.path) as source:
                    _write(target, verify_chunks(source, entry))
            (temporary / MANIFEST_NAME).write_bytes(raw)
            _publish(temporary, folder, raw)
        except OSError as error:
            # Errors of the store are raised as VersionRefused, so this is an error of the cache.
            reason = Reason.NO_ROOM if error.errno in DISK_FULL else Reason.FAILED
            raise VersionRefused(reason, f"cache {folder.parent}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _manifest_bytes(self, name: str, version: int) -> bytes:
        _refuse_name(name)
        try:
            with (
                self._name_version_in_errors(name, version),
                self._storage.open(name, version, MANIFEST_NAME) as file,
            ):
                raw = file.read(MAX_MANIFEST_BYTES + 1)
        except VersionRefused as error:
            if error.reason is not Reason.MISSING:
                raise
            raise VersionRefused(Reason.MISSING, self._describe_missing(name, version)) from error
        if len(raw) > MAX_MANIFEST_BYTES:
            message = f"{name} {version}: its manifest has more than {MAX_MANIFEST_BYTES} bytes"
            raise VersionRefused(Reason.TOO_LARGE, message)
        return raw

    def _describe_missing(self, name: str, version: int) -> str:
        known = ", ".join(map(str, self._storage.versions(name)[-10:]))
        found = f"it has {known}" if known else "nor any other; `murmura models push FOLDER` adds one"
        return f"model store {self.address} has no version {version} of {name}: {found}"

    def _manifest(self, name: str, version: int, raw: bytes) -> ModelManifest:
        with self._name_version_in_errors(name, version):
            manifest = parse_manifest(raw, MANIFEST_NAME)
        if (manifest.name, manifest.version) != (name, version):
            message = f"{name} {version}: its manifest says {manifest.name} {manifest.version}"
            raise VersionRefused(Reason.NOT_A_MODEL, message)
        return manifest

    @contextmanager
    def _name_version_in_errors(self, name: str, version: int) -> Iterator[None]:
        """Add name and version to refusals raised in the block."""
        try:
            yield
        except VersionRefused:
            raise
        except ModelRefused as error:
            raise VersionRefused(error.reason, f"{name} {version}: {error}") from error


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def verify_chunks(source: _Readable, entry: FileEntry) -> Iterator[bytes]:
    """Yield a file's bytes, at most one chunk more than in its manifest. Raises VersionRefused if they do not match it."""
    digest, left = sha256(), entry.bytes
    while chunk := source.read(min(_CHUNK, left + 1)):
        left -= len(chunk)
        if left < 0:
            raise VersionRefused(
                Reason.DAMAGED,
                f"{entry.path} has more than the {entry.bytes} bytes of the manifest",
            )
        digest.update(chunk)
        yield chunk
    if left:
        found = f"{entry.bytes - left} bytes, the manifest says {entry.bytes}"
        raise VersionRefused(Reason.DAMAGED, f"{entry.path} has {found}")
    if digest.hexdigest() != entry.sha256:
        raise VersionRefused(
            Reason.DAMAGED,
            f"{entry.path} is not the file that the manifest names (SHA-256)",
        )


def _make_copy(folder: Path, entry: FileEntry) -> Callable[[IO[bytes]], None]:
    def copy(target: IO[bytes]) -> None:
        with open_checked(folder, entry, digest=False) as source:
            for chunk in verify_chunks(source, entry):
                target.write(chunk)

    return copy


def _make_manifest_writer(raw: bytes, paths: set[str]) -> Callable[[int], bytes]:
    """Return a function from number to manifest. Fields that are unknown to this version of murmura are kept."""
    document: dict[str, Any] = json.loads(raw)
    document["files"] = [file for file in document["files"] if file["path"] in paths]

    def manifest(version: int) -> bytes:
        return (json.dumps(document | {"version": version}, indent=2, ensure_ascii=False) + "\n").encode()

    return manifest


def _refuse_name(name: str) -> None:
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name):
        raise VersionRefused(Reason.UNSAFE_PATH, f"{name!r} is not the name of a model")


def _refuse_dangers(manifest: ModelManifest, wanted: list[FileEntry], origin: str) -> None:
    check_roles(manifest, origin)
    for entry in wanted:
        refuse_path(entry.path, origin)
        if entry.path == MANIFEST_NAME:
            raise VersionRefused(Reason.UNSAFE_PATH, f"{origin}: its manifest names itself as a file")
        if entry.bytes > MAX_FILE_BYTES:
            raise too_large_error(entry, origin)
    total = sum(entry.bytes for entry in wanted)
    if total > MAX_VERSION_BYTES:
        message = f"{origin} has {total} bytes, at most {MAX_VERSION_BYTES} are fetched"
        raise VersionRefused(Reason.TOO_LARGE, message)


def _check_room(cache: Path, wanted: list[FileEntry]) -> None:
    needed, free = (
        sum(entry.bytes for entry in wanted) + _FREE_BYTES,
        shutil.disk_usage(cache).free,
    )
    if needed > free:
        raise VersionRefused(
            Reason.NO_ROOM,
            f"cache {cache.parent} has {free} bytes left, {needed} are needed",
        )


def _write(target: Path, chunks: Iterator[bytes]) -> None:
    with target.open("xb") as file:
        for chunk in chunks:
            file.write(chunk)


def _publish(temporary: Path, folder: Path, raw: bytes) -> None:
    try:
        temporary.rename(folder)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
            raise
        # Another process has fetched the same version meanwhile; an incomplete folder is not in use.
        if not is_whole(folder, sha256(raw).hexdigest()):
            discard(folder)
            temporary.rename(folder)

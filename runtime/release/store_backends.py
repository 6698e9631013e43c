"""The storage of model versions: a folder, or any file system of fsspec. The only importer of fsspec.

Both store `NAME/VERSION/` with the same guarantees: a version appears complete or not at all, is never changed, and
concurrent additions get different numbers. A folder does this by renaming. Object stores cannot rename, so there a number
is claimed first and the manifest is written last.
"""

import errno
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import IO, Any, Final, Protocol, Self
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem

from ...schemas.manifest import MANIFEST_NAME
from ...schemas.serving_event import RejectReason as Reason
from ..errors import NO_ROOM, ModelRefused, MurmuraError, SetupError, VersionRefused
from ..model.folders.folder import open_plain
from .store_address import StoreAddress

Copy = Callable[[IO[bytes]], None]
"""Writes the content of one file; raises when its check fails."""

_INCOMING: Final = ".incoming-"
_STALE_S: Final = 86_400
# A hidden name, which no file of a model can have.
_CLAIM: Final = ".claim"
# Next to the versions, one empty file per number ever used: it stays when a version is deleted.
_TAKEN: Final = ".claims"
# Errors of an open that are about the file itself. All others are about the storage: a stale handle, a lost mount.
_FILE_ERRORS: Final = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.ENAMETOOLONG}
)


class StoredFile:
    """A file of the store, open for reading. Errors while reading are raised as VersionRefused."""

    def __init__(self, file: IO[bytes], address: StoreAddress) -> None:
        self._file = file
        self._address = address

    def read(self, size: int) -> bytes:
        with translate_errors(self._address):
            return self._file.read(size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(Exception):
            self._file.close()


class Storage(Protocol):
    """The interface of a storage. All methods block, and raise VersionRefused."""

    address: str
    """The address without credentials, for messages."""

    def names(self) -> list[str]:
        """Return the models that have a version, sorted."""

    def versions(self, name: str) -> list[int]:
        """Return the complete versions, sorted."""

    def open(self, name: str, version: int, path: str) -> StoredFile:
        """Open a file of a version. It may be of any size."""

    def add(self, name: str, copies: Mapping[str, Copy], manifest: Callable[[int], bytes]) -> int:
        """Add a version with a file for each of `copies`, and `manifest(number)` as its manifest; returns the number."""


def open_storage(url: str) -> Storage:
    """Return the storage at a path or an fsspec URL, without connecting. Raises SetupError."""
    if not url:
        raise SetupError("model store: expected a folder or an address such as s3://bucket/models, found an empty one")
    address = StoreAddress(url)
    if re.match("[a-z0-9+:]+:.*@", url) and "://" not in url:
        raise SetupError("model store: expected a folder or an address such as s3://bucket/models, found neither")
    if "://" not in url:
        return FolderStorage(Path(url).expanduser().absolute())
    try:
        files, root = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise SetupError(f"model store {address.shown}: {address.clean(str(error))}") from None
    except Exception as error:  # noqa: BLE001
        # Each file system has its own error classes, so only the text is used.
        # Raised without its cause, whose message may contain the whole address.
        raise SetupError(f"model store {address.shown} cannot be opened: {address.clean(_error_text(error))}") from None
    return FolderStorage(Path(root)) if isinstance(files, LocalFileSystem) else ObjectStorage(files, root, address)


@contextmanager
def translate_errors(address: StoreAddress) -> Iterator[None]:
    """Raise errors of the storage as VersionRefused with a reason."""
    try:
        yield
    except MurmuraError:
        raise
    except FileNotFoundError as error:
        missing = address.clean(_error_text(error))
        raise VersionRefused(Reason.MISSING, f"model store {address.shown}: {missing} is missing") from error
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in NO_ROOM
        reason = Reason.NO_ROOM if full else Reason.STORE_UNREACHABLE
        raise VersionRefused(reason, f"model store {address.shown}: {address.clean(_error_text(error))}") from error


def _error_text(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}" + (f": {error.strerror}" if not isinstance(error, FileNotFoundError) else "")
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


class FolderStorage:
    """A local or mounted folder. Invariant: the folder of a number is complete, by an atomic rename."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.address = str(root)
        self._address = StoreAddress(self.address)

    def names(self) -> list[str]:
        return [name for name in self._list_folder(self._root) if not name.startswith(".") and self.versions(name)]

    def versions(self, name: str) -> list[int]:
        return [n for n in self._numbers(name) if (self._root / name / str(n) / MANIFEST_NAME).is_file()]

    def open(self, name: str, version: int, path: str) -> StoredFile:
        self._check_root()
        with translate_errors(self._address):
            try:
                return StoredFile(open_plain(self._root, f"{name}/{version}/{path}", sys.maxsize), self._address)
            except ModelRefused as refused:
                cause = refused.__cause__
                if isinstance(cause, OSError) and cause.errno not in _FILE_ERRORS:
                    raise cause from None
                raise

    def add(self, name: str, copies: Mapping[str, Copy], manifest: Callable[[int], bytes]) -> int:
        home = self._root / name
        upload = home / f"{_INCOMING}{uuid4().hex}"
        with translate_errors(self._address):
            home.mkdir(parents=True, exist_ok=True)
            _sweep(home)
            try:
                for path, copy in copies.items():
                    _write_to_disk(upload / path, copy)
                return self._take_number(name, upload, manifest)
            finally:
                shutil.rmtree(upload, ignore_errors=True)

    def _take_number(self, name: str, upload: Path, manifest: Callable[[int], bytes]) -> int:
        version = max((*self._numbers(name), *self._used_numbers(name)), default=0) + 1
        while True:
            _write_to_disk(upload / MANIFEST_NAME, _write_content(manifest(version)))
            _write_to_disk(self._root / name / _mark_path(version), _write_content(b""))
            try:
                upload.rename(upload.parent / str(version))
            except OSError as error:
                # The number was taken meanwhile: a folder that is not empty cannot be replaced.
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise
                version += 1
            else:
                _sync(upload.parent)
                return version

    def _numbers(self, name: str) -> list[int]:
        return sorted(int(n) for n in self._list_folder(self._root / name) if _is_number(n))

    def _used_numbers(self, name: str) -> list[int]:
        return _read_marks(f"{_TAKEN}/{path}" for path in self._list_folder(self._root / name / _TAKEN))

    def _list_folder(self, folder: Path) -> list[str]:
        self._check_root()
        with translate_errors(self._address):
            return sorted(os.listdir(folder)) if folder.is_dir() else []

    def _check_root(self) -> None:
        # A missing root may be a lost mount, which is retried; it does not mean that a version is missing.
        if not self._root.is_dir():
            raise VersionRefused(Reason.STORE_UNREACHABLE, f"model store {self.address} is not there")


def _is_number(name: str) -> bool:
    return re.fullmatch("[1-9][0-9]{0,8}", name) is not None


def _mark_path(version: int) -> str:
    return f"{_TAKEN}/{version}.claim"


def _read_marks(paths: Iterable[str]) -> list[int]:
    """Return the used numbers, by their marks among `paths` (relative to the model's folder)."""
    marks = (path.removeprefix(f"{_TAKEN}/").removesuffix(".claim") for path in paths if path.startswith(f"{_TAKEN}/"))
    return [int(mark) for mark in marks if _is_number(mark)]


def _write_to_disk(path: Path, copy: Copy) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        copy(file)
        file.flush()
        os.fsync(file.fileno())


def _write_content(content: bytes) -> Copy:
    def copy(file: IO[bytes]) -> None:
        file.write(content)

    return copy


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(home: Path) -> None:
    """Remove the remains of killed uploads, after a day."""
    for left in home.glob(f"{_INCOMING}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE_S:
                shutil.rmtree(left, ignore_errors=True)


class ObjectStorage:
    """Any fsspec file system. Invariant: a number belongs to its claimant, and is a version when its manifest exists.

    A claim creates a file only if it does not exist (s3fs, gcsfs and adlfs let the store decide), and is read back for
    stores without that. A claim without a manifest is a failed upload. Its number is not used again, nor that of a deleted
    version, which has a mark next to the versions.
    """

    # In-memory stores check and write in two steps, within one process.
    _claiming = Lock()

    def __init__(self, files: Any, root: str, address: StoreAddress) -> None:
        self._files = files
        self._root = root.rstrip("/")
        self.address = address.shown
        self._address = address

    def names(self) -> list[str]:
        return sorted({name for name, _, path in self._list_files(self._root) if path == MANIFEST_NAME})

    def versions(self, name: str) -> list[int]:
        found = self._list_files(f"{self._root}/{name}")
        return sorted({number for _, number, path in found if path == MANIFEST_NAME})

    def open(self, name: str, version: int, path: str) -> StoredFile:
        with translate_errors(self._address):
            return StoredFile(self._files.open(self._path(name, version, path), "rb"), self._address)

    def add(self, name: str, copies: Mapping[str, Copy], manifest: Callable[[int], bytes]) -> int:
        with translate_errors(self._address):
            version = self._claim(name)
            written: list[str] = []
            try:
                for path, copy in copies.items():
                    written.append(self._path(name, version, path))
                    with self._files.open(self._make_parent(written[-1]), "wb") as file:
                        copy(file)
                raw = manifest(version)
                written.append(self._path(name, version, MANIFEST_NAME))
                # The number is claimed, so overwriting is safe: a retry may find the file of the first attempt.
                self._files.pipe_file(written[-1], raw)
            except BaseException:
                self._take_back(written)
                raise
            return version

    def _take_back(self, written: list[str]) -> None:
        """Remove the written files, the manifest first: if that fails, the version may be visible and must stay complete."""
        for place in reversed(written):
            try:
                self._files.rm_file(place)
            except FileNotFoundError:
                continue
            except Exception:  # noqa: BLE001  (each file system has its own classes; the caller raises the first error)
                if place.endswith(f"/{MANIFEST_NAME}"):
                    return

    def _claim(self, name: str) -> int:
        version = max(self._numbers(name), default=0) + 1
        token = uuid4().hex.encode()
        while True:
            claim = self._path(name, version, _CLAIM)
            with suppress(FileExistsError), self._claiming:
                self._create(claim, token)
                if self._files.cat_file(claim) == token:
                    self._files.pipe_file(self._make_parent(f"{self._root}/{name}/{_mark_path(version)}"), token)
                    return version
            version += 1

    def _numbers(self, name: str) -> list[int]:
        """Return every number that has or had a file."""
        paths = [path.split("/", 1)[1] for path in self._paths(f"{self._root}/{name}") if "/" in path]
        first = (path.split("/", 1)[0] for path in paths if "/" in path)
        return [*(int(number) for number in first if _is_number(number)), *_read_marks(paths)]

    def _create(self, place: str, content: bytes) -> None:
        self._files.pipe_file(self._make_parent(place), content, mode="create")

    def _make_parent(self, place: str) -> str:
        """Create the folder of a path, for file systems with folders, and return the path."""
        self._files.makedirs(place.rpartition("/")[0], exist_ok=True)
        return place

    def _path(self, name: str, version: int, path: str) -> str:
        return f"{self._root}/{name}/{version}/{path}"

    def _list_files(self, under: str) -> list[tuple[str, int, str]]:
        """Return name, number and path of every file of a version."""
        parts = [path.split("/", 2) for path in self._paths(under)]
        return [(p[0], int(p[1]), p[2]) for p in parts if len(p) == 3 and _is_number(p[1])]

    def _paths(self, under: str) -> list[str]:
        with translate_errors(self._address):
            self._files.invalidate_cache()
            return [path.removeprefix(self._root).lstrip("/") for path in self._files.find(under)]

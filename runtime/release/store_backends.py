"""Where the versions of models are kept: a folder, or any file system that fsspec knows.

Both keep `NAME/VERSION/` and promise the same: a version appears complete or not at all, is never changed afterwards,
and no two who add at the same time get the same number. A folder gets this from renaming; object stores cannot rename,
so there a number is claimed first and the manifest written last. The only importer of fsspec.
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
from ..model.folder import open_plain
from .store_address import StoreAddress

Copy = Callable[[IO[bytes]], None]
"""Writes one file's content, and raises when it is not what it should be."""

_INCOMING: Final = ".incoming-"
_STALE_S: Final = 86_400
# A hidden name cannot be one of a model's files.
_CLAIM: Final = ".claim"
# Beside the versions, one empty file for each number that was ever given: who deletes a version leaves it there.
_TAKEN: Final = ".claims"
# What an open says of the file itself. All else is about the way to it: a stale handle, a lost mount, a broken disk.
_OF_THE_FILE: Final = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.ENAMETOOLONG}
)


class StoredFile:
    """A file of the store, open for reading. What goes wrong while reading is VersionRefused, as elsewhere."""

    def __init__(self, file: IO[bytes], address: StoreAddress) -> None:
        self._file = file
        self._address = address

    def read(self, size: int) -> bytes:
        with reaching(self._address):
            return self._file.read(size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(Exception):
            self._file.close()


class Storage(Protocol):
    """What the store needs. All of it blocks, and raises VersionRefused."""

    where: str
    """For messages: the address, without credentials."""

    def names(self) -> list[str]:
        """Return the models that have a version, sorted."""

    def versions(self, name: str) -> list[int]:
        """Return the complete versions, sorted."""

    def open(self, name: str, version: int, path: str) -> StoredFile:
        """Open a file of a version. It may be of any size."""

    def add(self, name: str, copies: Mapping[str, Copy], manifest: Callable[[int], bytes]) -> int:
        """Add a version with a file for each of `copies` and the manifest of the number that it got; return that."""


def open_storage(url: str) -> Storage:
    """Return the storage at a path or an fsspec URL. Nothing is connected yet. Raises SetupError."""
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
        # Each file system has its own classes; none of them is worth more than its text.
        # The cause is left out: its message may hold the whole address.
        raise SetupError(f"model store {address.shown} cannot be opened: {address.clean(_text(error))}") from None
    return FolderStorage(Path(root)) if isinstance(files, LocalFileSystem) else ObjectStorage(files, root, address)


@contextmanager
def reaching(address: StoreAddress) -> Iterator[None]:
    """Turn what the storage raises into VersionRefused with a reason."""
    try:
        yield
    except MurmuraError:
        raise
    except FileNotFoundError as error:
        missing = address.clean(_text(error))
        raise VersionRefused(Reason.MISSING, f"model store {address.shown}: {missing} is missing") from error
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in NO_ROOM
        reason = Reason.NO_ROOM if full else Reason.STORE_UNREACHABLE
        raise VersionRefused(reason, f"model store {address.shown}: {address.clean(_text(error))}") from error


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}" + (f": {error.strerror}" if not isinstance(error, FileNotFoundError) else "")
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


class FolderStorage:
    """A folder of this machine or a mounted one. Invariant: what is under a number is complete, by an atomic rename."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.where = str(root)
        self._address = StoreAddress(self.where)

    def names(self) -> list[str]:
        return [name for name in self._listed(self._root) if not name.startswith(".") and self.versions(name)]

    def versions(self, name: str) -> list[int]:
        return [n for n in self._numbers(name) if (self._root / name / str(n) / MANIFEST_NAME).is_file()]

    def open(self, name: str, version: int, path: str) -> StoredFile:
        self._check_root()
        with reaching(self._address):
            try:
                return StoredFile(open_plain(self._root, f"{name}/{version}/{path}", sys.maxsize), self._address)
            except ModelRefused as refused:
                cause = refused.__cause__
                if isinstance(cause, OSError) and cause.errno not in _OF_THE_FILE:
                    raise cause from None
                raise

    def add(self, name: str, copies: Mapping[str, Copy], manifest: Callable[[int], bytes]) -> int:
        home = self._root / name
        beside = home / f"{_INCOMING}{uuid4().hex}"
        with reaching(self._address):
            home.mkdir(parents=True, exist_ok=True)
            _sweep(home)
            try:
                for path, copy in copies.items():
                    _write_to_disk(beside / path, copy)
                return self._take_number(name, beside, manifest)
            finally:
                shutil.rmtree(beside, ignore_errors=True)

    def _take_number(self, name: str, beside: Path, manifest: Callable[[int], bytes]) -> int:
        version = max((*self._numbers(name), *self._taken(name)), default=0) + 1
        while True:
            _write_to_disk(beside / MANIFEST_NAME, _of(manifest(version)))
            _write_to_disk(self._root / name / _taken(version), _of(b""))
            try:
                beside.rename(beside.parent / str(version))
            except OSError as error:
                # Somebody else has taken the number: a folder that is not empty cannot be replaced.
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise
                version += 1
            else:
                _sync(beside.parent)
                return version

    def _numbers(self, name: str) -> list[int]:
        return sorted(int(n) for n in self._listed(self._root / name) if _is_number(n))

    def _taken(self, name: str) -> list[int]:
        return _given(f"{_TAKEN}/{path}" for path in self._listed(self._root / name / _TAKEN))

    def _listed(self, folder: Path) -> list[str]:
        self._check_root()
        with reaching(self._address):
            return sorted(os.listdir(folder)) if folder.is_dir() else []

    def _check_root(self) -> None:
        # A mount that is away is worth another try; that a version is missing would be the wrong conclusion.
        if not self._root.is_dir():
            raise VersionRefused(Reason.STORE_UNREACHABLE, f"model store {self.where} is not there")


def _is_number(name: str) -> bool:
    return re.fullmatch("[1-9][0-9]{0,8}", name) is not None


def _taken(version: int) -> str:
    return f"{_TAKEN}/{version}.claim"


def _given(paths: Iterable[str]) -> list[int]:
    """Return the numbers that were given, by their marks among `paths` (relative to the model's folder)."""
    marks = (path.removeprefix(f"{_TAKEN}/").removesuffix(".claim") for path in paths if path.startswith(f"{_TAKEN}/"))
    return [int(mark) for mark in marks if _is_number(mark)]


def _write_to_disk(path: Path, copy: Copy) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        copy(file)
        file.flush()
        os.fsync(file.fileno())


def _of(content: bytes) -> Copy:
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
    """Remove what a killed upload has left, once nobody can be at work on it any more."""
    for left in home.glob(f"{_INCOMING}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE_S:
                shutil.rmtree(left, ignore_errors=True)


class ObjectStorage:
    """Any fsspec file system. Invariant: a number belongs to whoever claimed it, and is a version once its manifest is there.

    A claim asks the store to create a file only if there is none (s3fs, gcsfs and adlfs have the store decide), and is
    read back for those that cannot. A claim without a manifest is an upload that failed; its number is not used again, nor
    that of a version that was deleted: marks beside the versions tell.
    """

    # In-memory stores check and write in two steps, and live in one process.
    _claiming = Lock()

    def __init__(self, files: Any, root: str, address: StoreAddress) -> None:
        self._files = files
        self._root = root.rstrip("/")
        self.where = address.shown
        self._address = address

    def names(self) -> list[str]:
        return sorted({name for name, _, path in self._found(self._root) if path == MANIFEST_NAME})

    def versions(self, name: str) -> list[int]:
        found = self._found(f"{self._root}/{name}")
        return sorted({number for _, number, path in found if path == MANIFEST_NAME})

    def open(self, name: str, version: int, path: str) -> StoredFile:
        with reaching(self._address):
            return StoredFile(self._files.open(self._place(name, version, path), "rb"), self._address)

    def add(self, name: str, copies: Mapping[str, Copy], manifest: Callable[[int], bytes]) -> int:
        with reaching(self._address):
            version = self._claim(name)
            written: list[str] = []
            try:
                for path, copy in copies.items():
                    written.append(self._place(name, version, path))
                    with self._files.open(self._made(written[-1]), "wb") as file:
                        copy(file)
                raw = manifest(version)
                written.append(self._place(name, version, MANIFEST_NAME))
                # The number is ours: a second try after a lost answer may find the first one's file there.
                self._files.pipe_file(written[-1], raw)
            except BaseException:
                self._take_back(written)
                raise
            return version

    def _take_back(self, written: list[str]) -> None:
        """Remove what was written, the manifest first: should that fail, the version may be seen and has to stay whole."""
        for place in reversed(written):
            try:
                self._files.rm_file(place)
            except FileNotFoundError:
                continue
            except Exception:  # noqa: BLE001  (each file system has its own classes; the first error is the one to tell)
                if place.endswith(f"/{MANIFEST_NAME}"):
                    return

    def _claim(self, name: str) -> int:
        version = max(self._numbers(name), default=0) + 1
        mine = uuid4().hex.encode()
        while True:
            claim = self._place(name, version, _CLAIM)
            with suppress(FileExistsError), self._claiming:
                self._create(claim, mine)
                if self._files.cat_file(claim) == mine:
                    self._files.pipe_file(self._made(f"{self._root}/{name}/{_taken(version)}"), mine)
                    return version
            version += 1

    def _numbers(self, name: str) -> list[int]:
        """Every number that has a file, or had one."""
        paths = [path.split("/", 1)[1] for path in self._paths(f"{self._root}/{name}") if "/" in path]
        first = (path.split("/", 1)[0] for path in paths if "/" in path)
        return [*(int(number) for number in first if _is_number(number)), *_given(paths)]

    def _create(self, place: str, content: bytes) -> None:
        self._files.pipe_file(self._made(place), content, mode="create")

    def _made(self, place: str) -> str:
        """The same, once its folder is there, for file systems that have folders."""
        self._files.makedirs(place.rpartition("/")[0], exist_ok=True)
        return place

    def _place(self, name: str, version: int, path: str) -> str:
        return f"{self._root}/{name}/{version}/{path}"

    def _found(self, under: str) -> list[tuple[str, int, str]]:
        """Name, number and path of every file that is in the place of a version's."""
        parts = [path.split("/", 2) for path in self._paths(under)]
        return [(p[0], int(p[1]), p[2]) for p in parts if len(p) == 3 and _is_number(p[1])]

    def _paths(self, under: str) -> list[str]:
        with reaching(self._address):
            self._files.invalidate_cache()
            return [path.removeprefix(self._root).lstrip("/") for path in self._files.find(under)]

"""Reads and checks model folders.

Nothing is unpickled, and only files that the manifest names with size and SHA-256 are read. A file is opened once, checked
and then read through the same handle, so that it cannot be replaced in between.
"""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import file_digest, sha256
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Final

import platformdirs
from pydantic import ValidationError

from ....schemas.manifest import MANIFEST_NAME, FileEntry, ModelManifest
from ....schemas.serving_event import RejectReason as Reason
from ...errors import ModelRefused, SetupError
from ..kinds.registry import kind_of

MAX_MANIFEST_BYTES: Final = 4 * 2**20
MAX_FILE_BYTES: Final = 4 * 2**30
MAX_FILES: Final = 64
# Formats that run code when they are read.
PICKLES: Final = frozenset({".bin", ".ckpt", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth", ".zip"})
# Formats of files that could be loaded by name although the manifest does not list them.
LOADABLE: Final = PICKLES | {".data", ".json", ".onnx", ".safetensors"}
# Serving never reads these, so a folder may come without them.
OPTIONAL: Final = frozenset({"training", "report", "recipe"})


def read_manifest(folder: Path) -> ModelManifest:
    """Read a folder's `manifest.json`. Raises ModelRefused in one line."""
    return parse_manifest(read_manifest_bytes(folder), str(folder / MANIFEST_NAME))


def parse_manifest(raw: bytes, origin: str) -> ModelManifest:
    """Return the manifest in `raw`; `origin` names it in errors. Raises ModelRefused in one line."""
    try:
        manifest = ModelManifest.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole"
        leads_out = first["loc"][-1:] in {("path",), ("tokenizer",)} and first["type"] == "string_pattern_mismatch"
        reason = Reason.UNSAFE_PATH if leads_out else Reason.NOT_A_MODEL
        raise ModelRefused(f"{origin} is not a manifest: {field}: {first['msg']}", reason) from error
    if len(manifest.files) > MAX_FILES:
        found = len(manifest.files)
        raise ModelRefused(f"{origin} names {found} files, at most {MAX_FILES} are read", Reason.TOO_LARGE)
    check_tasks(manifest, origin)
    return manifest


def check_tasks(manifest: ModelManifest, origin: str) -> None:
    """Raise ModelRefused for a task of a kind that is not installed, or that its kind refuses."""
    for task in manifest.tasks:
        try:
            kind_of(task).check(task)
        except ValueError as error:
            raise ModelRefused(f"{origin} is not a manifest: {error}") from error
        except SetupError as error:
            raise ModelRefused(f"{origin}: task {task.name}: {error}", Reason.UNSUPPORTED) from error


def open_plain(folder: Path, path: str, limit: int) -> BufferedReader:
    """Open a regular file inside the folder, not a link and not larger than `limit` bytes. Raises ModelRefused."""
    refuse_path(path, str(folder))
    _refuse_link(folder, path)
    try:
        file = open(folder / path, "rb", opener=_open_no_link)  # noqa: SIM115  (handed to the caller)
    except OSError as error:
        reason = Reason.MISSING if isinstance(error, FileNotFoundError) else Reason.DAMAGED
        raise ModelRefused(f"{folder}: {path} cannot be read: {error.strerror}", reason) from error
    status = os.fstat(file.fileno())
    problem = None
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        problem = Reason.LINK, "is not a regular file with one name; copy the file itself there"
    elif status.st_size > limit:
        problem = Reason.TOO_LARGE, f"has {status.st_size} bytes, expected at most {limit}"
    if problem:
        file.close()
        raise ModelRefused(f"{folder}: {path} {problem[1]}", problem[0])
    return file


def _open_no_link(path: str, flags: int) -> int:
    # Non-blocking: opening a pipe would wait for its other end.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def open_checked(folder: Path, entry: FileEntry, *, digest: bool = True) -> BufferedReader:
    """Open a file of the manifest at its beginning, after checking its size and SHA-256. Raises ModelRefused."""
    if entry.bytes > MAX_FILE_BYTES:
        raise too_large_error(entry, str(folder))
    file = open_plain(folder, entry.path, MAX_FILE_BYTES)
    problem = None
    size = os.fstat(file.fileno()).st_size
    if size != entry.bytes:
        problem = f"has {size} bytes, the manifest says {entry.bytes}; copy it again"
    elif digest and file_digest(file, "sha256").hexdigest() != entry.sha256:
        problem = "is not the file that the manifest names (SHA-256); copy it again"
    if problem:
        file.close()
        raise ModelRefused(f"{folder}: {entry.path} {problem}", Reason.DAMAGED)
    file.seek(0)
    return file


def refuse_changed(folder: Path, entry: FileEntry, file: BufferedReader) -> None:
    """Raise ModelRefused when an open file of the manifest has changed since it was checked."""
    file.seek(0)
    if file_digest(file, "sha256").hexdigest() != entry.sha256:
        raise ModelRefused(f"{folder}: {entry.path} was written to while it was loaded; copy it again", Reason.DAMAGED)


def too_large_error(entry: FileEntry, origin: str) -> ModelRefused:
    """Return the error for a file with more bytes in the manifest than the limit."""
    message = f"{origin}: {entry.path} has {entry.bytes} bytes, at most {MAX_FILE_BYTES} are read"
    return ModelRefused(message, Reason.TOO_LARGE)


def opened_path(file: BufferedReader) -> Path:
    """Return a path for libraries that need one: that of the open file handle where the system has it, else its name."""
    opened = Path(f"/proc/self/fd/{file.fileno()}")
    return opened if opened.exists() else Path(file.name)


def read_checked(folder: Path, entry: FileEntry, *, digest: bool = True) -> bytes:
    """Read a file of the manifest; the returned bytes are the checked ones. Raises ModelRefused."""
    with open_checked(folder, entry, digest=False) as file:
        data = file.read()
    if digest and sha256(data).hexdigest() != entry.sha256:
        problem = "is not the file that the manifest names (SHA-256); copy it again"
        raise ModelRefused(f"{folder}: {entry.path} {problem}", Reason.DAMAGED)
    return data


def read_manifest_bytes(folder: Path) -> bytes:
    """Read the bytes of a folder's manifest, whose digest identifies the whole version."""
    if not folder.is_dir():
        raise ModelRefused(
            f"model folder {folder} does not exist; `murmura train` or `murmura export` makes one", Reason.MISSING
        )
    if not os.path.lexists(folder / MANIFEST_NAME):
        raise ModelRefused(f"{folder} has no {MANIFEST_NAME}, so it is not a model folder; `murmura train` makes one")
    with open_plain(folder, MANIFEST_NAME, MAX_MANIFEST_BYTES) as file:
        return file.read()


def refuse_path(path: str, origin: str) -> None:
    """Raise ModelRefused for a path that may leave its folder, and for formats that run code when read."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\\" in path or "\0" in path or str(parts) != path:
        raise ModelRefused(f"{origin}: {path} is not a plain path inside the folder", Reason.UNSAFE_PATH)
    if parts.suffix.lower() in PICKLES:
        why = "is of a format that can run code when it is read; weights come as safetensors"
        raise ModelRefused(f"{origin}: {path} {why}", Reason.PICKLE)


def _refuse_link(folder: Path, path: str) -> None:
    parts = PurePosixPath(path).parts
    for depth in range(1, len(parts) + 1):
        if folder.joinpath(*parts[:depth]).is_symlink():
            why = "is or passes a symbolic link; copy the file itself there"
            raise ModelRefused(f"{folder}: {path} {why}", Reason.LINK)
    if not (folder / path).exists():
        raise ModelRefused(f"{folder}: {path} is missing", Reason.MISSING)


@dataclass(frozen=True, slots=True)
class FileCheck:
    """The result of checking one file; `problem` None: it matches the manifest."""

    path: str
    role: str
    bytes: int
    problem: str | None
    absent: bool = False
    """Whether it is absent, which is allowed for files that only training reads."""
    reason: Reason | None = None
    """The code of the problem."""


def inspect_files(folder: Path, manifest: ModelManifest) -> list[FileCheck]:
    """Check every file of the manifest, and report loadable files that it does not list."""
    checks = []
    for entry in manifest.files:
        absent = entry.role in OPTIONAL and not os.path.lexists(folder / entry.path)
        problem, reason = (None, None) if absent else _entry_problem(folder, entry)
        checks.append(FileCheck(entry.path, entry.role, entry.bytes, problem, absent, reason))
    listed = {entry.path for entry in manifest.files} | {MANIFEST_NAME}
    for path in sorted(_loadable_files(folder) - listed):
        unlisted = "is not named in the manifest; remove it"
        reason = Reason.PICKLE if PurePosixPath(path).suffix.lower() in PICKLES else Reason.DAMAGED
        checks.append(FileCheck(path, "-", 0, unlisted, reason=reason))
    return checks


def _entry_problem(folder: Path, entry: FileEntry) -> tuple[str | None, Reason | None]:
    try:
        open_checked(folder, entry).close()
    except ModelRefused as error:
        return str(error).removeprefix(f"{folder}: {entry.path} "), error.reason
    return None, None


def _loadable_files(folder: Path) -> set[str]:
    found = (p for p in folder.rglob("*") if p.suffix.lower() in LOADABLE)
    return {p.relative_to(folder).as_posix() for p in found}


def check_folder(folder: Path) -> ModelManifest:
    """Return the manifest of a model or delta folder after checking all its files. Raises ModelRefused."""
    manifest = read_manifest(folder)
    check_roles(manifest, str(folder))
    for check in inspect_files(folder, manifest):
        if check.problem:
            raise ModelRefused(f"{folder}: {check.path} {check.problem}", check.reason or Reason.DAMAGED)
    return manifest


def check_roles(manifest: ModelManifest, origin: str) -> None:
    """Raise ModelRefused when the manifest lacks the tokenizer or the graph (delta); `origin` names it in errors."""
    needed = ["tokenizer", "delta" if manifest.is_delta else "graph:ragged"]
    for role in needed:
        if manifest.path_of(role) is None and not (role == "graph:ragged" and manifest.path_of("graph:padded")):
            raise ModelRefused(f"{origin}: the manifest names no file with role {role}; export the model again")
    if not manifest.is_delta:
        check_decoder_files(manifest, origin)
    if manifest.path_of("tokenizer") != manifest.tokenizer:
        raise ModelRefused(f"{origin}: tokenizer {manifest.tokenizer} is not among the manifest's files; export again")


def check_decoder_files(manifest: ModelManifest, origin: str) -> None:
    """Raise ModelRefused when the manifest lacks the graphs of a task that generates; `origin` names it in errors."""
    listed = {(entry.role, entry.path) for entry in manifest.files}
    for task in manifest.tasks:
        for role, path in task.decoder_files.items():
            if (role, path) not in listed:
                why = f"task {task.name} generates, and the manifest names no file {path} with role {role}"
                raise ModelRefused(f"{origin}: {why}; export the model again")


def write_manifest(folder: Path, manifest: ModelManifest, roles: Mapping[str, str]) -> ModelManifest:
    """Write `manifest.json` with size and digest of each file in `roles` (path -> role), and return the manifest.

    It is written to a temporary file and renamed, last: a folder with a manifest is complete.
    """
    files = []
    for path, role in roles.items():
        with (folder / path).open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
            files.append({"path": path, "role": role, "sha256": digest, "bytes": file.tell()})
    written = ModelManifest.model_validate(manifest.model_dump() | {"files": files})
    check_tasks(written, str(folder / MANIFEST_NAME))
    temporary = folder / f".{MANIFEST_NAME}.{os.getpid()}"
    temporary.write_text(written.model_dump_json(indent=2, exclude_none=True) + "\n", encoding="utf-8")
    temporary.replace(folder / MANIFEST_NAME)
    return written


def cache_folder() -> Path:
    """Return the user's cache for models; `MURMURA_CACHE` overrides it."""
    return Path(os.environ.get("MURMURA_CACHE") or platformdirs.user_cache_dir("murmura"))


def is_whole(folder: Path, digest: str | None = None) -> bool:
    """Return whether a folder's files match its manifest, and the manifest has that SHA-256."""
    try:
        return (digest is None or manifest_digest(folder) == digest) and bool(check_folder(folder))
    except (ModelRefused, OSError):
        return False


def manifest_digest(folder: Path) -> str:
    """Return the SHA-256 of a folder's manifest, which identifies the whole version."""
    return sha256(read_manifest_bytes(folder)).hexdigest()

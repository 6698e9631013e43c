"""Model folders: what may be loaded from one, and where a servable one lies.

Nothing is unpickled, and nothing is read that the manifest does not name with size and SHA-256. A file is checked by
reading it once and handing on the bytes that were checked, so that it cannot be exchanged in between.
"""

import os
import stat
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Final

from pydantic import ValidationError

from ..schemas.manifest import MANIFEST_NAME, FileEntry, ModelManifest
from .errors import ModelRefused

MAX_MANIFEST_BYTES: Final = 4 * 2**20
MAX_FILE_BYTES: Final = 4 * 2**30
MAX_FILES: Final = 64
# Formats that run code when they are read.
PICKLES: Final = frozenset({".bin", ".ckpt", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth", ".zip"})
# What somebody could load by name although the manifest does not vouch for it.
LOADABLE: Final = PICKLES | {".data", ".json", ".onnx", ".safetensors"}
# Serving never reads these, so a folder may come without them.
OPTIONAL: Final = frozenset({"training", "report", "recipe"})


def read_manifest(folder: Path) -> ModelManifest:
    """Read a folder's `manifest.json`. Raises ModelRefused in one line."""
    if not folder.is_dir():
        raise ModelRefused(f"model folder {folder} is not there; `murmura train` or `murmura export` makes one")
    raw = read_plain(folder, MANIFEST_NAME, MAX_MANIFEST_BYTES)
    try:
        manifest = ModelManifest.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise ModelRefused(f"{folder / MANIFEST_NAME} is not a manifest: {where}: {first['msg']}") from error
    if len(manifest.files) > MAX_FILES:
        raise ModelRefused(f"{folder / MANIFEST_NAME} names {len(manifest.files)} files, at most {MAX_FILES} are read")
    return manifest


def read_plain(folder: Path, path: str, limit: int) -> bytes:
    """Read a regular file inside the folder that is no link and not larger than `limit` bytes, else ModelRefused."""
    problem = _path_problem(folder, path)
    if problem:
        raise ModelRefused(f"{folder}: {path} {problem}")
    try:
        handle = os.open(folder / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ModelRefused(f"{folder}: {path} cannot be read: {error.strerror}") from error
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise ModelRefused(f"{folder}: {path} is not a regular file with one name; copy the file itself there")
        if status.st_size > limit:
            raise ModelRefused(f"{folder}: {path} has {status.st_size} bytes, expected at most {limit}")
        return file.read(limit + 1)


def read_checked(folder: Path, entry: FileEntry, *, digest: bool = True) -> bytes:
    """Read a file of the manifest and return its bytes once size and SHA-256 are as the manifest says."""
    if entry.bytes > MAX_FILE_BYTES:
        raise ModelRefused(f"{folder}: {entry.path} has {entry.bytes} bytes, at most {MAX_FILE_BYTES} are read")
    data = read_plain(folder, entry.path, entry.bytes)
    if len(data) != entry.bytes:
        raise ModelRefused(
            f"{folder}: {entry.path} has {len(data)} bytes, the manifest says {entry.bytes}; copy it again"
        )
    if digest and sha256(data).hexdigest() != entry.sha256:
        raise ModelRefused(f"{folder}: {entry.path} is not the file that the manifest names (SHA-256); copy it again")
    return data


def _path_problem(folder: Path, path: str) -> str | None:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\\" in path or "\0" in path or str(parts) != path:
        return "is not a plain path inside the folder"
    if parts.suffix.lower() in PICKLES:
        return "is of a format that can run code when it is read; weights come as safetensors"
    for depth in range(1, len(parts.parts) + 1):
        step = folder.joinpath(*parts.parts[:depth])
        if step.is_symlink():
            return "is or passes a symbolic link; copy the file itself there"
    if not (folder / path).exists():
        return "is missing"
    return None


@dataclass(frozen=True, slots=True)
class FileCheck:
    """What was found about one file; `problem` None means that it is as the manifest says."""

    path: str
    role: str
    bytes: int
    problem: str | None
    absent: bool = False
    """Not there, which is no fault for what only training reads."""


def inspect_files(folder: Path, manifest: ModelManifest) -> list[FileCheck]:
    """Check every file of the manifest, and name those that could be loaded although it does not name them."""
    checks = []
    for entry in manifest.files:
        absent = entry.role in OPTIONAL and not os.path.lexists(folder / entry.path)
        problem = None if absent else _entry_problem(folder, entry)
        checks.append(FileCheck(entry.path, entry.role, entry.bytes, problem, absent))
    listed = {entry.path for entry in manifest.files} | {MANIFEST_NAME}
    for path in sorted(_loadable_files(folder) - listed):
        checks.append(FileCheck(path, "-", 0, "is not named in the manifest; remove it"))
    return checks


def _entry_problem(folder: Path, entry: FileEntry) -> str | None:
    try:
        read_checked(folder, entry)
    except ModelRefused as error:
        return str(error).removeprefix(f"{folder}: {entry.path} ")
    return None


def _loadable_files(folder: Path) -> set[str]:
    found = (p for p in folder.rglob("*") if p.suffix.lower() in LOADABLE)
    return {p.relative_to(folder).as_posix() for p in found}


def check_folder(folder: Path) -> ModelManifest:
    """Return the manifest of a model or delta folder in which everything is as it should be, else ModelRefused."""
    manifest = read_manifest(folder)
    _check_roles(folder, manifest)
    for check in inspect_files(folder, manifest):
        if check.problem:
            raise ModelRefused(f"{folder}: {check.path} {check.problem}")
    return manifest


def _check_roles(folder: Path, manifest: ModelManifest) -> None:
    needed = ["tokenizer", "delta" if manifest.is_delta else "graph:ragged"]
    for role in needed:
        if manifest.path_of(role) is None and not (role == "graph:ragged" and manifest.path_of("graph:padded")):
            raise ModelRefused(f"{folder}: the manifest names no file with role {role}; export the model again")
    if manifest.path_of("tokenizer") != manifest.tokenizer:
        raise ModelRefused(f"{folder}: tokenizer {manifest.tokenizer} is not among the manifest's files; export again")


def write_manifest(folder: Path, manifest: ModelManifest, roles: dict[str, str]) -> ModelManifest:
    """Write `manifest.json` with size and digest of each file in `roles` (path -> role), and return what was written.

    Written beside and renamed, last: a folder with a manifest is complete.
    """
    files = []
    for path, role in roles.items():
        data = (folder / path).read_bytes()
        files.append({"path": path, "role": role, "sha256": sha256(data).hexdigest(), "bytes": len(data)})
    written = ModelManifest.model_validate(manifest.model_dump() | {"files": files})
    beside = folder / f".{MANIFEST_NAME}.{os.getpid()}"
    beside.write_text(written.model_dump_json(indent=2, exclude_none=True) + "\n", encoding="utf-8")
    beside.replace(folder / MANIFEST_NAME)
    return written

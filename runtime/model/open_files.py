"""Opens the files of a model folder by the roles that the manifest gives them."""

from pathlib import Path

from ...schemas.manifest import FileEntry, ModelManifest
from ..errors import ModelRefused
from .folders.folder import open_checked, opened_path, read_checked, refuse_changed
from .folders.onnx_bytes import refuse_external_data
from .onnx_session import Device, Session, open_session


def open_checked_graph(folder: Path, entry: FileEntry, *, device: Device, threads: int, verify: bool) -> Session:
    """Load a graph of the manifest; with `verify` its digest is checked. Raises ModelRefused."""
    with open_checked(folder, entry, digest=verify) as file:
        refuse_external_data(file)
        session = open_session(opened_path(file), device, threads)
        if verify:
            # onnxruntime has read the file again: its content is the checked one only if it has not changed since.
            refuse_changed(folder, entry, file)
        return session


def read_role(folder: Path, manifest: ModelManifest, role: str, verify: bool) -> bytes:
    """Read the file of a role. Raises ModelRefused."""
    return read_checked(folder, entry_of(folder, manifest, role), digest=verify)


def entry_of(folder: Path, manifest: ModelManifest, role: str) -> FileEntry:
    """Return the first file of a role. Raises ModelRefused if the manifest names none."""
    entry = next((f for f in manifest.files if f.role == role), None)
    if entry is None:
        if manifest.is_delta:
            raise ModelRefused(f"{folder} is a delta folder: `murmura models assemble` makes a model folder from it")
        raise ModelRefused(f"{folder}: the manifest names no file with role {role}; export the model again")
    return entry

"""A folder that can be served, for a model or a delta folder: a delta is assembled in the user's cache."""

import os
from pathlib import Path

from ...schemas.manifest import ModelManifest
from .cache import discard, forget_old, touch
from .folder import cache_folder, is_whole, manifest_digest, read_manifest


def assembled_folder(delta: Path, manifest: ModelManifest) -> Path:
    """Return where in the user's cache the model of a delta folder lies, once it is assembled."""
    return cache_folder() / "models" / f"{manifest.name}-{manifest.version}-{manifest_digest(delta)[:32]}"


def resolve(path: Path) -> Path:
    """Return a servable folder: a model folder itself; for a delta the model assembled in the user's cache.

    The cache is keyed by the digest of the delta's manifest, which names everything else by digest. The first use takes
    a few seconds; processes that start at the same time each assemble and one result is kept. A folder that is not whole
    is made again; of a model the last few stay.
    """
    manifest = read_manifest(path)
    if not manifest.is_delta:
        return path
    folder = assembled_folder(path, manifest)
    if os.path.lexists(folder) and not is_whole(folder):
        discard(folder)
    if folder.exists():
        touch(folder)
    else:
        from .delta import assemble  # noqa: PLC0415  (it needs spox and safetensors, which serving a folder does not)

        assemble(path, None, folder, weights=False)
        forget_old(folder.parent, manifest.name, folder)
    return folder

"""Returns a servable folder for a model or delta folder: a delta is assembled in the user's cache."""

import os
from pathlib import Path

from ....schemas.manifest import ModelManifest
from ..folders.folder import cache_folder, is_whole, manifest_digest, read_manifest
from .cache import discard, remove_old, touch


def assembled_folder(delta: Path, manifest: ModelManifest) -> Path:
    """Return the path in the user's cache of the model assembled from a delta folder."""
    return cache_folder() / "models" / f"{manifest.name}-{manifest.version}-{manifest_digest(delta)[:32]}"


def resolve(path: Path) -> Path:
    """Return a servable folder: a model folder itself; for a delta the model assembled in the user's cache.

    The cache is keyed by the digest of the delta's manifest, which names all other files by digest. The first use takes a
    few seconds; of processes that assemble at the same time, one result is kept. An incomplete folder is assembled again.
    The last few versions of a model stay in the cache.
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
        remove_old(folder.parent, manifest.name, folder)
    return folder

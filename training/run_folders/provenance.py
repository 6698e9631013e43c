"""What a run depends on beside its recipe: the data files' bytes, the device, and the libraries that computed it."""

import platform
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from hashlib import file_digest
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import torch
from pydantic import BaseModel, ConfigDict

from ...schemas.manifest import Sha256
from ..data.files import find_source, is_data_set
from ..data.formats.data_sets import digest_data_set
from ..data.rules import make_rules, sources_of
from ..recipe.keys.pretraining import PairSource, TextSource
from ..recipe.keys.reading import Reading, Source
from ..recipe.keys.tasks import Task
from ..recipe.recipe import Recipe

LIBRARIES: Final = (
    "murmura",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "numpy",
    "scikit-learn",
    "peft",
    "accelerate",
)


class Environment(BaseModel):
    """Where a run was computed. The same recipe, data, seed and environment give the same weights."""

    model_config = ConfigDict(frozen=True)

    device: str
    """`cpu`, or the name of the GPU."""
    precision: str
    """`fp32`, `bf16` or `fp16`, of training; scores that thresholds are chosen on are fp32."""
    threads: int
    """Of each process."""
    processes: int = 1
    python: str
    libraries: dict[str, str]
    """Versions by name; those that are not installed are absent."""


def describe_environment(device: str, *, precision: str, processes: int) -> Environment:
    """Return what computes now."""
    return Environment(
        device=torch.cuda.get_device_name() if device == "cuda" else device,
        precision=precision,
        threads=torch.get_num_threads(),
        processes=processes,
        python=platform.python_version(),
        libraries=dict(_versions()),
    )


@cache
def _versions() -> dict[str, str]:
    """Read once a process: what is imported does not change."""
    found = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def digest_data(recipe: Recipe, folder: Path) -> dict[str, Sha256]:
    """Return the SHA-256 of each data file that the recipe names, by its path in the recipe: rows of tasks, and texts of
    self-training.

    Of a data set that is no single file, the SHA-256 of the rows of its split, by path, configuration and split.
    """
    found: dict[str, Sha256] = {}
    for task in recipe.tasks.values():
        found |= digest_sources(sources_of(task), task, folder)
    if recipe.self_training is not None:
        found |= digest_texts(recipe.self_training.texts, folder)
    return dict(sorted(found.items()))


def digest_texts(sources: Iterable[TextSource | PairSource], folder: Path) -> dict[str, Sha256]:
    """Return the SHA-256 of each file of texts and pairs, by its path in the recipe; of a folder those of its files, of a data
    set of the hub that of its rows.
    """
    found: dict[str, Sha256] = {}
    for source in sources:
        path = find_source(folder, source.path)
        if path.is_dir():
            inside = sorted(each for each in path.rglob("*") if each.is_file())
            found |= {f"{source.path}/{each.relative_to(path).as_posix()}": _sha256(each) for each in inside}
        else:
            found[source.path] = digest_data_set(path, Reading()) if is_data_set(path) else _sha256(path)
    return dict(sorted(found.items()))


def digest_sources(sources: Iterable[Source], task: Task, folder: Path) -> dict[str, Sha256]:
    """Return the same of some sources, read as `task` says."""
    found = {}
    for source in sources:
        path = find_source(folder, source.path)
        if is_data_set(path):
            reading = make_rules(source, task, None).reading
            parts = (source.path, reading.config, reading.split)
            found[" ".join(part for part in parts if part)] = digest_data_set(path, reading)
        elif source.path not in found:
            found[source.path] = _sha256(path)
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()

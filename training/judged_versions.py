"""How many versions each held-out set has judged. A model folder carries the counts on to the next version.

Only versions that passed carry them on: those that were refused are not counted.
"""

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ..runtime.model.folder import read_manifest, write_manifest
from ..schemas.manifest import Sha256
from .gate_rows import HeldOutSet

JUDGED: Final = "judged.json"


class Judged(BaseModel):
    """A set, known again by its rows, and how many versions it has judged."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    sha256: Sha256
    versions: Annotated[int, Field(ge=1)]


_FILE: Final = TypeAdapter(dict[str, dict[str, Judged]])
"""Task, then set."""


def count_versions(current: Path, sets: Iterable[HeldOutSet]) -> dict[tuple[str, str], Judged]:
    """Return for each set how many versions it will have judged with the next one. Changed rows begin at one."""
    before = _read(current)
    found = {}
    for held in sets:
        digest, known = digest_rows(held), before.get(held.task, {}).get(held.name)
        same = known is not None and known.sha256 == digest
        found[held.task, held.name] = Judged(sha256=digest, versions=1 + (known.versions if same and known else 0))
    return found


def write_versions(folder: Path, judged: Mapping[tuple[str, str], Judged]) -> None:
    """Write the counts into a model folder and its manifest."""
    document: dict[str, dict[str, Judged]] = {}
    for (task, name), each in judged.items():
        document.setdefault(task, {})[name] = each
    (folder / JUDGED).write_bytes(_FILE.dump_json(document, indent=2) + b"\n")
    manifest = read_manifest(folder)
    write_manifest(folder, manifest, {entry.path: str(entry.role) for entry in manifest.files} | {JUDGED: "report"})


def digest_rows(held: HeldOutSet) -> str:
    """Return a digest of texts and labels, whatever their order."""
    rows = sorted(json.dumps([e.text, e.labels, [[s.start, s.end, s.label] for s in e.spans]]) for e in held.examples)
    return sha256("\n".join(rows).encode()).hexdigest()


def _read(folder: Path) -> dict[str, dict[str, Judged]]:
    """A version that was not made by a retraining has none."""
    try:
        return _FILE.validate_json((folder / JUDGED).read_bytes())
    except (OSError, ValidationError):
        return {}

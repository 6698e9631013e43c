"""How many versions each held-out set has judged. A model folder carries the counts on to the next version.

A candidate that was refused carries nothing on: it is counted where its run is known, beside the one that counts.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ...runtime.model.folders.folder import read_manifest, write_manifest
from ...schemas.manifest import MANIFEST_NAME
from ..run_folders.os_errors import as_os_error, write_bytes
from .held_out import HeldOutSet

JUDGED: Final = "judged.json"
SKETCH: Final = 64


class Judged(BaseModel):
    """How many versions a set has judged, and a sketch of its rows, by which the set is known again."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    sketch: list[str]
    """The smallest digests of its rows, at most SKETCH."""
    versions: Annotated[int, Field(ge=1)]


_FILE: Final = TypeAdapter(dict[str, dict[str, Judged]])
"""Task, then set."""


def count_versions(
    current: Path, sets: Iterable[HeldOutSet], candidate: Path | None = None, others: Iterable[Path] = ()
) -> dict[tuple[str, str], Judged]:
    """Return for each set how many versions it will have judged with the next one.

    A set goes on counting when half of its rows are the same as before: rows that are corrected leave it. A `candidate`
    that carries counts was judged before. `others` are folders of further candidates that were made from `current` and
    judged.
    """
    before, carried = _read(current), _read(candidate) if candidate is not None else {}
    beside = [_read(folder) for folder in others]
    found = {}
    for held in sets:
        sketch = sketch_rows(held)
        earlier, own = (_known_versions(each, held, sketch) for each in (before, carried))
        more = sum(_known_versions(each, held, sketch) > 0 for each in beside)
        found[held.task, held.name] = Judged(sketch=sketch, versions=max(1 + earlier + more, own))
    return found


def _known_versions(judged: Mapping[str, Mapping[str, Judged]], held: HeldOutSet, sketch: Sequence[str]) -> int:
    """Return how many versions a set has judged; 0 where it is not known again."""
    known = judged.get(held.task, {}).get(held.name)
    same = known is not None and len(set(sketch) & set(known.sketch)) >= len(sketch) / 2
    return known.versions if same and known else 0


def write_versions(folder: Path, judged: Mapping[tuple[str, str], Judged]) -> None:
    """Write the counts into a model folder and its manifest."""
    document: dict[str, dict[str, Judged]] = {}
    for (task, name), each in judged.items():
        document.setdefault(task, {})[name] = each
    write_bytes(folder / JUDGED, _FILE.dump_json(document, indent=2) + b"\n")
    manifest = read_manifest(folder)
    with as_os_error(folder / MANIFEST_NAME):
        write_manifest(folder, manifest, {entry.path: str(entry.role) for entry in manifest.files} | {JUDGED: "report"})


def sketch_rows(held: HeldOutSet) -> list[str]:
    """Return the smallest digests of texts and labels, whatever their order."""
    rows = {json.dumps([e.given, e.labels, [[s.start, s.end, s.label] for s in e.spans]]) for e in held.examples}
    return sorted(sha256(row.encode()).hexdigest()[:16] for row in rows)[:SKETCH]


def _read(folder: Path) -> dict[str, dict[str, Judged]]:
    """A version that was not made by a retraining has none."""
    try:
        return _FILE.validate_json((folder / JUDGED).read_bytes())
    except (OSError, ValidationError):
        return {}

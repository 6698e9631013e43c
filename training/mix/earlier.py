"""What earlier retrainings learned from: without it, the next one would forget it, and nobody would notice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...runtime.wire.feedback import known_labels
from ...schemas.manifest import ModelManifest
from ..data.example import Example, labels_of, near_forms
from ..data.near_texts import near_form
from .corrections import HELDOUT, TRAIN, Corrections, check_whole, rows_of


@dataclass
class Earlier:
    """Rows of one task."""

    train: list[Example] = field(default_factory=list)
    heldout: list[Example] = field(default_factory=list)


def read_earlier(
    folders: Sequence[Path], manifest: ModelManifest, corrections: Mapping[str, Corrections]
) -> dict[str, Earlier]:
    """Read the data sets of earlier retrainings, as far as the model has their tasks and labels.

    What was said last of a text counts, in whatever spelling: that of the feedback at hand, then that of a folder that is
    named later.
    """
    found = {}
    for spec in manifest.tasks:
        now = corrections.get(spec.name)
        new = set(now.new) if now else set()
        learned = known_labels(spec) | new
        seen = near_forms((*now.train, *now.heldout)) if now else frozenset()
        rows_of_task = Earlier()
        for folder in reversed(folders):
            train, heldout = (rows_of(folder, f"{spec.name}{part}", spec) for part in (TRAIN, HELDOUT))
            for part, rows in ((rows_of_task.train, train), (rows_of_task.heldout, heldout)):
                part += [e for e in rows if near_form(e.given) not in seen and set(labels_of(e)) <= learned]
            seen |= near_forms((*train, *heldout))
        if rows_of_task.train or rows_of_task.heldout:
            found[spec.name] = rows_of_task
    return found


def check_earlier(folder: Path) -> str | None:
    """Say in a line what is wrong with a data set folder; None when nothing is. SetupError when it was changed."""
    if not folder.is_dir():
        return f"{folder}: no such folder; expected one that `murmura ingest` made"
    if not list(folder.glob(f"*{TRAIN}")):
        return f"{folder}: no TASK{TRAIN}; expected the folder of `murmura ingest`, or `data/set` of an earlier run"
    check_whole(folder)
    return None

"""Which texts and conversations earlier data sets put into which part: they stay there when `heldout` or `split` changes."""

import json
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from ...runtime.errors import SetupError
from ..data.near_texts import near_form, near_id
from .manifest import EarlierSet, Options

PARTS = (("train", True), ("heldout", False))
Kept = tuple[bytes, bytes | None, bool]
"""Near id of a text, its conversation where that counts, and whether it was trained on."""


def earlier_sets(folders: Sequence[Path]) -> list[EarlierSet]:
    """Return folders of data sets with the digests of their rows. SetupError for a folder without any."""
    found = []
    for folder in folders:
        if not list(_files(folder)):
            raise SetupError(
                f"{folder}: no TASK.train.jsonl and TASK.heldout.jsonl; expected the folder of `murmura ingest`"
            )
        found.append(EarlierSet(path=str(folder.resolve()), sha256=_digest(folder)))
    return found


def read_kept(options: Options) -> Iterator[Kept]:
    """Yield what each row of the earlier sets decides. SetupError for a set that is gone or has changed.

    Conversations count only where they are what is split by.
    """
    by_conversation = options.split == "conversation"
    for each in options.earlier:
        folder = Path(each.path)
        if not folder.is_dir() or _digest(folder) != each.sha256:
            raise SetupError(f"{folder}: not the earlier data set that the plan names (its rows differ); restore it")
        for path, trained in _files(folder):
            with path.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    try:
                        row = json.loads(line)
                        name = row.get("conversation") if by_conversation else None
                        kept = near_id(near_form(row["text"])), bytes.fromhex(name) if name else None, trained
                    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                        raise SetupError(f"{path}:{number}: not a row that `murmura ingest` wrote") from None
                    yield kept


def _files(folder: Path) -> Iterator[tuple[Path, bool]]:
    for part, trained in PARTS:
        for path in sorted(folder.glob(f"*.{part}.jsonl")):
            yield path, trained


def _digest(folder: Path) -> str:
    whole = sha256()
    for path, _ in _files(folder):
        whole.update(path.name.encode() + b"\0" + sha256(path.read_bytes()).digest())
    return whole.hexdigest()

"""The curves of a run, `curves.jsonl` in its folder: a JSON object a line, with the figures of a step by name.

An entry also has `seconds`, the wall time of training until then, breaks between interrupted parts left out.
"""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from .os_errors import as_os_error, write_text

CURVES: Final = "curves.jsonl"
STEP: Final = "step"
SECONDS: Final = "seconds"
Entry = dict[str, float]


class Curves:
    """Appends entries to the file of a run, which goes on where the state that it resumed from was written."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / CURVES
        self._before, self._since = 0.0, time.monotonic()

    def begin(self, step: int) -> None:
        """Drop the entries behind `step`, the last step that counts: the steps behind it are taken again."""
        kept = [entry for entry in read_curves(self._path.parent) if entry[STEP] <= step]
        self._before, self._since = max((entry.get(SECONDS, 0.0) for entry in kept), default=0.0), time.monotonic()
        draft = self._path.with_name(f"{CURVES}.part")
        write_text(draft, "".join(_line(entry) for entry in kept))
        draft.replace(self._path)

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        """Append the figures of a step; those that are no finite number are left out."""
        seconds = round(self._before + time.monotonic() - self._since, 1)
        finite = {name: float(f"{value:.6g}") for name, value in figures.items() if math.isfinite(value)}
        with as_os_error(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(_line({STEP: step, SECONDS: seconds, **finite}))


def read_curves(folder: Path) -> list[Entry]:
    """Return the entries in the order of their steps; none where a run has written none. A torn line ends them."""
    path, found = folder / CURVES, []
    if not path.is_file():
        return []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            break
        if not _is_entry(entry):
            break
        found.append(entry)
    return sorted(found, key=lambda entry: entry[STEP])


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and STEP in entry and all(isinstance(value, int | float) for value in entry.values())


def _line(entry: Mapping[str, float]) -> str:
    return f"{json.dumps(entry)}\n"

"""Runs whose work folders lie beside this one: the same held-out sets may have judged their candidates, too."""

import json
from pathlib import Path

from .work_folder import DONE, Facts


def find_judged_candidates(work: Path, identity: str) -> list[Path]:
    """Return the model folders that other runs made from the version of this identity and that a gate has judged.

    Looked for are runs in the folder that holds `work`; what cannot be read is left out.
    """
    folders = sorted(marker.parent.parent for marker in work.parent.glob(f"*/gate/{DONE}"))
    return [
        folder / "evaluate" / "model"
        for folder in folders
        if folder != work and _facts(folder / "current").get("identity") == identity
    ]


def _facts(stage: Path) -> Facts:
    try:
        found = json.loads((stage / DONE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}

"""Checks the task and the labels that a person typed against the model of the settings, before they are published."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from ...runtime.errors import SetupError
from ...runtime.model.folders.folder import read_manifest
from ...runtime.model.kinds.registry import kind_of
from ...runtime.spelling import suggest
from ...runtime.wire.feedback import known_labels, labels_of
from ...schemas.feedback import Feedback

if TYPE_CHECKING:
    from ...schemas.manifest import ModelManifest

REPLYING_AGENT: Final = "dialogue"
_NEAREST: Final = 3


def check_names(item: Feedback, folder: Path | None) -> str | None:
    """Return a line of warning about a task or labels that may be misspelt, None where all are known.

    Raises SetupError for a task that the model in the folder lacks, and for a label that a closed task lacks.
    """
    if folder is None:
        return "task and labels are not checked: no model.folder is set"
    manifest = read_manifest(folder)
    if item.model is not None and item.model.name != manifest.name:
        return f"task and labels are not checked: {folder} is model {manifest.name}, not {item.model.name}"
    return _check(item, item.task, manifest)


def _check(item: Feedback, name: str, manifest: "ModelManifest") -> str | None:
    tasks = {task.name: task for task in manifest.tasks}
    if name not in tasks and item.agent == REPLYING_AGENT:
        return None  # words of a policy are judged, too
    if name not in tasks:
        raise SetupError(
            f"--task: model {manifest.name} has no task {name!r}; it has {', '.join(tasks)}{suggest(name, tasks)}"
        )
    spec = tasks[name]
    if kind_of(spec).generates:
        return None
    known = known_labels(spec)
    unknown = [label for label in labels_of(item) if label not in known]
    if not unknown:
        return None
    says = f"task {name} has no label {unknown[0]!r}{suggest(unknown[0], sorted(known), _NEAREST)}"
    if spec.open:
        return f"{says}; it is open, so the label counts as a new one"
    raise SetupError(f"{says} (it has {len(known)})")

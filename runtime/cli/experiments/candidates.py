"""Checks a version in the store before it runs beside the current one."""

from typing import TYPE_CHECKING

from ...errors import SetupError

if TYPE_CHECKING:
    from ....schemas.manifest import ModelManifest
    from ....schemas.release import ReleaseState
    from ...release.store import ModelStore


def check_candidate(store: "ModelStore", state: "ReleaseState", version: int) -> str:
    """Return the digest of a version that can answer what the current one answers.

    Every file of it that serving needs is read. SetupError for a version that is current, not in the store, damaged, or
    lacks a task of the current one.
    """
    name, current = state.name, state.current.version
    if version == current:
        raise SetupError(f"{name} {version} is current: a candidate is another version")
    digest = store.verify(name, version)
    lacking = _find_lacking(store.describe(name, current), store.describe(name, version))
    if lacking:
        raise SetupError(f"{name} {version} lacks {', '.join(lacking)} of {name} {current}, which is current")
    return digest


def _find_lacking(current: "ModelManifest", candidate: "ModelManifest") -> list[str]:
    has = {(task.name, task.kind) for task in candidate.tasks}
    return [f"task {task.name} ({task.kind})" for task in current.tasks if (task.name, task.kind) not in has]

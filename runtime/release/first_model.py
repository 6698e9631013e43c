"""Loads the model of a new process: the released version, else the newest usable one before it, else the configured folder."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...schemas.release import Release, ReleaseState
from ..errors import SetupError, VersionRefused
from ..model.deltas.assembled import resolve
from ..model.folders.folder import read_manifest
from ..model.memory import check_room, find_free_bytes
from ..model.model import Model
from ..observe.logs import get_logger
from ..settings.settings import Settings
from .staging import Refusal, Stages, make_refusal
from .states import read_states

log = get_logger(__name__)

_MAX_RELEASES: Final = 10
"""Maximum number of different releases to try."""


@dataclass(frozen=True, slots=True)
class StartState:
    """The state at the start of a process, without the model itself, which must not be kept alive here."""

    state: ReleaseState | None = None
    """The newest state of the topic; None without one, or when no store is configured."""
    serves: Release | None = None
    """The serving release; None when the configured folder serves."""
    refused: Refusal | None = None
    """Why the current version of `state` does not serve."""


async def first_model(settings: Settings, loader: Stages | None) -> tuple[Model, StartState]:
    """Return the model for a new process, and the state that it was chosen by.

    A bad current version must not prevent restarts: releases before it are tried, newest first, then the folder.
    `ReleaseWatcher` publishes the refusal. Raises SetupError when nothing can be served.
    """
    chosen = settings.model
    state = None
    if loader is not None:
        state = (await read_states(settings.kafka, f"{settings.prefix}.models")).get(chosen.name or "")
    refused: Refusal | None = None
    if loader is not None and state is not None:
        for release in newest_first(state):
            try:
                model = await loader.stage(state.name, release)
            except Exception as error:  # noqa: BLE001  (`make_refusal` logs unexpected errors)
                refusal = make_refusal(error)
                refused = refused or refusal
                log.error("a released version is refused", version=release.version, why=refusal.message)
            else:
                return model, StartState(state, release, refused)
    if chosen.folder is not None:
        return await asyncio.to_thread(_load_folder, settings, chosen.folder), StartState(state, None, refused)
    if refused is not None:
        raise VersionRefused(refused.reason, refused.message)
    raise SetupError(
        f"model {chosen.name} has no release on {settings.kafka.bootstrap_servers}: release one, or name a folder"
        if loader is not None
        else "no model: name a model folder with --model, MURMURA_MODEL__FOLDER or model.folder"
    )


def newest_first(state: ReleaseState) -> Iterator[Release]:
    """Yield the current version, then the different ones before it that have a digest."""
    before = [Release(version=s.version, digest=s.digest) for s in reversed(state.history) if s.digest]
    distinct = dict.fromkeys((r.version, r.digest) for r in (state.current, *before))
    for version, digest in list(distinct)[:_MAX_RELEASES]:
        yield Release(version=version, digest=digest)


def _load_folder(settings: Settings, folder: Path) -> Model:
    servable = resolve(folder)
    check_room(str(folder), read_manifest(servable), settings.model.graph, find_free_bytes())
    return Model.load(servable, device=settings.model.device, graph=settings.model.graph)

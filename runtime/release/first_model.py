"""What a new process serves: the released version, else the newest before it that can be had, else the settings' folder."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...schemas.release import Release, ReleaseState
from ..errors import SetupError, VersionRefused
from ..model.assembled import resolve
from ..model.model import Model
from ..observe.logs import get_logger
from ..settings.settings import Settings
from .staging import Refusal, Stages, refusal_of
from .states import read_states

log = get_logger(__name__)

_LOOK_BACK: Final = 10
"""So many different releases are tried. What is older than that nobody wants back without being asked."""


@dataclass(frozen=True, slots=True)
class Begun:
    """What a process began with, apart from the model itself, which must not be kept alive here."""

    state: ReleaseState | None = None
    """The newest of the topic; None when there was none, or the store is not followed."""
    serves: Release | None = None
    """What serves of the store's versions; None when that is the settings' folder."""
    refused: Refusal | None = None
    """Why the current version of `state` does not serve."""


async def first_model(settings: Settings, loader: Stages | None) -> tuple[Model, Begun]:
    """Return the model that a new process serves, and how it came to that.

    While a bad version is current a restart must not take the fleet down: releases before it are tried, the newest
    first, then the folder. `ReleaseWatcher` tells everybody of the refusal. SetupError when nothing can be served.
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
            except Exception as error:  # noqa: BLE001  (`refusal_of` logs what is nobody's verdict)
                refusal = refusal_of(error)
                refused = refused or refusal
                log.error("a released version is refused", version=release.version, why=refusal.message)
            else:
                return model, Begun(state, release, refused)
    if chosen.folder is not None:
        return await asyncio.to_thread(_load_folder, settings, chosen.folder), Begun(state, None, refused)
    if refused is not None:
        raise VersionRefused(refused.reason, refused.message)
    raise SetupError(
        f"model {chosen.name} has no release on {settings.kafka.bootstrap_servers}: release one, or name a folder"
        if loader is not None
        else "no model: name a model folder with --model, MURMURA_MODEL__FOLDER or model.folder"
    )


def newest_first(state: ReleaseState) -> Iterator[Release]:
    """The current version, then the different ones before it that say their digest."""
    before = [Release(version=s.version, digest=s.digest) for s in reversed(state.history) if s.digest]
    distinct = dict.fromkeys((r.version, r.digest) for r in (state.current, *before))
    for version, digest in list(distinct)[:_LOOK_BACK]:
        yield Release(version=version, digest=digest)


def _load_folder(settings: Settings, folder: Path) -> Model:
    return Model.load(resolve(folder), device=settings.model.device, graph=settings.model.graph)

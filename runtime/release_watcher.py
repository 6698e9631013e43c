"""Follows the releases of one model and gives each new one to the slot. Reads without a group, from the beginning."""

import asyncio
import time
from datetime import UTC, datetime

from aiokafka.errors import KafkaError
from pydantic import ValidationError

from ..schemas.envelope import CE_ID, CE_SOURCE, CE_SPECVERSION, CE_TIME, CE_TYPE, SPEC_VERSION, app_source
from ..schemas.release import ReleaseState
from ..schemas.serving_event import ServingEvent
from .deadletters import Message
from .errors import ModelRefused, MurmuraError, SetupError
from .logs import get_logger
from .model_slot import Loader, ModelSlot, give_memory_back
from .publisher import Publisher
from .reader import reading
from .settings import Settings
from .telemetry import Metrics

log = get_logger(__name__)

_AFTER_ERROR_S = 2.0


class ReleaseWatcher:
    """Reads the topic of releases and swaps.

    Invariants:
    - a release whose generation does not exceed the last one considered changes nothing and is counted as stale;
    - of several releases that arrive during a swap only the newest is considered;
    - a version that is refused leaves one event and one count behind, and the old model in its place.
    """

    def __init__(
        self,
        settings: Settings,
        loader: Loader,
        slot: ModelSlot,
        publisher: Publisher,
        metrics: Metrics,
        *,
        generation: int = 0,
    ) -> None:
        """`generation`: of the release that serves already."""
        self._settings = settings
        self._name = settings.model.name or ""
        self._loader = loader
        self._slot = slot
        self._publisher = publisher
        self._metrics = metrics
        self._generation = generation
        self._newest: ReleaseState | None = None
        self._arrived = asyncio.Event()

    async def follow(self) -> None:
        """Read releases for ever; a broker that is away is waited for."""
        topic = f"{self._settings.prefix}.models"
        while True:
            try:
                async with reading(self._settings.kafka, [topic], from_beginning=True) as consumer:
                    async for record in consumer:
                        self._note(record.key, record.value)
            except (KafkaError, OSError, SetupError) as error:
                log.warning("releases cannot be read", why=type(error).__name__)
            await asyncio.sleep(_AFTER_ERROR_S)

    async def swap_for_ever(self) -> None:
        """Consider the newest release whenever one has arrived."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            state, self._newest = self._newest, None
            if state is not None:
                await self._consider(state)

    def _note(self, key: bytes | None, value: bytes | None) -> None:
        if key != self._name.encode() or value is None:
            return
        try:
            state = ReleaseState.model_validate_json(value)
        except ValidationError:
            log.warning("a release state cannot be read", model=self._name)
            return
        considered = self._newest.generation if self._newest is not None else self._generation
        if state.generation <= considered:
            self._metrics.swap("stale")
            return
        self._newest = state
        self._arrived.set()

    async def _consider(self, state: ReleaseState) -> None:
        self._generation = state.generation
        current, before = state.current, self._slot.model.manifest.version
        if current.version == before:
            return
        began = time.monotonic()
        try:
            model = await asyncio.to_thread(
                self._loader.load, self._name, current.version, current.digest, needed=self._slot.answered_tasks()
            )
        except ModelRefused as refused:
            await self._refused(state, refused.reason, str(refused), before, began)
        except (MurmuraError, OSError) as error:
            await self._refused(state, "damaged", str(error), before, began)
        except Exception as error:
            log.exception("a release could not be staged", version=current.version)
            await self._refused(state, "damaged", type(error).__name__, before, began)
        else:
            self._slot.put(model)
            self._metrics.swap("swapped")
            log.info("model swapped", model=self._name, version=current.version, previous=before)
            await self._say("model.swapped", state, before, began)
            del model
            await give_memory_back()

    async def _refused(self, state: ReleaseState, reason: str, message: str, before: int, began: float) -> None:
        self._metrics.swap("rejected")
        log.error("release refused", model=self._name, version=state.current.version, reason=reason, why=message)
        await self._say("model.rejected", state, before, began, reason=reason, message=message[:300])

    async def _say(
        self,
        event: str,
        state: ReleaseState,
        before: int,
        began: float,
        *,
        reason: str | None = None,
        message: str | None = None,
    ) -> None:
        now = datetime.now(UTC)
        said = ServingEvent.model_validate(
            {
                "event": event,
                "app": self._settings.app,
                "name": self._name,
                "version": state.current.version,
                "previous": before,
                "generation": state.generation,
                "reason": reason,
                "message": message,
                "seconds": round(time.monotonic() - began, 3),
                "at": now,
            }
        )
        headers = [
            (CE_SPECVERSION, SPEC_VERSION.encode()),
            (CE_ID, f"{self._settings.app}/{self._name}/{state.generation}".encode()),
            (CE_TYPE, f"murmura.{event}.v1".encode()),
            (CE_SOURCE, app_source(self._settings.app).encode()),
            (CE_TIME, now.isoformat().encode()),
        ]
        value = said.model_dump_json().encode()
        await self._publisher.publish([Message(f"{self._settings.prefix}.events", value, self._name.encode(), headers)])

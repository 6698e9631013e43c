"""Reads the texts of requests that are on the screen, and keeps the latest: a bounded index by coordinates."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from typing import Final

from aiokafka.errors import KafkaError

from ...runtime.errors import MurmuraError
from ...runtime.observe.logs import get_logger
from ...runtime.wire.request import Incoming
from ...schemas.result import Source
from ..reading.bounded_index import BoundedIndex
from ..review.requests import Lack, RequestFinder

log = get_logger(__name__)

SHOWN_CHARACTERS: Final = 300
READ_CHARACTERS: Final = 20_000
_KEPT: Final = 2_000
_KEPT_BYTES: Final = 4 * 1024 * 1024
_READ_S: Final = 5.0
_AGAIN_S: Final = 30.0
"""After which a topic that was not seen is looked for again."""

Place = tuple[str, int, int, int]


class RequestTexts:
    """One read at a time, whoever looks. A text that was not read in time is there for the next page."""

    def __init__(self, finder: RequestFinder, clock: Callable[[], float] = time.monotonic) -> None:
        self._finder, self._clock = finder, clock
        self._texts: BoundedIndex[Place, str] = BoundedIndex(_KEPT, _KEPT_BYTES)
        self._lacks: BoundedIndex[Place, tuple[Lack, float]] = BoundedIndex(_KEPT, _KEPT_BYTES)
        """Why there is no text, and until when it is not asked for again."""
        self._reading: asyncio.Task[None] | None = None
        self.trouble: str | None = None
        """Why the latest read failed, in one line; None after it went well."""

    async def read(self, sources: Sequence[Source], patience_s: float) -> None:
        """Read the texts that are not at hand, and wait at most `patience_s` for them."""
        missing = [each for each in sources if not self._is_known(_place_of(each))]
        if missing and (self._reading is None or self._reading.done()):
            self._reading = asyncio.create_task(self._read_missing(missing))
        if missing and self._reading is not None:
            await asyncio.wait([self._reading], timeout=patience_s)

    async def _read_missing(self, missing: Sequence[Source]) -> None:
        try:
            async with asyncio.timeout(_READ_S):
                await self._fetch(missing)
            self.trouble = None
        except TimeoutError:
            self.trouble = f"texts were not read within {_READ_S:g} s"
        except (MurmuraError, KafkaError, OSError) as error:
            self.trouble = str(error).splitlines()[0] if str(error) else type(error).__name__
            log.warning("texts cannot be read", why=self.trouble)

    async def _fetch(self, missing: Sequence[Source]) -> None:
        found = await self._finder.find_requests(missing)
        for source in missing:
            request, place = found.request_of(source), _place_of(source)
            if request is None:
                lack = found.lack_of(source)
                until = self._clock() + _AGAIN_S if lack is Lack.HIDDEN else math.inf
                self._lacks.put(place, (lack, until), 0)
            else:
                text = request.text[:READ_CHARACTERS]
                self._texts.put(place, text, 4 * len(text))

    async def fetch(self, source: Source) -> Incoming | Lack:
        """Return a whole request, or why there is none. Raises MurmuraError, also after 5 s."""
        try:
            async with asyncio.timeout(_READ_S):
                found = await self._finder.find_requests([source])
                return found.request_of(source) or found.lack_of(source)
        except TimeoutError:
            raise MurmuraError(f"the text was not read within {_READ_S:g} s") from None

    def get(self, source: Source) -> str | None:
        """Return the beginning of a text; None where it is not known."""
        return self._texts.get(_place_of(source))

    def lack_of(self, source: Source) -> Lack | None:
        """Return why there is no text; None where there is one, or it was not read yet."""
        place = _place_of(source)
        found = self._lacks.get(place)
        return None if found is None or self._texts.get(place) is not None else found[0]

    def _is_known(self, place: Place) -> bool:
        lack = self._lacks.get(place)
        return self._texts.get(place) is not None or (lack is not None and self._clock() < lack[1])


def _place_of(source: Source) -> Place:
    return source.topic, source.partition, source.offset, source.timestamp

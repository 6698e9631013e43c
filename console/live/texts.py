"""Reads the texts of requests that are on the screen, and keeps the latest: a bounded index by coordinates."""

import asyncio
from collections.abc import Sequence
from typing import Final

from ...runtime.errors import MurmuraError
from ...runtime.observe.logs import get_logger
from ...runtime.wire.request import Incoming
from ...schemas.result import Source
from ..reading.bounded_index import BoundedIndex
from ..review.requests import RequestFinder

log = get_logger(__name__)

SHOWN_CHARACTERS: Final = 300
READ_CHARACTERS: Final = 20_000
_KEPT: Final = 2_000
_KEPT_BYTES: Final = 4 * 1024 * 1024
_READ_S: Final = 5.0

Place = tuple[str, int, int, int]


class RequestTexts:
    """One read at a time, whoever looks. A text that was not read in time is read with the next page."""

    def __init__(self, finder: RequestFinder) -> None:
        self._finder = finder
        self._texts: BoundedIndex[Place, str] = BoundedIndex(_KEPT, _KEPT_BYTES)
        self._gone: BoundedIndex[Place, bool] = BoundedIndex(_KEPT, _KEPT_BYTES)
        self._reading = asyncio.Lock()

    async def read(self, sources: Sequence[Source]) -> str | None:
        """Read the texts that are not at hand. Returns why not, in one line; None after it went well."""
        try:
            async with asyncio.timeout(_READ_S), self._reading:
                missing = [each for each in sources if not self._is_known(_place_of(each))]
                if missing:
                    await self._fetch(missing)
        except TimeoutError:
            return f"texts were not read within {_READ_S:g} s"
        except (MurmuraError, OSError) as error:
            log.warning("texts cannot be read", why=str(error))
            return str(error)
        return None

    async def _fetch(self, missing: Sequence[Source]) -> None:
        found = await self._finder.find_requests(missing)
        for source in missing:
            request, place = found.request_of(source), _place_of(source)
            if request is None:
                self._gone.put(place, value=True, size=0)
            else:
                text = request.text[:READ_CHARACTERS]
                self._texts.put(place, text, 4 * len(text))

    async def fetch(self, source: Source) -> Incoming | None:
        """Return a whole request; None where it is not on the broker any more. Raises MurmuraError, also after 5 s."""
        try:
            async with asyncio.timeout(_READ_S):
                return (await self._finder.find_requests([source])).request_of(source)
        except TimeoutError:
            raise MurmuraError(f"the text was not read within {_READ_S:g} s") from None

    def get(self, source: Source) -> str | None:
        """Return the beginning of a text; None where it is not known."""
        return self._texts.get(_place_of(source))

    def is_gone(self, source: Source) -> bool:
        """Return whether the request is not on the broker any more."""
        return self._gone.get(_place_of(source)) is not None

    def _is_known(self, place: Place) -> bool:
        return self._texts.get(place) is not None or self._gone.get(place) is not None


def _place_of(source: Source) -> Place:
    return source.topic, source.partition, source.offset, source.timestamp

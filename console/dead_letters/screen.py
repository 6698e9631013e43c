"""Routes of the dead letters: the list with its groups, and one in detail."""

from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from ...runtime.settings.settings import Settings
from ...schemas.deadletter import DeadLetterReason
from ..reading.follower import Follower
from ..web.pages import Pages
from ..web.people import Refused
from ..web.screens import Screen, show
from .filters import Filters
from .index import DeadLetterIndex
from .job import Redrives
from .record import fetch_letter
from .redrive_routes import RedriveRoutes

PATH: Final = "/dead-letters"
PAGE_LETTERS: Final = 50


class DeadLetterScreen:
    """Lists from the index; a single record is fetched from the topic, whose values are not kept."""

    def __init__(
        self, settings: Settings, index: DeadLetterIndex, follower: Follower, redrives: Redrives, pages: Pages
    ) -> None:
        self._settings, self._index, self._follower, self._pages = settings, index, follower, pages
        self._redrive = RedriveRoutes(redrives, pages)

    def screen(self) -> Screen:
        routes = [show(PATH, self.list), show(PATH + "/{partition:int}/{offset:int}", self.show)]
        return Screen("Dead letters", PATH, "d", [*routes, *self._redrive.routes()])

    async def list(self, request: Request) -> Response:
        """Counts by reason and agent, and the newest ones."""
        filters = Filters.read(request.query_params)
        first = _read_number(request.query_params.get("first", "0"))
        selection = filters.selection()
        letters = self._index.find(selection, waiting_only=filters.waiting, first=first, most=PAGE_LETTERS + 1)
        return self._pages.render(
            request,
            "dead_letters.html",
            title="Dead letters",
            filters=filters,
            counts=self._index.count(selection),
            letters=letters[:PAGE_LETTERS],
            first=first,
            after=first + PAGE_LETTERS if len(letters) > PAGE_LETTERS else None,
            before=max(0, first - PAGE_LETTERS) if first else None,
            reasons=[reason.value for reason in DeadLetterReason],
            agents=sorted({group.agent or "-" for group in self._index.groups}),
            topics=sorted({group.topic for group in self._index.groups}),
            dropped=self._index.dropped,
            **self._follower.describe(self._settings.dead_letters),
        )

    async def show(self, request: Request) -> Response:
        """One dead letter, with the original as it was."""
        place = request.path_params["partition"], request.path_params["offset"]
        letter = await fetch_letter(self._settings, place)
        if letter is None:
            raise Refused(HTTPStatus.NOT_FOUND, f"There is no dead letter at {place[0]}/{place[1]}.")
        known = self._index.get(place)
        return self._pages.render(
            request,
            "dead_letter.html",
            title=f"Dead letter {place[0]}/{place[1]}",
            letter=letter,
            place=f"{place[0]}/{place[1]}",
            redriven=known is not None and known.redriven,
            is_listed=known is not None,
        )


def _read_number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise Refused(HTTPStatus.BAD_REQUEST, "Expected a number.")
    return int(text)

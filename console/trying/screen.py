"""Routes of trying a text."""

from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from ..live.answers import mark_spans
from ..reading.bounded_index import BoundedIndex
from ..reading.follower import Follower
from ..web.pages import Pages
from ..web.people import Refused, Role
from ..web.screens import Screen, do, go_to, person_of, show
from .asking import WAIT_S, Asking, Tried

PATH: Final = "/try"
TEXT_CHARACTERS: Final = 4_000
MOST_KEPT: Final = 20
"""Texts whose answers can be looked at again."""
_KEPT_BYTES: Final = 1024 * 1024


class TryScreen:
    """A text goes the way of all requests, so what answers it is what answers everybody."""

    def __init__(self, asking: Asking, follower: Follower, pages: Pages) -> None:
        self._asking, self._follower, self._pages = asking, follower, pages
        self._kept: BoundedIndex[str, Tried] = BoundedIndex(MOST_KEPT, _KEPT_BYTES)

    def screen(self) -> Screen:
        return Screen("Try it", PATH, "t", [show(PATH, self.show), do(PATH, self.ask, role=Role.OPERATOR)])

    async def show(self, request: Request) -> Response:
        """The form, with what came of a text that was tried lately: `id`. Loading the page again sends nothing."""
        return self._render(request, self._kept.get(request.query_params.get("id", "")))

    async def ask(self, request: Request) -> Response:
        """Send a text, and go to the page of what came back."""
        async with request.form(max_files=0, max_fields=10) as form:
            agent, text = str(form.get("agent") or ""), str(form.get("text") or "").replace("\r\n", "\n").strip()
        if not text or len(text) > TEXT_CHARACTERS:
            raise Refused(HTTPStatus.BAD_REQUEST, f"Expected a text of 1 to {TEXT_CHARACTERS:,} characters.")
        tried = await self._asking.ask(agent, text)
        self._kept.put(tried.request_id, tried, 4 * len(text))
        return go_to(f"{PATH}?id={tried.request_id}")

    def _render(self, request: Request, tried: Tried | None) -> Response:
        return self._pages.render(
            request,
            "try.html",
            title="Try it",
            agents={name: (topic, self._asking.others(name)) for name, topic in self._asking.topics.items()},
            agent=tried.agent if tried else next(iter(self._asking.topics), ""),
            text=tried.text if tried else "",
            is_gone=tried is None and "id" in request.query_params,
            most=MOST_KEPT,
            characters=TEXT_CHARACTERS,
            tried=tried,
            mark=mark_spans,
            wait_s=WAIT_S,
            may=person_of(request).may("operator"),
            unseen=sorted(self._follower.missing & self._asking.outputs),
            **self._follower.describe(),
        )

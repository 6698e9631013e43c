"""Routes of trying a text."""

from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from ..live.answers import mark_spans
from ..reading.follower import Follower
from ..web.pages import Pages
from ..web.people import Refused, Role
from ..web.screens import Screen, do, person_of, show
from .asking import WAIT_S, Asking, Tried

PATH: Final = "/try"
TEXT_CHARACTERS: Final = 4_000


class TryScreen:
    """A text goes the way of all requests, so what answers it is what answers everybody."""

    def __init__(self, asking: Asking, follower: Follower, pages: Pages) -> None:
        self._asking, self._follower, self._pages = asking, follower, pages

    def screen(self) -> Screen:
        return Screen("Try it", PATH, "t", [show(PATH, self.show), do(PATH, self.ask, role=Role.OPERATOR)])

    async def show(self, request: Request) -> Response:
        return self._render(request, "", next(iter(self._asking.topics), ""), None)

    async def ask(self, request: Request) -> Response:
        """Send a text, and show what came back."""
        async with request.form(max_files=0, max_fields=10) as form:
            agent, text = str(form.get("agent") or ""), str(form.get("text") or "").replace("\r\n", "\n").strip()
        if not text or len(text) > TEXT_CHARACTERS:
            raise Refused(HTTPStatus.BAD_REQUEST, f"Expected a text of 1 to {TEXT_CHARACTERS:,} characters.")
        return self._render(request, text, agent, await self._asking.ask(agent, text))

    def _render(self, request: Request, text: str, agent: str, tried: Tried | None) -> Response:
        return self._pages.render(
            request,
            "try.html",
            title="Try it",
            agents={name: (topic, self._asking.others(name)) for name, topic in self._asking.topics.items()},
            agent=agent,
            text=text,
            characters=TEXT_CHARACTERS,
            tried=tried,
            mark=mark_spans,
            wait_s=WAIT_S,
            may=person_of(request).may("operator"),
            unseen=sorted(self._follower.missing & self._asking.outputs),
            reading=not self._follower.caught_up.is_set(),
            missing=False,
            topic="",
            trouble=self._follower.trouble,
        )

"""Routes of a redrive: preview, start, progress, stop."""

import time
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from ..web.pages import Pages
from ..web.people import Refused, Role
from ..web.screens import GuardedRoute, do, go_to, person_of, show
from .filters import Filters
from .job import TARGETS, Plan, Redrives

PATH = "/dead-letters/redrive"


class RedriveRoutes:
    """What is previewed is what is sent: letters that are written later are left out."""

    def __init__(self, redrives: Redrives, pages: Pages) -> None:
        self._redrives, self._pages = redrives, pages

    def routes(self) -> list[GuardedRoute]:
        return [
            show(PATH, self.preview, role=Role.OPERATOR),
            do(PATH, self.start, role=Role.OPERATOR),
            show(PATH + "/progress", self.progress),
            do(PATH + "/stop", self.stop, role=Role.OPERATOR),
        ]

    async def preview(self, request: Request) -> Response:
        """How many would be sent, and where to."""
        filters, until = Filters.read(request.query_params), time.time()
        to, out_of_order = (
            _read_target(request.query_params.get("to", TARGETS[0])),
            "out_of_order" in request.query_params,
        )
        tally = await self._redrives.preview(Plan(filters.selection(until), to, None, out_of_order))
        return self._pages.render(
            request,
            "redrive.html",
            title="Send dead letters again",
            filters=filters,
            until=until,
            to=to,
            out_of_order=out_of_order,
            tally=tally,
            refused={why.value: number for why, number in tally.refused.items()},
        )

    async def start(self, request: Request) -> Response:
        form = await request.form()
        filters = Filters.read(form)
        plan = Plan(
            filters.selection(_read_float(form.get("until"), "until")),
            _read_target(str(form.get("to") or "")),
            _read_float(form.get("rate"), "rate"),
            "out_of_order" in form,
        )
        self._redrives.start(plan, person_of(request).name)
        return go_to(PATH + "/progress")

    async def progress(self, request: Request) -> Response:
        return self._pages.render(
            request, "redrive_progress.html", title="Redrive", progress=self._redrives.latest, now=time.time()
        )

    async def stop(self, request: Request) -> Response:
        self._redrives.stop()
        return go_to(PATH + "/progress")


def _read_target(text: str) -> str:
    if text not in TARGETS:
        raise Refused(HTTPStatus.BAD_REQUEST, f"Expected {' or '.join(TARGETS)} as the target.")
    return text


def _read_float(value: object, name: str) -> float | None:
    """Return a number above 0; None for an empty field."""
    text = str(value or "").strip()
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.01 <= number < 1e12:
        raise Refused(HTTPStatus.BAD_REQUEST, f"Expected a number of at least 0.01 as {name}.")
    return number

"""The page of a version that is only compared: how much of it was, by hour, and what differs."""

from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from ...runtime.shadow.report import (
    CHANGE_COLUMNS,
    HOUR_COLUMNS,
    TASK_COLUMNS,
    change_cells,
    describe_rest,
    hour_cells,
    task_cells,
)
from ..reading.follower import Follower
from ..web.pages import Pages
from ..web.people import Refused
from ..web.screens import GuardedRoute, show
from .shadow_index import ShadowIndex

PATH: Final = "/experiments/shadow"


class ShadowPage:
    """The report is that of `murmura experiment report --shadow`, of the records that the console has read."""

    def __init__(self, index: ShadowIndex, topic: str, follower: Follower, pages: Pages) -> None:
        self.index, self.topic, self._follower, self._pages = index, topic, follower, pages

    def route(self) -> GuardedRoute:
        return show(PATH, self.show)

    async def show(self, request: Request) -> Response:
        """The report of one version, the newest hour first."""
        name, version = request.query_params.get("model", ""), request.query_params.get("version", "")
        report = self.index.get(name, int(version)) if version.isascii() and version.isdecimal() else None
        if report is None:
            raise Refused(
                HTTPStatus.NOT_FOUND,
                f"Nothing about this version has been read from {self.topic}; counts come once a minute while it is compared.",
            )
        tables = (
            ("By hour", HOUR_COLUMNS, 1, hour_cells(report)[::-1]),
            ("By task", TASK_COLUMNS, 1, task_cells(report)),
            ("Most frequent changes", CHANGE_COLUMNS, 3, change_cells(report)),
        )
        return self._pages.render(
            request,
            "shadow.html",
            title=f"{name} {report.candidate}, only compared",
            report=report,
            tables=tables,
            rest=describe_rest(report),
            **self._follower.describe(self.topic),
        )

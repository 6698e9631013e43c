"""Stands before all screens: finds the person, checks where a request comes from, and answers what is refused."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ...runtime.errors import MurmuraError
from ...runtime.settings.console import ConsoleSettings
from .people import Refused, find_person
from .security import BoundedBodies, check_same_origin

Explain = Callable[[Request, int, str], Response]
"""Makes the page of a request that was refused or failed, from its status and one line."""


class Guard:
    """ASGI middleware. The person is in `request.state.person`; errors with a message for people become pages."""

    def __init__(self, app: ASGIApp, settings: ConsoleSettings, explain: Explain) -> None:
        self._app, self._settings, self._explain = BoundedBodies(app, settings.max_body_bytes), settings, explain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        answer: Callable[[Scope, Receive, Send], Awaitable[None]]
        try:
            address = request.client.host if request.client else ""
            request.state.person = find_person(address, request.headers, self._settings)
            check_same_origin(request.method, request.headers)
            await self._app(scope, receive, send)
            return
        except Refused as refused:
            answer = self._explain(request, refused.status, str(refused))
        except MurmuraError as error:
            answer = self._explain(request, HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        await answer(scope, receive, send)

"""Puts the frame around screens: one ASGI application, safe by itself."""

from collections.abc import Sequence
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.types import ASGIApp

from ...runtime.settings.console import ConsoleSettings
from .guard import Guard
from .pages import Pages
from .screens import Screen
from .security import SafeAnswers
from .static_files import PATH as STATIC_PATH
from .static_files import OwnFiles

OWN_HOSTS = ("localhost", "127.0.0.1", "[::1]", "::1")


def make_routes(screens: Sequence[Screen]) -> list[BaseRoute]:
    """Return all routes: those of the screens, and the static files, which hold nothing of anybody."""
    own: list[BaseRoute] = [route for screen in screens for route in screen.routes]
    return [*own, Mount(STATIC_PATH, OwnFiles(), name="static")]


def make_application(screens: Sequence[Screen], pages: Pages, settings: ConsoleSettings) -> ASGIApp:
    """Return the console. Requests for other hosts than its own and `settings.hosts` are refused with 400."""

    def explain(request: Request, status: int, message: str) -> Response:
        return pages.render(request, "refused.html", status=status, title=HTTPStatus(status).phrase, message=message)

    async def explain_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return explain(request, error.status_code, error.detail)

    async def explain_failure(request: Request, error: Exception) -> Response:
        return explain(request, 500, "The console failed at this. Its log has the reason.")

    app = Starlette(
        routes=make_routes(screens),
        middleware=[Middleware(Guard, settings=settings, explain=explain)],
        exception_handlers={HTTPException: explain_http, Exception: explain_failure},
    )
    hosts = [*OWN_HOSTS, *settings.hosts]
    return SafeAnswers(TrustedHostMiddleware(app, allowed_hosts=hosts, www_redirect=False))

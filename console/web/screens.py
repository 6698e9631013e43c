"""A screen: its place in the menu, and its routes, each with the role that it needs."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .people import Person, Refused, Role

Endpoint = Callable[[Request], Awaitable[Response]]


class GuardedRoute(Route):
    """A route that answers people with a role, and refuses others."""

    def __init__(self, path: str, endpoint: Endpoint, *, method: str, role: Role) -> None:
        self.role = role

        async def answer(request: Request) -> Response:
            person = person_of(request)
            if person.role < role:
                raise Refused(
                    HTTPStatus.FORBIDDEN,
                    f"This needs the role {role.name.lower()}; {person.name} is {person.role.name.lower()}.",
                )
            return await endpoint(request)

        super().__init__(path, answer, methods=[method])


def show(path: str, endpoint: Endpoint, *, role: Role = Role.READER) -> GuardedRoute:
    """Return the route of a page."""
    return GuardedRoute(path, endpoint, method="GET", role=role)


def do(path: str, endpoint: Endpoint, *, role: Role) -> GuardedRoute:
    """Return the route of something that is done: a POST."""
    return GuardedRoute(path, endpoint, method="POST", role=role)


@dataclass(frozen=True, slots=True)
class Screen:
    """`path` is that of its first page, `key` the letter that opens it after `g`."""

    title: str
    path: str
    key: str
    routes: Sequence[GuardedRoute]


def person_of(request: Request) -> Person:
    person: Person = request.state.person
    return person


def is_htmx(request: Request) -> bool:
    """Return whether htmx asks, so that a part of a page is enough."""
    return request.headers.get("hx-request") == "true"


def go_to(url: str) -> Response:
    """Return the answer to a POST that has been done: the browser, and htmx, fetch this page."""
    return Response(status_code=HTTPStatus.SEE_OTHER, headers={"location": url})

"""Who asks, and what this person may do. Pure."""

import getpass
import ipaddress
from dataclasses import dataclass
from enum import IntEnum
from http import HTTPStatus

from starlette.datastructures import Headers

from ...runtime.settings.console import ConsoleSettings

NAME_CHARACTERS = 200


class Role(IntEnum):
    """What a person may do; each role may do what those below it may."""

    READER = 1
    """Look at everything."""
    ANNOTATOR = 2
    """Also give feedback."""
    OPERATOR = 3
    """Also send dead letters again, release and roll back."""


class Refused(Exception):
    """A request that is not answered. The message is for the person who sent it."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks: `name` becomes the author of what is written."""

    name: str
    role: Role

    def may(self, role: str) -> bool:
        """Return whether this person has at least a role, by its name in lower case."""
        return self.role >= Role[role.upper()]


def find_person(address: str, headers: Headers, settings: ConsoleSettings) -> Person:
    """Return the person behind a request from `address`.

    Without `trusted_proxies` it is the user of this machine, whatever the headers say. Raises Refused.
    """
    if not settings.trusted_proxies:
        return Person(_local_user(), Role.READER if settings.read_only else Role.OPERATOR)
    if not _is_trusted(address, settings):
        raise Refused(HTTPStatus.FORBIDDEN, "This address is no trusted proxy. Open the console through its proxy.")
    name = _read_header(headers, settings.user_header)
    if not name:
        raise Refused(HTTPStatus.UNAUTHORIZED, f"The proxy named no user: {settings.user_header} is missing or empty.")
    if len(name) > NAME_CHARACTERS or not name.isprintable():
        raise Refused(
            HTTPStatus.BAD_REQUEST,
            f"{settings.user_header}: expected a printable name of at most {NAME_CHARACTERS} characters.",
        )
    role = Role.READER if settings.read_only else _highest_role(_read_header(headers, settings.roles_header), settings)
    return Person(name, role)


def _read_header(headers: Headers, name: str) -> str:
    """Return the value of a header as UTF-8, empty without it. Raises Refused for several: one of them may be the browser's own."""
    found = [value for key, value in headers.raw if key == name.lower().encode()]
    if len(found) > 1:
        raise Refused(
            HTTPStatus.BAD_REQUEST, f"{name} came {len(found)} times: the proxy must replace it, and not add its own."
        )
    try:
        return b"".join(found).decode().strip()
    except UnicodeDecodeError:
        raise Refused(HTTPStatus.BAD_REQUEST, f"{name}: expected UTF-8.") from None


def _is_trusted(address: str, settings: ConsoleSettings) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(found in network for network in settings.trusted_proxies)


def _highest_role(value: str, settings: ConsoleSettings) -> Role:
    known = {role.name.lower(): role for role in Role} | {
        group: Role[name.upper()] for group, name in settings.roles.items()
    }
    return max((known[each] for part in value.split(",") if (each := part.strip()) in known), default=Role.READER)


def _local_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no user has the number of this process
        return "local"

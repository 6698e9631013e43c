"""What every request and every answer is held to, whatever screen it is for."""

import asyncio
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .people import Refused

HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
READING: Final = {"GET", "HEAD"}
_BODY_S: Final = 10.0
"""Time limit for the body of a request."""


def check_same_origin(method: str, headers: Headers) -> None:
    """Raise Refused for a request that writes and does not come from a page of the console, or that another site's page makes.

    Browsers send `Sec-Fetch-Site` over TLS and on this machine, and `Origin` with every POST; the first decides. A page with
    `no-referrer` sends the origin `null` with a form, so without TLS only this machine's own names work.

    Reading is refused to pictures, frames and scripts of other sites: some pages read much of a topic to be made.
    """
    site = headers.get("sec-fetch-site")
    if method in READING:
        if site in {"cross-site", "same-site"} and headers.get("sec-fetch-dest", "document") != "document":
            raise Refused(HTTPStatus.FORBIDDEN, "Another site may link to the console, and not use its pages.")
        return
    if site is not None:
        same = site == "same-origin"
    else:
        same = urlsplit(headers.get("origin", "")).netloc.lower() == headers.get("host", "").lower() != ""
    if not same:
        raise Refused(HTTPStatus.FORBIDDEN, "This did not come from a page of the console, so nothing was done.")


def is_opened_by_person(headers: Headers) -> bool:
    """Return whether a page is fetched by a browser in which a person opened it, or a page of the console did.

    A picture or link of a foreign page is not, nor is a program that looks whether the console answers.
    """
    site = headers.get("sec-fetch-site")
    return site in {"none", "same-origin"} if site is not None else "text/html" in headers.get("accept", "")


class SafeAnswers:
    """ASGI middleware: adds the headers of safety to every answer, and forbids to store what is no static file."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        await self._app(scope, receive, send_safely if scope["type"] == "http" else send)


class BoundedBodies:
    """ASGI middleware: reads the body before the screen does, at most `max_bytes` within 10 s; else 413 or 408.

    A body that breaks off is refused with 400: its beginning may say something else than the whole.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app, self._max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in READING:
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(_BODY_S):
                body = await self._read(scope, receive)
        except TimeoutError:
            raise Refused(HTTPStatus.REQUEST_TIMEOUT, "The request did not arrive in time.") from None
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_read() -> Message:
            return waiting.pop() if waiting else await receive()

        await self._app(scope, receive_read, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared) > self._max_bytes:
            raise self._too_large()
        chunks, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refused(HTTPStatus.BAD_REQUEST, "The request broke off, so nothing was done.")
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > self._max_bytes:
                raise self._too_large()
            if not message.get("more_body"):
                return b"".join(chunks)

    def _too_large(self) -> Refused:
        return Refused(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The request is too large: at most {self._max_bytes:,} bytes."
        )

"""Routes of the review queue: one text at a time, with the next one at hand."""

import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from ...runtime.errors import SetupError
from ..web.pages import Pages
from ..web.people import Refused, Role
from ..web.screens import Screen, do, go_to, is_htmx, person_of, show
from ..web.security import is_opened_by_person
from .desk import ReviewDesk, Shown
from .item import SHOWN_CHARACTERS, ReviewItem
from .posted import Posted, write_spans

PATH: Final = "/reviews"
SEAT: Final = "murmura_seat"
"""Cookie that tells browsers apart, for leases; it gives no right to anything."""
_SEAT: Final = re.compile("[0-9a-f]{16}")
ACTION: Final = "idempotency-key"
"""Header with which the page names what was done once, when it asks again after a lost answer."""
_ACTION: Final = re.compile("[0-9a-f]{32}")
_TOKEN: Final = re.compile(r"\w+|[^\w\s]")
MOST_TOKENS: Final = 2000
_GUIDELINES_BYTES: Final = 64 * 1024
_REMEMBERED: Final = 1000
_HALF_YEAR_S: Final = 180 * 86_400


class Token(NamedTuple):
    """A word of a text as a button: what stands before it, and where it lies in code points."""

    before: str
    text: str
    start: int
    end: int


def split_tokens(text: str) -> list[Token]:
    """Return the words and marks of a text, at most 2,000."""
    tokens: list[Token] = []
    at = 0
    for found in _TOKEN.finditer(text):
        tokens.append(Token(text[at : found.start()], found[0], found.start(), found.end()))
        at = found.end()
        if len(tokens) == MOST_TOKENS:
            break
    return tokens


class Facts(NamedTuple):
    """What the screen says beside the text: of whoever fills the queue."""

    trouble: str | None = None
    refused: str | None = None
    left_out: Sequence[tuple[str, int]] = ()
    ready: bool = True
    source: str = ""
    takes_consent: bool = True


class ReviewScreen:
    """`facts` is asked for each page. `guidelines`: what people are to go by, as plain text."""

    def __init__(
        self,
        desk: ReviewDesk,
        pages: Pages,
        facts: Callable[[], Facts],
        guidelines: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._desk, self._pages, self._facts, self._clock = desk, pages, facts, clock
        self._guidelines = guidelines
        self._consents: OrderedDict[str, bool] = OrderedDict()
        """By browser: whether the last verdict allowed training, which the next one proposes."""

    def screen(self) -> Screen:
        routes = [
            show(PATH, self.show),
            do(PATH + "/undo", self.undo, role=Role.ANNOTATOR),
            do(PATH + "/{key}", self.judge, role=Role.ANNOTATOR),
        ]
        return Screen("Reviews", PATH, "r", routes)

    async def show(self, request: Request) -> Response:
        """The queue. Who may not judge sees how far it is, and holds nothing; neither does who was sent by a foreign page."""
        person = person_of(request)
        if not person.may("annotator") or not is_opened_by_person(request.headers):
            return await self._render(request, None, "")
        seat = find_seat(request)
        answer = await self._render(request, self._desk.show(seat, person.name, self._clock()), seat)
        set_seat(answer, seat)
        return answer

    async def judge(self, request: Request) -> Response:
        """A verdict, or a skip."""
        person, key = person_of(request), request.path_params["key"]
        seat = _read_seat(request) or person.name
        posted = await _read_form(request)
        now = self._clock()

        def act() -> Shown:
            if "skip" in posted.get("do", ()):
                return self._desk.skip(key, seat, person.name, now)
            self._remember(seat, consent=bool(posted.get("consent")))
            return self._desk.judge(key, seat, person.name, posted, now)

        return await self._answer(request, self._desk.once(_read_action(request), seat, person.name, now, act), seat)

    async def undo(self, request: Request) -> Response:
        """The last verdict of this person is withdrawn."""
        person = person_of(request)
        seat, now = _read_seat(request) or person.name, self._clock()
        act = partial(self._desk.undo, seat, person.name, now)
        return await self._answer(request, self._desk.once(_read_action(request), seat, person.name, now, act), seat)

    async def _answer(self, request: Request, shown: Shown, seat: str) -> Response:
        """Return the part that changed, or for a form without a script the way to the whole page, unless it has to say why not."""
        if is_htmx(request) or shown.failed or shown.note:
            return await self._render(request, shown, seat)
        return go_to(PATH)

    async def _render(self, request: Request, shown: Shown | None, seat: str) -> Response:
        items = [] if shown is None else [each for each in (shown.item, shown.following) if each is not None]
        await self._pages.prepare((text for item in items for text in _list_texts(item)), SHOWN_CHARACTERS)
        agreement = self._desk.queue.agreement
        return self._pages.render(
            request,
            "review_part.html" if is_htmx(request) else "review.html",
            title="Reviews",
            shown=shown,
            counts=self._desk.queue.counts(self._clock()),
            facts=self._facts(),
            agreement=sorted(agreement.items()),
            guidelines=self._guidelines,
            consent=self._consents.get(seat, False),
            tokens=split_tokens,
            span_lines=write_spans,
        )

    def _remember(self, seat: str, *, consent: bool) -> None:
        self._consents[seat] = consent
        self._consents.move_to_end(seat)
        if len(self._consents) > _REMEMBERED:
            self._consents.popitem(last=False)


def _read_seat(request: Request) -> str | None:
    seat = request.cookies.get(SEAT, "")
    return seat if _SEAT.fullmatch(seat) else None


def find_seat(request: Request) -> str:
    """Return the name of the browser; a new one where it has none."""
    return _read_seat(request) or secrets.token_hex(8)


def set_seat(answer: Response, seat: str) -> None:
    """Let the browser keep its name."""
    answer.set_cookie(SEAT, seat, max_age=_HALF_YEAR_S, path="/", httponly=True, samesite="strict")


def _list_texts(item: ReviewItem) -> list[str]:
    """Return what the page writes with the filter `text(20000)`."""
    return [each for each in (item.text, item.text_pair, item.shown.value) if isinstance(each, str)]


def _read_action(request: Request) -> str | None:
    """Return what names the action; None for a form without a script."""
    action = request.headers.get(ACTION)
    if action is not None and not _ACTION.fullmatch(action):
        raise Refused(HTTPStatus.BAD_REQUEST, "Expected 32 hexadecimal digits as Idempotency-Key.")
    return action


async def _read_form(request: Request) -> Posted:
    if not request.headers.get("content-type", "").startswith(
        ("application/x-www-form-urlencoded", "multipart/form-data")
    ):
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Expected a form.")
    async with request.form(max_files=0, max_fields=500) as form:
        return {name: [value for value in form.getlist(name) if isinstance(value, str)] for name in form}


def list_left_out(counts: dict[str, int]) -> Iterator[tuple[str, int]]:
    """Yield what was not shown, in words."""
    words = {
        "unreadable": "no reviews",
        "no_prediction": "of training rows, which are mended in their files",
        "unknown_task": "of a task that the model lacks or that people cannot enter here",
        "request_gone": "whose text is not on the broker any more",
        "request_hidden": "whose text is in a topic that is missing, or that this user may not read",
        "request_unreadable": "whose text is no request that can be read",
    }
    for name, count in sorted(counts.items()):
        yield words.get(name, name), count


def read_guidelines(path: Path | None) -> str | None:
    """Return the text of the guidelines. Raises SetupError for a file that cannot be read or is too large."""
    if path is None:
        return None
    try:
        raw = path.read_bytes()
        if len(raw) > _GUIDELINES_BYTES:
            raise SetupError(f"console.guidelines {path}: {len(raw):,} bytes, expected {_GUIDELINES_BYTES:,} at most")
        return raw.decode()
    except OSError as error:
        raise SetupError(f"console.guidelines {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise SetupError(f"console.guidelines {path}: not UTF-8; save the file as UTF-8") from None

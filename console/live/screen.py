"""Routes of the live flow: the newest answers, and correcting one of them."""

import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from ..reading.follower import Follower
from ..review.live import LiveReviews
from ..review.requests import Lack
from ..review.screen import PATH as REVIEWS
from ..review.screen import find_seat, set_seat
from ..web.pages import Pages, format_utc
from ..web.people import Refused, Role
from ..web.screens import Screen, do, go_to, is_htmx, person_of, show
from .answers import mark_spans
from .correcting import correct
from .index import LiveFilters, LiveIndex
from .result import LiveResult
from .texts import SHOWN_CHARACTERS, RequestTexts

PATH: Final = "/live"
SHOWN: Final = 25
MOST_A_SECOND: Final = 20.0
"""Answers a second above which the page stands still: nobody reads faster."""
PATIENCE_S: Final = 0.1
"""How long a page waits for texts: the next one, two seconds later, has them."""
HELD_PATIENCE_S: Final = 2.0
"""The same of a page that has no next one."""
_NAME_CHARACTERS: Final = 300
LACKS: Final = {
    Lack.GONE: "not on the broker any more",
    Lack.HIDDEN: "its topic is missing, or this user may not read it",
    Lack.UNREADABLE: "no request that can be read",
}


class LiveScreen:
    """`reviews`: the queue into which answers are put to be corrected; None without the labels of a model."""

    def __init__(
        self, index: LiveIndex, texts: RequestTexts, reviews: LiveReviews | None, follower: Follower, pages: Pages
    ) -> None:
        self._index, self._texts, self._reviews = index, texts, reviews
        self._follower, self._pages = follower, pages

    def screen(self) -> Screen:
        routes = [show(PATH, self.show), do(PATH + "/correct", self.correct, role=Role.ANNOTATOR)]
        return Screen("Live flow", PATH, "l", routes)

    async def show(self, request: Request) -> Response:
        """The newest answers that the filter has. `until`: where the page stands still at a high rate; `hold`: where somebody stopped it."""
        query, rate = request.query_params, self._index.rate(time.time())
        filters = read_filters(query)
        until, hold = _read_number(query.get("until")), _read_number(query.get("hold"))
        results = self._index.find(filters, SHOWN, hold)
        is_fast = rate > MOST_A_SECOND and _come_fast(results)
        if hold is None and until is not None and is_fast:
            results = self._index.find(filters, SHOWN, until)
        await self._texts.read([each.source for each in results], HELD_PATIENCE_S if hold is not None else PATIENCE_S)
        newest = max((each.number for each in results), default=0)
        stand = until if until is not None else newest
        # Only the answers are renewed.
        agents, versions, labels = ([], [], []) if is_htmx(request) else self._index.choices()
        texts = {each.prediction_id: self._texts.get(each.source) for each in results}
        await self._pages.prepare((text for text in texts.values() if text is not None), SHOWN_CHARACTERS)
        return self._pages.render(
            request,
            "live.html",
            title="Live flow",
            filters=filters,
            results=results,
            texts=texts,
            drawn=self._index.drawn,
            characters=SHOWN_CHARACTERS,
            lack_of=self._texts.lack_of,
            lacks=LACKS,
            mark=mark_spans,
            today=format_utc(time.time())[:10],
            agents=agents,
            versions=versions,
            labels=labels,
            rate=rate,
            is_fast=is_fast,
            most=MOST_A_SECOND,
            held=hold is not None,
            again=make_url(filters, until=stand) if is_fast else make_url(filters),
            stop=make_url(filters, hold=newest),
            go_on=make_url(filters),
            tasks=frozenset(self._reviews.tasks if self._reviews is not None else ()),
            corrects=self._reviews is not None,
            **self._follower.describe() | {"trouble": self._follower.trouble or self._texts.trouble},
        )

    async def correct(self, request: Request) -> Response:
        """Put an answer into the review queue, before this browser."""
        person = person_of(request)
        async with request.form(max_files=0, max_fields=10) as form:
            name, task = (str(form.get(each) or "")[:_NAME_CHARACTERS] for each in ("prediction_id", "task"))
        result = self._index.get(name)
        if self._reviews is None:
            raise Refused(
                HTTPStatus.CONFLICT,
                "Answers are corrected at a console that has the labels of a model: `--model FOLDER`, or a model store.",
            )
        if result is None:
            raise Refused(HTTPStatus.NOT_FOUND, "This answer is not among the latest any more.")
        if name in self._index.drawn:
            raise Refused(
                HTTPStatus.CONFLICT,
                "This answer was drawn at random, to be judged by somebody who has not seen it: it comes in the review queue.",
            )
        found = await self._texts.fetch(result.source)
        if isinstance(found, Lack):
            raise Refused(HTTPStatus.NOT_FOUND, f"The text of this answer: {LACKS[found]}.")
        seat = find_seat(request)
        correct(self._reviews, result, found, task, seat, person.name, time.time())
        answer = go_to(REVIEWS)
        set_seat(answer, seat)
        return answer


def _come_fast(results: Sequence[LiveResult]) -> bool:
    """Return whether the newest answers that a filter has, the newest first, came within less time than people need to read them."""
    return len(results) == SHOWN and results[0].at - results[-1].at < SHOWN / MOST_A_SECOND


def read_filters(query: Mapping[str, str]) -> LiveFilters:
    """Return what a query selects. Raises Refused."""
    agent, label, version = (query.get(each, "") for each in ("agent", "label", "version"))
    if max(len(agent), len(label), len(version)) > _NAME_CHARACTERS:
        raise Refused(HTTPStatus.BAD_REQUEST, "A name in the filter is too long.")
    return LiveFilters(agent, label, version, _read_share(query.get("least")), _read_share(query.get("most")))


def make_url(filters: LiveFilters, **more: Any) -> str:
    """Return the address of the page with a filter."""
    fields = {
        "agent": filters.agent,
        "label": filters.label,
        "version": filters.version,
        "least": "" if filters.least is None else f"{filters.least:g}",
        "most": "" if filters.most is None else f"{filters.most:g}",
    }
    given: Sequence[tuple[str, Any]] = [(name, value) for name, value in (fields | more).items() if value != ""]
    return f"{PATH}?{urlencode(given)}" if given else PATH


def _read_number(text: str | None) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > 15:
        raise Refused(HTTPStatus.BAD_REQUEST, "Expected a number.")
    return int(text)


def _read_share(text: str | None) -> float | None:
    if not text:
        return None
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise Refused(HTTPStatus.BAD_REQUEST, "Expected a score from 0 to 1.")
    return share

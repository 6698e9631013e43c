"""Connects topics, indexes and screens: the whole console as one ASGI application."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from starlette.types import ASGIApp

from ..runtime.settings.settings import Settings
from .dead_letters.index import DeadLetterIndex
from .dead_letters.screen import DeadLetterScreen
from .reading.follower import Feed, Follower
from .review.live import make_reviews
from .review.screen import ReviewScreen, read_guidelines
from .web.application import make_application
from .web.pages import Pages
from .web.screens import Screen


@dataclass(frozen=True, slots=True)
class Console:
    """The application, its screens, and the work beside them: coroutine functions that run until cancelled."""

    application: ASGIApp
    screens: Sequence[Screen]
    follower: Follower
    work: Sequence[Callable[[], Awaitable[None]]]


def assemble(settings: Settings) -> Console:
    """Return the console; nothing is read before its work runs."""
    kept = settings.console.kept_records, settings.console.kept_bytes
    letters = DeadLetterIndex(*kept)
    reviews = make_reviews(settings)
    guidelines = read_guidelines(settings.console.guidelines)
    feeds = [Feed(settings.dead_letters, letters.take, kept[0])]
    follower = Follower(settings.kafka, feeds if reviews is None else [*feeds, reviews.feed])
    screens: list[Screen] = []
    pages = Pages(screens, settings.console.masked)
    screens.append(DeadLetterScreen(settings, letters, follower, pages).screen())
    work: list[Callable[[], Awaitable[None]]] = [follower.run]
    if reviews is not None:
        screens.insert(0, ReviewScreen(reviews.desk, pages, reviews.facts, guidelines).screen())
        work.append(partial(reviews.run, follower))
    return Console(make_application(screens, pages, settings.console), screens, follower, work)

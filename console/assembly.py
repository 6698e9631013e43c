"""Connects topics, indexes and screens: the whole console as one ASGI application."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from starlette.types import ASGIApp

from ..runtime.agent.agent import Agent
from ..runtime.redrive.preparation import find_known_agents
from ..runtime.settings.settings import Settings
from .dead_letters.index import DeadLetterIndex
from .dead_letters.job import Redrives
from .dead_letters.screen import DeadLetterScreen
from .experiments.index import ExperimentIndex
from .experiments.screen import ExperimentScreen
from .experiments.shadow_index import ShadowIndex
from .experiments.shadow_page import ShadowPage
from .live.drawn import MOST_DRAWN, DrawnAnswers
from .live.index import MOST_RESULTS, LiveIndex
from .live.screen import LiveScreen
from .live.texts import RequestTexts
from .overview.figures import AgentFigures
from .overview.process_metrics import MetricsReader
from .overview.screen import OverviewScreen
from .reading.follower import Feed, Follower
from .review.live import answer_topics, make_finder, make_reviews
from .review.loading import REPLYING_AGENT
from .review.screen import ReviewScreen, read_guidelines
from .trying.asking import Asking
from .trying.screen import TryScreen
from .versions.changes import ReleaseChanges
from .versions.index import MOST_EVENTS, VersionIndex
from .versions.labels import ReleasedLabels
from .versions.screen import VersionScreen
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
    closing: Sequence[Callable[[], Awaitable[None]]] = ()
    """What is done between the last request and the end of the work; each takes a bounded time."""


def assemble(settings: Settings, own: Sequence[str] = ()) -> Console:
    """Return the console; nothing is read before its work runs. `own`: agents beside the installed, as `module:attribute`."""
    kept = settings.console.kept_records, settings.console.kept_bytes
    known = find_known_agents(settings, own)
    letters, figures, versions, drawn = DeadLetterIndex(*kept), AgentFigures(), VersionIndex(), DrawnAnswers()
    live = LiveIndex(drawn=drawn)
    experiments, shadows, experiments_topic = ExperimentIndex(), ShadowIndex(), f"{settings.prefix}.experiments"
    outputs = {topic for agent in known if isinstance(agent, Agent) and (topic := agent.output)}
    feeds = [
        Feed(settings.dead_letters, letters.take, kept[0]),
        Feed(settings.dead_letters, figures.take_dead_letters, kept[0]),
        Feed(f"{settings.prefix}.feedback", figures.take_feedback, kept[0]),
        *(Feed(topic, figures.take_results, kept[0]) for topic in sorted(outputs)),
        *(Feed(topic, live.take, MOST_RESULTS) for topic in sorted(outputs)),
        Feed(answer_topics(settings)[REPLYING_AGENT], live.take_replies, MOST_RESULTS),
        Feed(f"{settings.prefix}.models", versions.take_releases, kept[0]),
        Feed(f"{settings.prefix}.reviews", drawn.take, MOST_DRAWN),
        Feed(experiments_topic, experiments.take, kept[0]),
        Feed(f"{settings.prefix}.shadow", shadows.take, kept[0]),
        Feed(f"{settings.prefix}.events", versions.take_events, MOST_EVENTS),
        Feed(f"{settings.prefix}.training", versions.take_training, kept[0]),
    ]
    reviews = make_reviews(settings)
    guidelines = read_guidelines(settings.console.guidelines)
    follower = Follower(settings.kafka, feeds if reviews is None else [*feeds, reviews.feed, reviews.copies_feed])
    changes = ReleaseChanges(settings)
    metrics = MetricsReader(settings.console.metrics)
    screens: list[Screen] = []
    pages = Pages(screens, settings.console.masked)
    shadow_page = ShadowPage(shadows, f"{settings.prefix}.shadow", follower, pages)
    asking = Asking(settings, known, live)
    redrives = Redrives(settings, lambda: known)
    screens += [
        OverviewScreen(settings, known, figures, metrics, follower, pages).screen(),
        LiveScreen(live, RequestTexts(make_finder(settings)), reviews, follower, pages).screen(),
        DeadLetterScreen(settings, letters, follower, redrives, pages).screen(),
        VersionScreen(settings, versions, figures, metrics, changes, follower, pages).screen(),
        ExperimentScreen(experiments, versions, experiments_topic, follower, pages, shadow_page).screen(),
        TryScreen(asking, follower, pages).screen(),
    ]
    work: list[Callable[[], Awaitable[None]]] = [follower.run, metrics.run, redrives.finish]
    closing: list[Callable[[], Awaitable[None]]] = [asking.close]
    if reviews is not None:
        closing.append(reviews.send_rest)
        screens.insert(0, ReviewScreen(reviews.desk, pages, reviews.facts, guidelines).screen())
        work.append(partial(reviews.run, follower))
        if settings.model.folder is None:
            work.append(ReleasedLabels(reviews, versions, changes).run)
    return Console(make_application(screens, pages, settings.console), screens, follower, work, closing)

"""The route of the overview: a row for each agent, and what is wrong in red, each with its runbook."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from ...runtime.agent.agent import Agent
from ...runtime.agent.handler import Handler
from ...runtime.settings.settings import Settings
from ...schemas.feedback import Verdict
from ..reading.follower import Follower
from ..web.pages import Pages
from ..web.screens import Screen, show
from .figures import HOUR_S, AgentFigures, percentile_ms
from .process_metrics import MetricsReader, ProcessMetrics

PATH: Final = "/"
_MINUTE_S: Final = 60.0
_SLOW_MS: Final = 5_000
"""As the alert MurmuraSlow."""
_LAG: Final = 100
"""As the alert MurmuraLagGrows, without the growth."""


@dataclass(frozen=True, slots=True)
class Runbook:
    """The part of `docs/operations.md` to read: its heading as an anchor, and what to look for there."""

    anchor: str
    title: str


_RUNBOOKS: Final = {
    "lag": Runbook("when", "Lag grows"),
    "p95": Runbook("alerts", "MurmuraSlow"),
    "dead_letters": Runbook("when", "Dead letters"),
    "suspended": Runbook("when", "An agent is suspended"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One agent. None means that it is unknown. `wrong`: what is in red, with the part of the runbook to read."""

    agent: str
    rate: float
    p95_ms: float | None
    withheld: float | None
    """Share of the answers of the last hour in which a task was withheld."""
    corrections: int
    verdicts: int
    dead_letters: int
    version: str | None
    lag: float | None
    suspended: bool | None
    wrong: Mapping[str, Runbook]


def make_row(
    agent: str, figures: AgentFigures, metrics: ProcessMetrics | None, topics: Sequence[str], now: float
) -> Row:
    """Return the row of an agent that reads `topics`. Pure."""
    minute, hour = figures.counts(agent, now, _MINUTE_S), figures.counts(agent, now, HOUR_S)
    answered, p95 = hour["answered"], percentile_ms(figures.counts(agent, now, 5 * _MINUTE_S), 0.95)
    agreeing = [verdict.value for verdict in Verdict if verdict.agrees is not None]
    found = [metrics.lag[topic] for topic in topics if topic in metrics.lag] if metrics else []
    lag = sum(found) if found else None
    suspended = agent in metrics.suspended if metrics and agent in metrics.known else None
    is_wrong = {
        "lag": lag is not None and lag > _LAG,
        "p95": p95 is not None and p95 > _SLOW_MS,
        "dead_letters": hour["dead_letter"] > 0,
        "suspended": bool(suspended),
    }
    return Row(
        agent,
        minute["answered"] / _MINUTE_S,
        p95,
        hour["withheld"] / answered if answered else None,
        sum(hour[verdict.value] for verdict in Verdict if verdict.agrees is False),
        sum(hour[verdict] for verdict in agreeing),
        hour["dead_letter"],
        figures.version(agent),
        lag,
        suspended,
        {name: runbook for name, runbook in _RUNBOOKS.items() if is_wrong[name]},
    )


class OverviewScreen:
    """Figures from topics; lag and suspension from the processes' metrics, where their addresses are known."""

    def __init__(
        self,
        settings: Settings,
        known: Sequence[Agent | Handler],
        figures: AgentFigures,
        metrics: MetricsReader,
        follower: Follower,
        pages: Pages,
    ) -> None:
        self._settings, self._figures, self._metrics = settings, figures, metrics
        self._topics = {agent.name: tuple(agent.topics) for agent in known}
        self._follower, self._pages = follower, pages

    def screen(self) -> Screen:
        return Screen("Overview", PATH, "o", [show(PATH, self.show)])

    async def show(self, request: Request) -> Response:
        """A table of all agents that wrote or failed at something, and of the installed ones that did not."""
        now, metrics = time.time(), self._metrics.latest
        names = sorted({*self._topics, *self._figures.agents})
        rows = [make_row(name, self._figures, metrics, self._topics.get(name, ()), now) for name in names]
        return self._pages.render(
            request,
            "overview.html",
            title="Overview",
            rows=rows,
            now=now,
            unanswered=metrics.unanswered if metrics else (),
            runbooks=self._settings.console.runbooks,
            asks_metrics=bool(self._settings.console.metrics),
            missing=sorted(self._follower.missing),
            left_out=self._follower.left_out + self._follower.unreadable,
            reading=not self._follower.caught_up.is_set(),
            trouble=self._follower.trouble,
        )

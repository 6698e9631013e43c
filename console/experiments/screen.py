"""Routes of the experiments: all of them, and the report of one."""

from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from ...runtime.cli.experiments.markdown import DISAGREEMENTS_NOTE, list_tables, summary_rows
from ...runtime.experiments.report import report_experiment
from ...runtime.release.experiment_events import format_share
from ...schemas.experiment_state import ExperimentState
from ...schemas.release import Candidate, ReleaseState
from ..reading.follower import Follower
from ..versions.index import VersionIndex
from ..web.pages import Pages
from ..web.people import Refused
from ..web.screens import Screen, show
from .index import ExperimentIndex
from .shadow_page import ShadowPage

PATH: Final = "/experiments"


class ExperimentScreen:
    """The report is that of `murmura experiment report`. What runs is in the release states."""

    def __init__(
        self,
        index: ExperimentIndex,
        versions: VersionIndex,
        topic: str,
        follower: Follower,
        pages: Pages,
        shadows: ShadowPage,
    ) -> None:
        self._index, self._versions, self._topic = index, versions, topic
        self._follower, self._pages, self._shadows = follower, pages, shadows

    def screen(self) -> Screen:
        routes = [show(PATH, self.list_experiments), show(PATH + "/one", self.show), self._shadows.route()]
        return Screen("Experiments", PATH, "x", routes)

    async def list_experiments(self, request: Request) -> Response:
        """What runs beside current versions, and all experiments of which sums are kept."""
        return self._pages.render(
            request,
            "experiments.html",
            title="Experiments",
            running=[(state, state.candidate) for state in self._versions.states.values() if state.candidate],
            kept={state.experiment.id for state in self._index.states()},
            states=self._index.states(),
            shadows=self._shadows.index.reports(),
            share=format_share,
            **self._follower.describe(self._topic),
        )

    async def show(self, request: Request) -> Response:
        """The report of one: effects with intervals, mismatch, decision, by task."""
        state = self._index.get(request.query_params.get("id", ""))
        if state is None:
            raise Refused(HTTPStatus.NOT_FOUND, "There is no experiment of this name of which sums are kept.")
        running = self._find_running(state)
        if running is not None and running[1].experiment is not None:  # the release state is the newer of both
            state = state.model_copy(update={"experiment": running[1].experiment})
        report = report_experiment(state)
        return self._pages.render(
            request,
            "experiment.html",
            title=f"Experiment {state.experiment.id}",
            report=report,
            facts=summary_rows(report),
            tables=list_tables(report),
            disagreements=DISAGREEMENTS_NOTE,
            runs=running is not None,
        )

    def _find_running(self, state: ExperimentState) -> tuple[ReleaseState, Candidate] | None:
        release = self._versions.states.get(state.model)
        candidate = release.candidate if release else None
        if release is None or candidate is None or candidate.experiment is None:
            return None
        return (release, candidate) if candidate.experiment.id == state.experiment.id else None

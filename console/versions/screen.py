"""Routes of the versions: all models, one of them, and releasing and going back, each with a page to confirm it."""

import time
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any, Final

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response

from ...runtime.errors import MurmuraError
from ...runtime.release.experiment_events import describe_candidate, describe_step
from ...runtime.settings.settings import Settings
from ...schemas.manifest import ModelManifest
from ...schemas.release import ReleaseState, rolled_back
from ...schemas.serving_event import ServingEvent
from ..overview.figures import AgentFigures, Served
from ..overview.process_metrics import MetricsReader
from ..reading.follower import Follower
from ..web.pages import Pages
from ..web.people import Refused, Role
from ..web.screens import Screen, do, go_to, is_htmx, person_of, show
from .changes import Confirmed, ReleaseChanges
from .index import VersionIndex

PATH: Final = "/versions"
SHOWN_EVENTS: Final = 20
WHY_CHARACTERS: Final = 1000
_ANSWERS_S: Final = 300.0
_TITLES: Final = {"release": "Release", "rollback": "Go back to", "stop": "Let all be answered by"}


class VersionScreen:
    """Shows what topics and metrics say, and changes releases by `changes`."""

    def __init__(
        self,
        settings: Settings,
        index: VersionIndex,
        figures: AgentFigures,
        metrics: MetricsReader,
        changes: ReleaseChanges,
        follower: Follower,
        pages: Pages,
    ) -> None:
        self._settings, self._index, self._figures, self._metrics = settings, index, figures, metrics
        self._changes, self._follower, self._pages = changes, follower, pages

    def screen(self) -> Screen:
        routes = [
            show(PATH, self.list_models),
            show(PATH + "/{name}", self.show),
            show(PATH + "/{name}/release", self.confirm_release, role=Role.OPERATOR),
            do(PATH + "/{name}/release", self.release, role=Role.OPERATOR),
            show(PATH + "/{name}/rollback", self.confirm_rollback, role=Role.OPERATOR),
            do(PATH + "/{name}/rollback", self.roll_back, role=Role.OPERATOR),
            show(PATH + "/{name}/stop", self.confirm_stop, role=Role.OPERATOR),
            do(PATH + "/{name}/stop", self.stop, role=Role.OPERATOR),
        ]
        return Screen("Versions", PATH, "v", routes)

    async def list_models(self, request: Request) -> Response:
        """All models; where there is one, that model."""
        names = self._names()
        if len(names) == 1:
            return await self._show(request, names[0])
        return self._pages.render(
            request,
            "versions.html",
            title="Versions",
            models={name: self._index.states.get(name) for name in names},
            **self._reading(),
        )

    async def show(self, request: Request) -> Response:
        return await self._show(request, self._read_name(request))

    async def _show(self, request: Request, name: str) -> Response:
        now, state, metrics = time.time(), self._index.states.get(name), self._metrics.latest
        # What is renewed every few seconds does not list them.
        versions, trouble = ((), None) if is_htmx(request) else await self._list_versions(name)
        current = state.current.version if state else None
        return self._pages.render(
            request,
            "version.html",
            title=f"Versions of {name}",
            name=name,
            state=state,
            beside=_describe_beside(state),
            steps=state.history[::-1] if state else (),
            describe_step=describe_step,
            versions=[each for each in versions if each != current],
            has_store=self._changes.has_store(name),
            store_trouble=trouble,
            before=None if state is None else _find_before(state),
            served=self._list_served(name, now),
            processes=[each for each in metrics.models if each.name == name] if metrics else (),
            events=self._index.events(name)[:SHOWN_EVENTS],
            describe=describe_event,
            run=self._index.run(name),
            gate=self._index.gate(name),
            **self._reading(),
        )

    async def confirm_release(self, request: Request) -> Response:
        """What would change, and a field for the reason."""
        name, version = self._read_name(request), _read_number(request.query_params.get("version"), "version")
        state = self._index.states.get(name)
        manifest = await self._describe(name, version)
        tasks = {task.name for task in manifest.tasks}
        served: set[str] = set()
        if state is not None:
            try:
                served = {task.name for task in (await self._changes.describe(name, state.current.version)).tasks}
            except MurmuraError:  # the store has the current version no more: nothing to compare with
                served = set()
        return self._confirm(request, "release", name, state, version, added=tasks - served, lacking=served - tasks)

    async def release(self, request: Request) -> Response:
        name = self._read_name(request)
        form = await request.form()
        version = _read_number(form.get("version"), "version")
        self._index.note_release(await self._changes.release(name, version, _read_confirmed(request, form)))
        return go_to(f"{PATH}/{name}")

    async def confirm_rollback(self, request: Request) -> Response:
        """What would change, and a field for the reason."""
        name = self._read_name(request)
        state = self._index.states.get(name)
        before = None if state is None else _find_before(state)
        if before is None:
            raise Refused(HTTPStatus.CONFLICT, f"{name} has no version before the current one to go back to.")
        return self._confirm(request, "rollback", name, state, before)

    async def roll_back(self, request: Request) -> Response:
        name = self._read_name(request)
        form = await request.form()
        self._index.note_release(await self._changes.roll_back(name, _read_confirmed(request, form)))
        return go_to(f"{PATH}/{name}")

    async def confirm_stop(self, request: Request) -> Response:
        """What would end, and a field for the reason."""
        name = self._read_name(request)
        state = self._index.states.get(name)
        if state is None or state.candidate is None:
            raise Refused(HTTPStatus.CONFLICT, f"No version runs beside the current one of {name}.")
        return self._confirm(request, "stop", name, state, state.current.version)

    async def stop(self, request: Request) -> Response:
        name = self._read_name(request)
        form = await request.form()
        self._index.note_release(await self._changes.stop(name, _read_confirmed(request, form)))
        return go_to(f"{PATH}/{name}")

    def _confirm(
        self,
        request: Request,
        what: str,
        name: str,
        state: ReleaseState | None,
        version: int,
        *,
        added: Iterable[str] = (),
        lacking: Iterable[str] = (),
    ) -> Response:
        return self._pages.render(
            request,
            "version_change.html",
            title=f"{_TITLES[what]} {name} {version}",
            what=what,
            name=name,
            state=state,
            version=version,
            added=sorted(added),
            lacking=sorted(lacking),
            why_characters=WHY_CHARACTERS,
        )

    async def _describe(self, name: str, version: int) -> ModelManifest:
        try:
            return await self._changes.describe(name, version)
        except MurmuraError as error:
            raise Refused(HTTPStatus.NOT_FOUND, f"{error}.") from None

    async def _list_versions(self, name: str) -> tuple[Sequence[int], str | None]:
        if not self._changes.has_store(name):
            return (), None
        try:
            return await self._changes.versions(name), None
        except MurmuraError as error:
            return (), str(error)

    def _names(self) -> list[str]:
        settings = self._settings
        stored = (settings.for_model(each).model for each in settings.model_names)
        return sorted({*self._index.states, *(each.name for each in stored if each.store and each.name)})

    def _read_name(self, request: Request) -> str:
        name: str = request.path_params["name"]
        if name not in self._names():
            raise Refused(HTTPStatus.NOT_FOUND, "There is no model of this name with a release or in a store.")
        return name

    def _list_served(self, name: str, now: float) -> list[tuple[str, Served, int]]:
        """Return agent, version and answers of the last minutes, of one model."""
        return [
            (agent, served, count)
            for agent in self._figures.agents
            for served, count in sorted(self._figures.served(agent, now, _ANSWERS_S).items())
            if served.name == name
        ]

    def _reading(self) -> dict[str, Any]:
        return {
            **self._follower.describe(f"{self._settings.prefix}.models"),
            "asks_metrics": bool(self._settings.console.metrics),
        }


def describe_event(event: ServingEvent) -> str:
    """Return what an event says, for a cell of a table."""
    parts = [event.event.value.replace(".", " ")]
    if event.version is not None:
        parts.append(f"to {event.version}" if event.event.value == "model.swapped" else f"{event.version}")
    if event.previous is not None:
        parts.append(f"from {event.previous}" if event.event.value == "model.swapped" else f"({event.previous} serves)")
    if event.reason is not None:
        parts.append(event.reason.value)
    return " ".join(parts)


def _describe_beside(state: ReleaseState | None) -> str | None:
    """Return what a version beside the current one does, in one line; None without one."""
    if state is None or state.candidate is None or not state.history:
        return None
    return describe_candidate(state, state.candidate, state.history[-1].model_copy(update={"experiment": None}))


def _find_before(state: ReleaseState) -> int | None:
    """Return the version that going back would make current."""
    try:
        return rolled_back(state, by="", why="", at=state.history[-1].at).current.version
    except (LookupError, IndexError):
        return None


def _read_confirmed(request: Request, form: FormData) -> Confirmed:
    why = str(form.get("why") or "").strip()
    if not why:
        raise Refused(HTTPStatus.BAD_REQUEST, "Nothing was changed: say why, it stands in the history.")
    if len(why) > WHY_CHARACTERS:
        raise Refused(
            HTTPStatus.BAD_REQUEST, f"The reason has {len(why)} characters, expected {WHY_CHARACTERS} at most."
        )
    return Confirmed(person_of(request).name, why, _read_number(form.get("generation"), "generation"))


def _read_number(value: object, what: str) -> int:
    text = str(value or "")
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise Refused(HTTPStatus.BAD_REQUEST, f"Expected a number as {what}.")
    return int(text)

"""A loaded version that is compared on a share of the records while the device is idle, and answers none of them."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from threading import Thread, get_ident
from typing import Final, Protocol

from ...schemas.manifest import ModelManifest
from ..agent.routes import Route
from ..batching.callers.request_checks import EngineModel
from ..batching.device.run_threads import RunThreads
from ..batching.queues.entry import Entry
from ..batching.queues.version_queue import VersionTerms
from ..errors import DeviceFailed, describe_origin
from ..experiments.assignment import place_unit
from ..model.inputs import choose_input, find_pair_tasks
from ..observe.logs import get_logger
from ..output.delivery import Delivery
from .comparing import comparable_tasks, shares_tokens
from .pass_length import PROBE_S, PassLength
from .passes import PassResult, run_pass
from .rows import Request, Row, Versions, WaitingRows
from .shared import Shared

log = get_logger(__name__)

DEADLINE_S: Final = 5.0
"""Of a pass, which is calibrated to take milliseconds: then it is terminated, and at twice that time it is given up."""
MOST_FAILURES: Final = 3
"""Number of rows in a row that the version fails on alone, after which it is unloaded."""

OnFailed = Callable[[DeviceFailed], None]


class IdleDevice(Protocol):
    """The device as a shadow sees it."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing of any loaded version waits or runs."""

    def watch_idle(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back whenever the device becomes idle; returns what ends that."""


class Shadow:
    """Compares one version with the current one. Used on the event loop; passes run in a thread of its own.

    Invariants:
    - a record is taken after its messages are acknowledged, and nothing of it is kept but its text, tokens and answers;
    - a pass starts only while no record waits and nothing of any loaded version runs, nor another shadow's pass;
    - what fails here ends here: the version is unloaded at the first failure that is no record's, at a pass that does not end, or after
      `MOST_FAILURES` records that it fails on, and `on_failed` is called once.
    """

    def __init__(
        self,
        model: EngineModel,
        share: float,
        routes: Mapping[str, Route],
        terms: VersionTerms,
        device: IdleDevice,
        shared: Shared,
        on_failed: OnFailed,
    ) -> None:
        """`share`: of the requests, by their ids. `routes`: of the version's own tasks. `terms`: its calibrated costs."""
        self.model, self._share, self._routes, self._terms = model, share, routes, terms
        self._device, self._shared, self._on_failed = device, shared, on_failed
        self._name = f"shadow/{model.manifest.name}/{model.manifest.version}"
        self._pair_tasks = find_pair_tasks(model.manifest.tasks)
        self._waiting = WaitingRows(shared.limits.max_waiting_bytes)
        self._most_s = shared.limits.max_pass_ms / 1000
        self._length = PassLength(self._most_s)
        self._threads = RunThreads()
        self._threads.start(1)
        self._thread: int | None = None
        self._passes = 0
        """Number of passes that have started; the running one has the last number."""
        self._deadline: asyncio.TimerHandle | None = None
        self._failures = 0
        self._warned = False
        self._scheduled = self._overdue = self.stopped = False
        self._manifest: ModelManifest | None = None
        """That of the version that answered last: not the model, which must be freed when it is replaced."""
        self.threads: list[Thread] = []
        shared.add(self)
        self.has_waiting: Callable[[], bool] = lambda: False
        """Whether records wait that have not come to the device yet."""
        self._unwatch = device.watch_idle(self.wake)

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the rows that wait."""
        return self._waiting.bytes

    def offer(self, entries: Sequence[Entry], manifest: ModelManifest, published: Collection[tuple[str, int]]) -> None:
        """Take a batch of one version whose messages are acknowledged. Never raises and never waits.

        `manifest`: that of the version. `published`: the agents whose results were published, each with the `id()` of its record.
        """
        if self.stopped:
            return
        try:
            self._take(entries, manifest, published)
        except Exception as error:  # noqa: BLE001 - the records were answered: nothing here may end the process
            self._fail(DeviceFailed(f"records cannot be taken for comparison: {describe_origin(error)}"))

    def _take(self, entries: Sequence[Entry], manifest: ModelManifest, published: Collection[tuple[str, int]]) -> None:
        if manifest is not self._manifest:
            self._meet(manifest)
        answered, chosen, dropped = 0, 0, 0
        for entry in entries:
            if entry.outputs is None or entry.error is not None or entry.cancelled:
                continue
            answered += 1
            if self._share < 1 and place_unit(self._name, entry.context.request.request_id) >= self._share:
                continue
            if (row := self._make_row(entry, published)) is not None:
                chosen += 1
                dropped += len(self._waiting.add(row))
        self._shared.count_answered(self._versions, answered, chosen)
        if dropped:
            self._shared.count(self._versions, "dropped", dropped)
        self.wake()

    def _meet(self, manifest: ModelManifest) -> None:
        """Learn what can be compared with a version."""
        own = self.model.manifest
        self._manifest = manifest
        self._versions = Versions(manifest.name, manifest.version, own.version)
        self._comparable = comparable_tasks(manifest, own)
        self._shares_tokens = shares_tokens(manifest, own)

    def _make_row(self, entry: Entry, published: Collection[tuple[str, int]]) -> Row | None:
        """Return what is kept of an entry; None where the versions have no task of it in common."""
        delivery: Delivery = entry.context
        outputs = entry.outputs or {}
        tasks = tuple(task for task in entry.tasks if task in self._comparable and task in outputs)
        route = self._routes.get(delivery.record.topic)
        if not tasks or route is None:
            return None
        asked, record = delivery.request, delivery.record
        agents = {
            bound.agent.name: (*of,) for bound, of in delivery.asked if (bound.agent.name, id(record)) in published
        }
        text = choose_input(asked.text, asked.text_pair, tasks, self._pair_tasks)
        return Row(
            self._versions,
            Request(
                asked.request_id, asked.source, record.topic, record.partition, record.offset, record.timestamp, agents
            ),
            text,
            entry.encoded if self._shares_tokens and text == entry.text else None,
            entry.encoded.tokens,
            tasks,
            outputs,
            route.thresholds,
            route.windows,
        )

    def wake(self) -> None:
        """Start a pass soon, if one may start then."""
        if not self._scheduled and not self.stopped and len(self._waiting):
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._scheduled = False
        if self.stopped or self._shared.running is not None or not self._device.is_idle or self.has_waiting():
            return
        rows, too_long = self._waiting.take(self._terms, self._most_s, self._length.pass_s)
        self._count_too_long(too_long)
        if not rows:
            return
        loop = asyncio.get_running_loop()
        if not self._length.allows(self._terms.seconds(sum(row.tokens for row in rows)), loop.time()):
            self._waiting.put_back(rows)
            loop.call_later(PROBE_S, self.wake)
            return
        self._shared.running = self
        self._passes += 1
        number = self._passes
        self._deadline = loop.call_later(DEADLINE_S, self._end_overdue, number)
        self._threads.put(partial(self._work, number, rows, self.model, self._length.pass_s))

    def _work(self, number: int, rows: list[Row], model: EngineModel, pass_s: float) -> Callable[[], None]:
        """Run a pass. In the thread."""
        self._thread = get_ident()
        return partial(self._finish, number, rows, run_pass(model, rows, self._terms, self._most_s, pass_s))

    def _finish(self, number: int, rows: list[Row], result: PassResult) -> None:
        if self.stopped:
            self._release()
        if self.stopped or number != self._passes or self._shared.running is not self:
            return  # abandoned
        fault = result.fault or (_make_overdue() if self._overdue and not result.compared else None)
        self._end_pass()
        self._note_slowness(result.slowness)
        for row, compared in result.compared:
            self._shared.record(row, compared)
        if result.failed:
            self._shared.count(rows[0].versions, "failed", len(result.failed))
        self._count_too_long(result.too_long)
        self._waiting.put_back(result.left)
        self._failures = self._failures + 1 if result.is_failure else 0 if result.compared else self._failures
        if fault is not None:
            self._fail(fault)
        elif self._failures >= MOST_FAILURES:
            self._fail(DeviceFailed(f"it failed on {self._failures} records, one after another"))
        self._shared.wake()

    def _count_too_long(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._shared.count(row.versions, "too_long")
        if rows and not self._warned:
            self._warned = True
            needed_ms = 1000 * self._terms.seconds(rows[0].tokens)
            log.warning(
                "a record needs more device time than a pass of a shadow may take and is not compared; "
                "to compare such records raise shadow.max_pass_ms",
                needed_ms=round(needed_ms, 1),
                max_pass_ms=1000 * self._most_s,
            )

    def _note_slowness(self, slowness: float | None) -> None:
        if self._length.note(slowness):
            log.warning(
                "passes of a shadow take longer than their calibration and are made shorter",
                times=round(self._length.slowness, 1),
            )

    def _release(self) -> None:
        """Let another shadow run: the pass of this one, which was stopped meanwhile, has come back, or never does."""
        if self._shared.running is self:
            self._end_pass()
            self._shared.wake()

    def _end_pass(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._shared.running, self._overdue = None, False

    def _end_overdue(self, number: int) -> None:
        """Terminate a pass at its deadline, and give it up at twice that. One that comes back with answers was only slow."""
        if number != self._passes or self._shared.running is not self:
            return
        if self._thread is not None:
            self.model.terminate(self._thread)
        if self._overdue:
            self._end_pass()
            self._fail(_make_overdue())
            self._shared.wake()
            return
        self._overdue = True
        self._deadline = asyncio.get_running_loop().call_later(DEADLINE_S, self._end_overdue, number)

    def _fail(self, fault: DeviceFailed) -> None:
        log.error("a shadow failed and is unloaded; all records are answered as before", why=str(fault))
        self.stop()
        self._on_failed(fault)

    def stop(self) -> bool:
        """End comparing: what waits is dropped, what runs is ignored. Returns whether a pass ran.

        Until that pass has come back no other shadow begins one, for at most twice its deadline.
        """
        if self.stopped:
            return False
        self.stopped = True
        self._unwatch()
        if len(self._waiting):
            self._shared.count(self._versions, "dropped", len(self._waiting))
            self._waiting.clear()
        self.threads = self._threads.end()
        ran = self._shared.running is self
        if ran and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = asyncio.get_running_loop().call_later(2 * DEADLINE_S, self._release)
        self._shared.forget(self)
        return ran


def _make_overdue() -> DeviceFailed:
    return DeviceFailed(f"a pass of the compared version was not back within {DEADLINE_S:g} s")

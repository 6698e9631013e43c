"""Release states, events of serving processes and trainings, by model. Pure; bounded in models and in events of each."""

from collections import deque
from collections.abc import Sequence
from typing import Final

from pydantic import ValidationError

from ...runtime.release.states import ReleaseLog
from ...runtime.wire.message import Record
from ...schemas.release import ReleaseState
from ...schemas.serving_event import ServingEvent
from ...schemas.training_event import TrainingEvent

MOST_MODELS: Final = 200
"""Names of models come from records; those beyond it are left out."""
MOST_EVENTS: Final = 5_000
"""Records of `murmura.events` to begin with; another model may be the subject of most of them."""
KEPT_EVENTS: Final = 20
"""Of a model, the newest."""


class VersionIndex:
    """Takes the records of `murmura.models`, `murmura.events` and `murmura.training`, each in order."""

    def __init__(self) -> None:
        self._releases = ReleaseLog()
        self._events: dict[str | None, deque[tuple[int, ServingEvent]]] = {}
        """By model, or None for those about none: the number of each in the order of reading, and it."""
        self._read_events = 0
        self._runs: dict[str, TrainingEvent] = {}
        self._gates: dict[str, TrainingEvent] = {}

    @property
    def states(self) -> dict[str, ReleaseState]:
        return self._releases.states

    def run(self, name: str) -> TrainingEvent | None:
        """Return the newest event of a model's trainings."""
        return self._runs.get(name)

    def gate(self, name: str) -> TrainingEvent | None:
        """Return the newest event of a model's trainings that has the table of its gate."""
        return self._gates.get(name)

    def events(self, name: str) -> list[ServingEvent]:
        """Return the newest events about a model, and those about no model, the newest first."""
        found = [*self._events.get(name, ()), *self._events.get(None, ())]
        return [event for _, event in sorted(found, key=lambda pair: -pair[0])]

    def take_releases(self, records: Sequence[Record]) -> None:
        for record in records:
            name = (record.key or b"").decode(errors="replace")
            if name in self.states or len(self.states) < MOST_MODELS:
                self._releases.apply(record.key, record.value)

    def note_release(self, state: ReleaseState) -> None:
        """Note a state that was published from here, before it is read."""
        self._releases.apply(state.name.encode(), state.model_dump_json().encode())

    def take_events(self, records: Sequence[Record]) -> None:
        for record in records:
            try:
                event = ServingEvent.model_validate_json(record.value or b"")
            except ValidationError:
                continue
            self._read_events += 1
            if event.name in self._events or len(self._events) <= MOST_MODELS:
                kept = self._events.setdefault(event.name, deque(maxlen=KEPT_EVENTS))
                kept.append((self._read_events, event))

    def take_training(self, records: Sequence[Record]) -> None:
        for record in records:
            try:
                event = TrainingEvent.model_validate_json(record.value or b"")
            except ValidationError:
                continue
            if event.name in self._runs or len(self._runs) < MOST_MODELS:
                self._runs[event.name] = event
                if event.gate:
                    self._gates[event.name] = event

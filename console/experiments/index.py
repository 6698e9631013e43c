"""What is kept of experiments, the latest state of each. Pure; bounded in experiments and without their units."""

from collections.abc import Sequence
from typing import Final

from pydantic import ValidationError

from ...runtime.experiments.kept_state import split_key
from ...runtime.wire.message import Record
from ...schemas.experiment_state import ExperimentState
from ..reading.bounded_index import BoundedIndex

MOST_EXPERIMENTS: Final = 200
MOST_BYTES: Final = 16 * 1024 * 1024


class ExperimentIndex:
    """Takes the records of `murmura.experiments` in order; those of entered units are passed over."""

    def __init__(self) -> None:
        self._states: BoundedIndex[str, ExperimentState] = BoundedIndex(MOST_EXPERIMENTS, MOST_BYTES)

    def take(self, records: Sequence[Record]) -> None:
        for record in records:
            try:
                name, chunk = split_key((record.key or b"").decode(errors="replace"))
            except ValueError:
                continue
            if chunk is None:
                self._take_state(name, record.value)

    def _take_state(self, name: str, value: bytes | None) -> None:
        self._states.remove(name)
        if value is None:
            return
        try:
            state = ExperimentState.model_validate_json(value)
        except ValidationError:
            return
        kept = state.model_copy(
            update={"tail": "", "begin_at": {}, "read_until": {}, "skipped_offsets": {}, "skipped_spans": {}}
        )
        self._states.put(name, kept, len(value) - len(state.tail))

    def get(self, name: str) -> ExperimentState | None:
        return self._states.get(name)

    def states(self) -> list[ExperimentState]:
        """Return all, the one that was looked at last first."""
        return sorted(self._states.newest(), key=lambda state: -state.minute)

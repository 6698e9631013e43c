"""The decoder of a task that generates: its two graphs, and a step for all replies of a table."""

from collections.abc import Callable, Collection, Mapping, Sequence
from math import isfinite
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ....schemas.manifest import ModelManifest, TaskSpec
from ...errors import DeviceFailed, ModelFailed
from ..device_faults import model_error
from ..generated import Generated
from ..onnx_session import Runner
from .pieces import forbid_pieces, forbid_slots, join_pieces
from .slot_table import Memory, Sizes, SlotTable

_FUNCTIONS_KEPT: Final = 16
Array = npt.NDArray[Any]


class ChosenPiece(NamedTuple):
    """The piece that a step adds to a reply, by its number, and the logarithm of its probability."""

    number: int
    log_probability: float


class ReplyDecoder:
    """Runs the graphs of one task. Its methods block; `step` needs a table that no other thread uses."""

    def __init__(self, manifest: ModelManifest, task: TaskSpec, memory: Runner, step: Runner) -> None:
        assert task.generation is not None
        self.task, self._memory, self._step = task, memory, step
        self._forbidden: dict[Callable[[str], bool], Array] = {}
        encoder = manifest.encoder
        self.sizes = Sizes(
            task.generation.layers,
            encoder.heads,
            encoder.hidden_size // encoder.heads,
            len(task.labels),
            task.generation.max_tokens,
            manifest.limits.max_tokens,
        )

    def forbid(self, slots: Collection[str] | None, is_forbidden: Callable[[str], bool] | None = None) -> Array | None:
        """Return what is added to the logits [V] so that a reply names only these slots, and has no other piece that
        `is_forbidden`; None where all are allowed.

        Slots that the task does not have make no difference. The answers of a function are remembered.
        """
        both = [] if slots is None else [forbid_slots(self.task.labels, slots)]
        if is_forbidden is not None:
            if is_forbidden not in self._forbidden:
                if len(self._forbidden) == _FUNCTIONS_KEPT:
                    self._forbidden.clear()
                self._forbidden[is_forbidden] = forbid_pieces(self.task.labels, is_forbidden)
            both.append(self._forbidden[is_forbidden])
        return np.minimum.reduce(both) if both else None

    @property
    def runners(self) -> tuple[Runner, Runner]:
        """Of its two graphs."""
        return self._memory, self._step

    def remember(self, hidden: Array, starts: npt.NDArray[np.int64]) -> list[Memory]:
        """Return what each text of a batch is remembered by: text b has the states `hidden[starts[b] : starts[b + 1]]`."""
        kept = self._memory.run({"hidden": np.ascontiguousarray(hidden)})
        ranges = [slice(*each) for each in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)]
        return [Memory(kept["keys"][:, each], kept["values"][:, each]) for each in ranges]

    def step(self, table: SlotTable, *, apart: bool = False) -> list[ChosenPiece | ModelFailed]:
        """Add a piece to all replies of a table; returns what was chosen in each row, or why that row failed.

        A step that fails is repeated row by row, so that one reply does not fail another. Raises DeviceFailed when the
        device is the cause; the table is then unchanged. `apart`: each row runs on its own, and one that is out of memory or
        time fails alone; DeviceFailed is raised only when the device is lost.
        """
        if apart:
            return self._step_by_row(table, apart=True)
        try:
            outputs = self._step.run(table.feeds())
        except Exception as error:  # noqa: BLE001 - a bug concerns no other reply either
            failed = model_error(error, "a step")
            if isinstance(failed, DeviceFailed):
                raise failed  # noqa: B904 - it has its cause
            return [failed] if table.count == 1 else self._step_by_row(table)
        table.write_all(outputs)
        chosen = zip(outputs["next"].tolist(), outputs["log_probability"].tolist(), strict=True)
        return [self._check(number, value) for number, value in chosen][: table.count]

    def _step_by_row(self, table: SlotTable, *, apart: bool = False) -> list[ChosenPiece | ModelFailed]:
        # Nothing is written before all rows have run: the device may fail in any of them.
        results = [self._run_row(table, row, apart) for row in range(table.count)]
        return [
            result if isinstance(result, ModelFailed) else self._write_row(table, row, result)
            for row, result in enumerate(results)
        ]

    def _run_row(self, table: SlotTable, row: int, apart: bool) -> Mapping[str, Array] | ModelFailed:
        try:
            return self._step.run(table.feeds_of(row))
        except Exception as error:  # noqa: BLE001 - a bug concerns no other reply either
            failed = model_error(error, "a step")
            if isinstance(failed, DeviceFailed) and (failed.lost or not apart):
                raise failed  # noqa: B904 - it has its cause
            return failed

    def _write_row(self, table: SlotTable, row: int, outputs: Mapping[str, Array]) -> ChosenPiece | ModelFailed:
        table.write(row, outputs, 0)
        return self._check(int(outputs["next"][0]), float(outputs["log_probability"][0]))

    def _check(self, number: int, log_probability: float) -> ChosenPiece | ModelFailed:
        if not isfinite(log_probability):
            return ModelFailed(f"task {self.task.name} gave a reply whose values are not finite")
        return ChosenPiece(number, log_probability)

    def finish(self, pieces: Sequence[ChosenPiece]) -> Generated:
        """Return the reply of the pieces that were chosen for it, its end among them if it has ended."""
        numbers = [piece.number for piece in pieces]
        ended = bool(numbers) and numbers[-1] == 0
        numbers = numbers[:-1] if ended else numbers
        score = float(np.exp(np.mean([piece.log_probability for piece in pieces]))) if pieces else 0.0
        text = join_pieces(self.task.labels[number] for number in numbers)
        return Generated(text, tuple(numbers), score, "end" if ended else "length")


def make_decoders(manifest: ModelManifest, open_graph: Callable[[str], Runner]) -> dict[str, ReplyDecoder]:
    """Return the decoders of all tasks that generate; `open_graph` opens the graph at a path of the folder."""
    return {
        task.name: ReplyDecoder(manifest, task, *(open_graph(path) for path in task.decoder_files.values()))
        for task in manifest.tasks
        if task.decoder_files
    }

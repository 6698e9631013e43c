"""The experiments that are held: which ones run, by the release states, and what is kept of each. Pure."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

from ...schemas.experiment_state import Ended, EnteredChunk, ExperimentState
from ...schemas.release import ReleaseState, Step
from ..experiments.kept_state import chunk_key, read_state, split_key, state_key, write_chunk, write_state
from ..experiments.run import ExperimentRun

Written = tuple[str, bytes | None]
"""Key and value of a record of the topic of experiments; no value: the record is deleted."""


class HeldExperiments:
    """The running experiments by model, and those that ended and are still shown."""

    def __init__(self, models: tuple[str, ...], keep_days: float) -> None:
        """`models`: the names of those whose experiments are held. `keep_days`: how long an ended one is kept."""
        self._models, self._keep = models, timedelta(days=keep_days)
        self.running: dict[str, ExperimentRun] = {}
        self._ended: dict[str, ExperimentState] = {}
        self._kept: dict[str, ExperimentState] = {}
        self._chunks: dict[str, dict[int, EnteredChunk]] = {}
        self._written_chunks: dict[str, int] = {}
        self._overwritten: dict[str, bytes | None] = {}
        """What a process wrote after another one had gone on or ended the experiment is written over again."""
        self.problems: list[str] = []
        """What could not be restored, one line each."""

    def restore(self, key: bytes | None, value: bytes | None) -> None:
        """Read a record of the topic. Raises ValueError for one that is none of an experiment.

        Of a running experiment the state of the latest minute counts, and once it has ended its last one: a process that was
        frozen while it held the experiments may write an older one before it notices.
        """
        experiment, number = split_key((key or b"").decode())
        if number is not None:
            self._restore_chunk(experiment, number, value)
            return
        if value is None:
            for found in (self._kept, self._ended):
                found.pop(experiment, None)
            self._overwritten.pop(state_key(experiment), None)
            return
        state = ExperimentState.model_validate_json(value)
        ended = self._ended.get(experiment)
        if ended is not None and _order_of(state) < _order_of(ended):
            self._overwritten[state_key(experiment)] = ended.model_dump_json().encode()
        elif state.ended is not None:
            self._kept.pop(experiment, None)
            self._ended[experiment] = state
        elif experiment not in self._kept or _order_of(state) >= _order_of(self._kept[experiment]):
            self._kept[experiment] = state

    def find_end(self, key: bytes | None, value: bytes | None) -> bytes | None:
        """Return the last state of an experiment that has ended, where a record has an earlier one; else None."""
        experiment, number = split_key((key or b"").decode(errors="replace"))
        ended = self._ended.get(experiment)
        if ended is None or number is not None or value is None:
            return None
        try:
            state = ExperimentState.model_validate_json(value)
        except ValueError:
            return None
        return ended.model_dump_json().encode() if _order_of(state) < _order_of(ended) else None

    def _restore_chunk(self, experiment: str, number: int, value: bytes | None) -> None:
        chunks = self._chunks.setdefault(experiment, {})
        if value is None:
            chunks.pop(number, None)
            self._overwritten.pop(chunk_key(experiment, number), None)
        elif experiment in self._ended:
            self._overwritten[chunk_key(experiment, number)] = None
        else:
            chunks[number] = EnteredChunk.model_validate_json(value)

    def follow(self, states: Mapping[str, ReleaseState], now: datetime) -> Iterator[Written]:
        """Take over the release states: experiments start, change and end. Yield what is to be written of those that ended."""
        overwritten, self._overwritten = self._overwritten, {}
        yield from overwritten.items()
        for model in self._models:
            candidate = states[model].candidate if model in states else None
            experiment = candidate.experiment if candidate else None
            run = self.running.get(model)
            if run is not None and (experiment is None or experiment.id != run.experiment.id):
                del self.running[model]
                yield from self._end(run, states.get(model), now)
                run = None
            if candidate is None or experiment is None:
                continue
            if run is None:
                versions = states[model].current.version, candidate.version
                run = self.running[model] = self._start(experiment.id) or ExperimentRun(model, versions, experiment)
            if run.experiment != experiment:
                run.update(experiment)
        running = {run.experiment.id for run in self.running.values()}
        for left in [state for id_, state in self._kept.items() if id_ not in running and state.model in self._models]:
            run = self._start(left.experiment.id) or ExperimentRun(
                left.model, (left.current, left.candidate), left.experiment
            )
            yield from self._end(run, states.get(left.model), now)
        yield from self._forget(now)

    def write(self, run: ExperimentRun) -> Iterator[Written]:
        """Yield the records to keep a run, in the order in which they are to be written."""
        experiment, full = run.experiment.id, run.ledger.entered.full_chunks
        for number in range(self._written_chunks.get(experiment, 0), full):
            yield chunk_key(experiment, number), write_chunk(run, number).model_dump_json().encode()
            self._written_chunks[experiment] = number + 1
        yield state_key(experiment), write_state(run).model_dump_json().encode()

    def _start(self, experiment: str) -> ExperimentRun | None:
        """Return the experiment as it was kept; None where nothing usable was: then it is read from its start."""
        state, chunks = self._kept.pop(experiment, None), self._chunks.pop(experiment, {})
        if state is None:
            return None
        try:
            run = read_state(state, chunks)
        except ValueError as error:
            self.problems.append(str(error))
            return None
        self._written_chunks[experiment] = state.chunks
        return run

    def _end(self, run: ExperimentRun, state: ReleaseState | None, now: datetime) -> Iterator[Written]:
        experiment = run.experiment.id
        run.ended = _explain_end(run, state, now)
        written = write_state(run)
        self._ended[experiment] = written
        yield state_key(experiment), written.model_dump_json().encode()
        for number in range(self._written_chunks.pop(experiment, 0)):
            yield chunk_key(experiment, number), None

    def _forget(self, now: datetime) -> Iterator[Written]:
        for experiment, state in list(self._ended.items()):
            if state.ended is not None and state.model in self._models and now - state.ended.at > self._keep:
                del self._ended[experiment]
                yield state_key(experiment), None


def _order_of(state: ExperimentState) -> tuple[bool, int]:
    """Return what orders the states of one experiment that several processes wrote: the later one counts."""
    return state.ended is not None, state.minute


def _explain_end(run: ExperimentRun, state: ReleaseState | None, now: datetime) -> Ended:
    if state is None:
        return Ended(by="removed", at=now)
    step = _find_end(run, state)
    if step is None:
        return Ended(by="released", generation=state.generation, at=now)
    by = step.experiment if step.experiment in ("completed", "stopped") else "released"
    return Ended.model_validate({"by": by, "generation": step.generation, "at": step.at})


def _find_end(run: ExperimentRun, state: ReleaseState) -> Step | None:
    """Return the first step after the experiment's start that ended it."""
    steps = [step for step in state.history if step.at >= run.experiment.started.replace(microsecond=0)]
    starts = [n for n, step in enumerate(steps) if step.experiment == "started" and step.candidate == run.versions[1]]
    after = steps[starts[0] + 1 :] if starts else steps
    return next(
        (step for step in after if step.experiment in ("completed", "stopped") or not step.leaves_version), None
    )


def utc_now() -> datetime:
    return datetime.now(UTC)

"""Turns a running experiment into the records that are kept of it, and back. Pure."""

from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from itertools import chain
from typing import Any, Final

import numpy as np

from ...schemas.experiment_state import STATE_PART, UNIT_BYTES, EnteredChunk, ExperimentState
from .assignment import Side
from .clock_skew import Span
from .distributions import Bins, Distributions
from .entered import CHUNK, EnteredUnits
from .ledger import Tally
from .pass_ratios import PassRatios
from .run import ExperimentRun, Kept
from .sums import RatioSums

_SEPARATOR: Final = "#"
_UNIT: Final = np.dtype(f">u{UNIT_BYTES}")


def state_key(experiment: str) -> str:
    """Return the key of an experiment's state."""
    return f"{experiment}{_SEPARATOR}{STATE_PART}"


def chunk_key(experiment: str, number: int) -> str:
    """Return the key of a full chunk of entered units."""
    return f"{experiment}{_SEPARATOR}{number}"


def split_key(key: str) -> tuple[str, int | None]:
    """Return the experiment of a key, and the number of its chunk, None for a state; ValueError for another key."""
    experiment, _, part = key.rpartition(_SEPARATOR)
    if not experiment or not (part == STATE_PART or (part.isascii() and part.isdigit())):
        raise ValueError(f"expected ID{_SEPARATOR}{STATE_PART} or ID{_SEPARATOR}NUMBER as the key, found {key!r}")
    return experiment, None if part == STATE_PART else int(part)


def write_state(run: ExperimentRun) -> ExperimentState:
    """Return the state of an experiment. It belongs to the chunks of units that have entered so far."""
    tally, ratios, entered = run.ledger.tally, run.pass_ratios, run.ledger.entered
    current, candidate = run.versions
    is_over = run.ended is not None
    fields: dict[str, Any] = {
        "experiment": run.experiment,
        "model": run.model,
        "current": current,
        "candidate": candidate,
        "minute": run.minute,
        "begin_at": run.find_begin(),
        "read_until": run.read_until,
        "skipped_spans": run.find_skipped_spans(),
        "sums": {key: {side: list(astuple(sums)) for side, sums in sides.items()} for key, sides in tally.sums.items()},
        "units": dict(tally.units),
        "expected": tally.expected,
        "variance": tally.variance,
        "moved": tally.moved,
        "skipped": dict(tally.skipped),
        "answers": dict(run.answers),
        "entered_minute": tally.minute,
        "sampled": tally.sampled,
        "open_units": 0 if is_over else run.ledger.open_units,
        "chunks": 0 if is_over else entered.full_chunks,
        "tail": "" if is_over else _encode(entered.tail),
        "pass_ratios": _write_ratios(ratios),
        "scores": {task: _write_bins(bins) for task, bins in run.distributions.scores.items()},
        "latency": _write_bins(run.distributions.latency),
        "decided": run.decided,
        "ended": run.ended,
    }
    return ExperimentState.model_validate(fields)


def write_chunk(run: ExperimentRun, number: int) -> EnteredChunk:
    """Return a full chunk of entered units."""
    return EnteredChunk(experiment=run.experiment.id, number=number, units=_encode(run.ledger.entered.chunk(number)))


def read_tally(state: ExperimentState) -> Tally:
    """Return the running sums of a state."""
    return Tally(
        sums={key: {side: RatioSums(*sums) for side, sums in sides.items()} for key, sides in state.sums.items()},
        units=Counter(state.units),
        expected=state.expected,
        variance=state.variance,
        moved=state.moved,
        skipped=Counter(state.skipped),
        minute=state.entered_minute,
        sampled=state.sampled,
    )


def read_distributions(state: ExperimentState) -> Distributions:
    """Return the distributions of a state."""
    return Distributions(
        {task: _read_bins(bins) for task, bins in state.scores.items()},
        _read_bins(state.latency),
    )


def read_state(state: ExperimentState, chunks: Mapping[int, EnteredChunk]) -> ExperimentRun:
    """Return the experiment as it was when the state was written; ValueError when one of its chunks is missing."""
    missing = [number for number in range(state.chunks) if number not in chunks]
    if missing:
        raise ValueError(f"experiment {state.experiment.id}: chunk {missing[0]} of {state.chunks} is missing")
    units = chain(*(_decode(chunks[number].units) for number in range(state.chunks)), _decode(state.tail))
    entered = EnteredUnits(units)
    if entered.full_chunks != state.chunks:
        raise ValueError(f"experiment {state.experiment.id}: expected {state.chunks} chunks of {CHUNK:,} units")
    kept = Kept(
        minute=state.minute,
        begin_at=dict(state.begin_at),
        read_until=dict(state.read_until),
        skipped_spans=_read_spans(state),
        tally=read_tally(state),
        answers=Counter(state.answers),
        entered=entered,
        pass_ratios=_read_ratios(state),
        decided=list(state.decided),
        distributions=read_distributions(state),
    )
    run = ExperimentRun(state.model, (state.current, state.candidate), state.experiment, kept)
    run.ended = state.ended
    return run


def _read_spans(state: ExperimentState) -> dict[str, list[Span]]:
    """Return the spans of a state; one from before there were spans has the offsets of its skipped records."""
    spans = {log: [Span(offset, offset, -1) for offset in offsets] for log, offsets in state.skipped_offsets.items()}
    for log, found in state.skipped_spans.items():
        spans.setdefault(log, []).extend(Span(*span) for span in found)
    return spans


def _write_bins(bins: Bins) -> dict[str, dict[str, int]]:
    return {side: {str(step): counted[step] for step in sorted(counted)} for side, counted in bins.items()}


def _read_bins(bins: Mapping[Side, Mapping[str, int]]) -> Bins:
    return {side: _counted(counted) for side, counted in bins.items()}


def _write_ratios(ratios: PassRatios) -> dict[str, Any]:
    windows = {str(window): _write_bins(bins) for window, bins in ratios.open.items()}
    return {
        "open": windows,
        "closed": ratios.closed,
        "in_row": ratios.in_row,
        "latest": list(ratios.latest or ()),
    }


def _read_ratios(state: ExperimentState) -> PassRatios:
    kept, ratios = state.pass_ratios, PassRatios()
    ratios.closed, ratios.in_row = kept.closed, kept.in_row
    for window, sides in kept.open.items():
        ratios.open[int(window)] = {
            "candidate": _counted(sides.get("candidate", {})),
            "control": _counted(sides.get("control", {})),
        }
    if len(kept.latest) == 2:
        candidate, control = kept.latest
        ratios.latest = candidate, control
    return ratios


def _counted(bins: Mapping[str, int]) -> Counter[int]:
    return Counter({int(step): number for step, number in bins.items()})


def _encode(units: Sequence[int]) -> str:
    return b64encode(np.array(units, dtype=_UNIT).tobytes()).decode()


def _decode(text: str) -> list[int]:
    """Return units; ValueError for what is not a whole number of them."""
    found: list[int] = np.frombuffer(b64decode(text, validate=True), dtype=_UNIT).tolist()
    return found

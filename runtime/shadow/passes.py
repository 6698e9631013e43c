"""One pass of a shadow, in a thread: tokenises what has no tokens, runs, decodes and compares."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..batching.callers.request_checks import EngineModel
from ..batching.callers.single_callers import encode
from ..batching.device.runs import DeviceTimer, decode_rows
from ..batching.queues.version_queue import VersionTerms
from ..errors import DeviceFailed, ModelFailed
from ..model.device_faults import model_error
from .comparing import Compared, compare
from .rows import Row, fits


@dataclass(frozen=True, slots=True)
class PassResult:
    """What became of the rows of a pass."""

    compared: Sequence[tuple[Row, Compared]] = ()
    left: Sequence[Row] = ()
    """Rows to try again: they did not fit, or are tried alone next, after a failure together."""
    too_long: Sequence[Row] = ()
    failed: Sequence[Row] = ()
    is_failure: bool = False
    """Whether the version failed on a row alone."""
    fault: DeviceFailed | None = None
    """Why the version cannot run any more."""
    slowness: float | None = None
    """Device time of the pass, divided by its calibrated time; None where either is not known."""


def run_pass(model: EngineModel, rows: list[Row], terms: VersionTerms, most_s: float, pass_s: float) -> PassResult:
    """Compare rows in a pass of at most `pass_s` of calibrated device time, or one row of at most `most_s`. Never raises."""
    try:
        return _run(model, rows, terms, most_s, pass_s)
    except BaseException as error:  # noqa: BLE001 - a panic of the tokenizer is not an Exception
        failed = model_error(error, f"the compared version failed: {type(error).__name__}")
    if isinstance(failed, DeviceFailed):
        return PassResult(failed=rows, fault=failed)
    if len(rows) == 1:
        return PassResult(failed=rows, is_failure=True)
    for row in rows:
        row.alone = True
    return PassResult(left=rows)


def _run(model: EngineModel, rows: list[Row], terms: VersionTerms, most_s: float, pass_s: float) -> PassResult:
    _tokenise(model, rows)
    fitting, left, too_long = _select(rows, terms, most_s, pass_s)
    if not fitting:
        return PassResult(left=left, too_long=too_long)
    encoded = [row.encoded for row in fitting]
    timer = DeviceTimer()
    began = timer.begin(model.device)
    logits = model.run(encoded)
    slowness = terms.find_pass_ratio(timer.end(model.device, began), sum(row.tokens for row in fitting))
    outputs: list[dict[str, dict[str, Any]]] = decode_rows(model, logits, encoded, fitting)
    if len(outputs) != len(fitting):
        raise ModelFailed(f"the model gave {len(outputs)} answers for {len(fitting)} texts")
    compared, failed = [], []
    for row, answers in zip(fitting, outputs, strict=True):
        try:
            compared.append((row, compare(row.outputs, answers)))
        except (AttributeError, KeyError, TypeError, ValueError):  # an agent may have changed its prediction in place
            failed.append(row)
    return PassResult(compared, left, too_long, failed, slowness=slowness)


def _tokenise(model: EngineModel, rows: list[Row]) -> None:
    bare = [row for row in rows if row.encoded is None]
    if not bare:
        return
    windows = [row.windows for row in bare]
    found = encode(model, [row.text for row in bare], windows if any(windows) else None)
    for row, encoded in zip(bare, found, strict=True):
        row.encoded, row.tokens = encoded, encoded.tokens


def _select(
    rows: list[Row], terms: VersionTerms, most_s: float, pass_s: float
) -> tuple[list[Row], list[Row], list[Row]]:
    """Return the rows that fit into the pass by their own tokens, those for a later one, and those that fit into none."""
    fitting: list[Row] = []
    left: list[Row] = []
    too_long: list[Row] = []
    tokens = longest = 0
    for row in rows:
        wider = max(longest, row.tokens)
        if terms.seconds(row.tokens) > most_s:
            too_long.append(row)
        elif left or not (not fitting or fits(terms, pass_s, len(fitting) + 1, tokens + row.tokens, wider)):
            left.append(row)
        else:
            fitting.append(row)
            tokens, longest = tokens + row.tokens, wider
    return fitting, left, too_long

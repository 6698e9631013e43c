"""Says when answers are withheld, and on how many rows that was chosen: on the terminal and in the report."""

from ...schemas.manifest import TaskSpec
from ..kinds.calibration import FEW_ROWS
from ..kinds.registry import kind_of


def describe_decisions(spec: TaskSpec) -> str:
    """Return a sentence on calibration and thresholds of a task."""
    decoding = "greedy decoding" if spec.generation is not None else _calibration(spec)
    return "; ".join([decoding, *kind_of(spec).describe_thresholds(spec)]) + "."


def _calibration(spec: TaskSpec) -> str:
    beta, rows = spec.calibration.beta, spec.calibration_rows
    chosen = f"temperature {spec.calibration.temperature:g}"
    if beta is not None:
        chosen = f"beta calibration {beta.low:g} below, {beta.high:g} above, shift {beta.shift:g}"
    if rows is None:
        return chosen
    few = f", few: drawn towards {'the scores as they are' if beta is not None else '1'}" if rows < FEW_ROWS else ""
    return f"{chosen} (chosen on {rows} rows{few})"

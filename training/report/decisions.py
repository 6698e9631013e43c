"""Says when answers are withheld, and on how many rows that was chosen: on the terminal and in the report."""

from ...schemas.manifest import TaskSpec
from ..kinds.calibration import FEW_ROWS
from ..kinds.registry import kind_of


def describe_decisions(spec: TaskSpec) -> str:
    """Return a sentence on temperature and thresholds of a task."""
    decoding = "greedy decoding" if spec.generation is not None else _temperature(spec)
    return "; ".join([decoding, *kind_of(spec).describe_thresholds(spec)]) + "."


def _temperature(spec: TaskSpec) -> str:
    chosen, rows = f"temperature {spec.calibration.temperature:g}", spec.calibration_rows
    if rows is None:
        return chosen
    few = ", few: drawn towards 1" if rows < FEW_ROWS else ""
    return f"{chosen} (chosen on {rows} rows{few})"

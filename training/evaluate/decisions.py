"""Says when answers are withheld, and on how many rows that was chosen: on the terminal and in the report."""

from typing import Final

from ...schemas.manifest import TaskSpec

FEW_ROWS: Final = 50
"""With fewer rows a temperature or a threshold says little about the next text."""


def describe_decisions(spec: TaskSpec) -> str:
    """Return a sentence on temperature and thresholds of a task."""
    limits, parts, chosen = spec.thresholds, [_temperature(spec)], _threshold_rows(spec)
    if spec.out_of_scope is not None:
        limit = "when most likely" if limits.out_of_scope is None else f"from {limits.out_of_scope:.9g}{chosen}"
        parts.append(f"{spec.out_of_scope} {limit}")
    if limits.accept is not None:
        # The rows chose the threshold of the class, where there is one.
        parts.append(f"withheld below {limits.accept:.9g}{'' if spec.out_of_scope else chosen}")
    if spec.kind == "multi_label":
        parts.append(f"named from {limits.label:.9g}{chosen}")
    return "; ".join(parts) + "."


def _temperature(spec: TaskSpec) -> str:
    chosen, rows = f"temperature {spec.calibration.temperature:g}", spec.calibration_rows
    if rows is None:
        return chosen
    few = ", few: drawn towards 1" if rows < FEW_ROWS else ""
    return f"{chosen} (chosen on {rows} validation rows{few})"


def _threshold_rows(spec: TaskSpec) -> str:
    rows = spec.threshold_rows
    if rows is None:
        return ""
    several = spec.kind == "multi_label"
    found = "with labels and {} without" if several else "in scope and {} out of scope"
    # A text without labels says less about a threshold for labels than one that has some.
    few = ", few" if rows.genuine < FEW_ROWS or (not several and rows.others < FEW_ROWS) else ""
    return f" (chosen on {rows.genuine} rows {found.format(rows.others)}{few})"

"""Calibration and thresholds after a retraining: chosen anew where rows stand for traffic, else those of the current version."""

from pathlib import Path

from ...schemas.manifest import TaskSpec, Thresholds
from ..mix.plan import Mix
from ..run_folders.run_folder import RunFolder


def keep_limits(run: Path, mix: Mix) -> None:
    """Put back, in the record of a run, the limits that were chosen on rows which do not stand for traffic.

    Of a task without old data the thresholds stay also where the texts drawn at random decide none.
    """
    folder, kept = RunFolder(run), mix.kept_limits
    record = folder.record()
    specs, data = [], dict(record.data)
    for spec in record.tasks:
        current = mix.manifest.task(spec.name)
        if spec.name in kept:
            spec = with_limits_of(current, spec)  # noqa: PLW2901
            notes = [*data[spec.name].notes, describe_kept(mix, spec.name)]
            data[spec.name] = data[spec.name].model_copy(update={"notes": list(dict.fromkeys(notes))})
        elif spec.name not in mix.old:
            spec = with_missing_thresholds(current, spec)  # noqa: PLW2901
        specs.append(spec)
    folder.save_record(record.model_copy(update={"tasks": specs, "data": data}))


def describe_kept(mix: Mix, task: str) -> str:
    """Return a note on a task that keeps its limits."""
    return f"calibration and thresholds are those of version {mix.manifest.version}: {mix.kept_limits[task]}"


def with_limits_of(current: TaskSpec, spec: TaskSpec) -> TaskSpec:
    """Return the task with calibration and thresholds of the current version."""
    names = ("calibration", "calibration_rows", "thresholds", "threshold_rows")
    return spec.model_copy(update={name: getattr(current, name) for name in names})


def with_missing_thresholds(current: TaskSpec, spec: TaskSpec) -> TaskSpec:
    """Return the task with thresholds of the current version where they were given, or none was chosen now."""
    given = current.threshold_rows is None and current.thresholds != Thresholds()
    if given or spec.threshold_rows is None:
        return spec.model_copy(update={"thresholds": current.thresholds, "threshold_rows": current.threshold_rows})
    chosen = spec.thresholds.model_dump(exclude={"labels"}, exclude_none=True)
    return spec.model_copy(update={"thresholds": current.thresholds.model_copy(update=chosen)})

"""Reads what is typed for an experiment: a share, a unit, a file of rules."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from ...errors import SetupError

if TYPE_CHECKING:
    from ....schemas.experiment import Rules
    from ...settings.settings import Settings

MAX_UNITS: Final = 200_000
"""Maximum number of ids of open units' answers, unless rules say another: about 220 MB in the process that holds the experiment."""


def parse_share(text: str) -> float:
    """Return a share between 0 and 1 that is written as 5% or 0.05. SetupError for anything else."""
    number = text.strip()
    is_percent = number.endswith("%")
    try:
        share = float(number.removesuffix("%")) / (100.0 if is_percent else 1.0)
    except ValueError:
        share = float("nan")
    if not 0.0 < share < 1.0:
        raise SetupError(f"--share: expected more than 0 and less than all, such as 5% or 0.05, found {text!r}")
    return round(share, 12)


def check_rate(rate: float) -> None:
    """SetupError for what is no rate."""
    if not 0.0 < rate < 1.0:
        raise SetupError(
            f"--rate: expected the current version's rate of the first goal, between 0 and 1, found {rate:g}"
        )


def check_units_per_hour(number: float | None) -> None:
    """SetupError for what no units come by."""
    if number is not None and not 0.0 < number < float("inf"):
        raise SetupError(f"--units-per-hour: expected a number above 0, found {number:g}")


def check_unit(text: str) -> str:
    """Return a unit of assignment. SetupError for what is none."""
    from pydantic import TypeAdapter, ValidationError

    from ....schemas.experiment import Unit

    try:
        unit: str = TypeAdapter(Unit).validate_python(text)
    except ValidationError:
        raise SetupError(f"--unit: expected key, conversation, request or metadata.NAME, found {text[:60]!r}") from None
    return unit


def read_rules(path: Path | None) -> "Rules":
    """Return the rules of a YAML file, or the defaults. SetupError with file, line and key.

    `max_units` is `MAX_UNITS` unless the file has it: rules on the wire without it have more, as they always had.
    """
    from ....schemas.experiment import Rules

    if path is None:
        return Rules(max_units=MAX_UNITS)
    from ...settings.yaml_file import YamlFile

    rules = YamlFile(path, Rules, "file of rules", requires="goals", extra="forbid").value
    if problem := _find_useless(rules):
        raise SetupError(f"{path}: {problem}")
    return rules if "max_units" in rules.model_fields_set else rules.model_copy(update={"max_units": MAX_UNITS})


def _find_useless(rules: "Rules") -> str | None:
    """Return what in the rules is valid, as it may be in a release state already, and would never decide anything."""
    for measure in (*rules.goals, *rules.guardrails):
        if measure.measure in ("errors", "ratio") and measure.task is not None:
            return f"{measure.key}: {measure.measure} is of whole requests, leave out `task`"
    if rules.alpha > 0.5:
        return f"alpha: expected at most 0.5, found {rules.alpha:g}: no interval holds so rarely"
    if rules.hold_back < 0.001:
        return f"hold_back: expected at least 0.001, found {rules.hold_back:g}: --now promotes without"
    return None


def note_missing_ratios(settings: "Settings", rules: "Rules") -> None:
    """Print a line where the rules judge by a ratio of the user's own and these settings name no topic of its events."""
    own = [measure.key for measure in (*rules.goals, *rules.guardrails) if measure.measure == "ratio"]
    if own and settings.experiments.ratios is None:
        typer.echo(
            f"experiments.ratios is not set in these settings: where `murmura serve` has the same, no event is read, "
            f"and {own[0]} decides nothing",
            err=True,
        )


def note_missing_reviews(settings: "Settings", rules: "Rules") -> None:
    """Print a line where the rules judge by agreement and these settings ask nobody at random."""
    by_agreement = [measure.key for measure in (*rules.goals, *rules.guardrails) if measure.measure == "agreement"]
    if by_agreement and not settings.reviews.random_share:
        typer.echo(
            f"reviews.random_share is 0 in these settings: where `murmura serve` has the same, nobody is asked at random, "
            f"and {by_agreement[0]} decides nothing",
            err=True,
        )

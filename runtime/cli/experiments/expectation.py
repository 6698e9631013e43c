"""Prints before an experiment what its rules are likely to decide, and after how many units."""

from typing import TYPE_CHECKING, Final

import typer

from ..tables import print_table

if TYPE_CHECKING:
    from ....schemas.experiment import Rules
    from ...experiments.power import Power
    from ...experiments.simulation import Setup
    from .unit_rate import UnitRate

RUNS: Final = 300
LOOKS: Final = 250
IMPROVEMENTS: Final = (-0.05, -0.02, 0.0, 0.02, 0.05)


def print_expectation(rules: "Rules", share: float, rate: float, units: "UnitRate") -> None:
    """Print how often simulated experiments with several true improvements of the first goal end, and when.

    `rate`: the current version's, of the first goal. `units`: how many of them an hour have a value of it.
    """
    from ...release.experiment_events import format_share

    setup = make_setup(rules, share, rate)
    goal = rules.goals[0]
    others = len(rules.goals) - 1
    typer.echo(
        f"of {RUNS} simulated experiments, candidate {format_share(share)}, {goal.key} of the current version {rate:g}, "
        f"up to {setup.units:,} units with a value of {goal.key}"
        f"{f'; the other {others} goals have to be reached too' if others else ''}:"
    )
    found = _simulate(setup)
    print_table(
        ["truly better by", "promoted", "stopped", "half of these by"],
        [_row(power, units.per_hour, rules.attribution_hours) for power in found],
    )
    if units.per_hour is None:
        typer.echo(f"how many hours these are is not known: {units.why}; --units-per-hour says it")
    else:
        typer.echo(
            f"hours are those of {_number(units.per_hour)} units an hour with a value of {goal.key}, {units.why}, "
            "where each hour brings new ones"
        )
    typer.echo(
        f"no promotion before {rules.min_units:,} units on each side and {rules.min_hours:g} hours; a unit counts "
        f"{rules.attribution_hours:g} hours after its first record, and hold back takes {rules.hold_back_hours:g} more"
    )


def make_setup(rules: "Rules", share: float, rate: float) -> "Setup":
    """Return what to simulate for the first goal: a rate of which more is better."""
    from ...experiments.simulation import Setup

    goal = rules.goals[0]
    guardrail = next((measure for measure in rules.guardrails if measure.key == goal.key), None)
    return Setup(
        share=share,
        rate=rate if goal.sign > 0 else 1.0 - rate,
        units=4 * rules.tuning,
        looks=LOOKS,
        alpha=rules.alpha,
        tuning=rules.tuning,
        goals=len(rules.goals),
        guardrails=len(rules.guardrails) if guardrail else 0,
        goal_margin=goal.margin,
        guardrail_margin=guardrail.margin if guardrail else 0.0,
    )


def _simulate(setup: "Setup") -> "list[Power]":
    from rich.console import Console
    from rich.progress import Progress

    from ...experiments.power import estimate_power

    possible = [gain for gain in IMPROVEMENTS if 0.0 < setup.rate + gain < 1.0]
    console = Console(stderr=True)
    found: list[Power] = []
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        for gain in bar.track(possible, description="simulating"):
            found += estimate_power(setup, (gain,), RUNS)
    return found


def _row(power: "Power", per_hour: float | None, attribution_hours: float) -> list[str]:
    median = "-" if power.median_units is None else f"{power.median_units:,.0f} units"
    if power.median_units is not None and per_hour is not None:
        median += f", {_number(power.median_units / per_hour + attribution_hours)} hours"
    return [f"{power.improvement:+.2f}", f"{power.promoted:.0%}", f"{power.stopped:.0%}", median]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100.0 else f"{value:.3g}"

"""`murmura models canary | ab | shadow | promote | stop`: a version beside the current one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...errors import SetupError
from .. import options
from ..releases.commands import Name, Store, open_store
from ..releases.steps import By, now, publish_next, read_releases, who
from .candidates import check_candidate
from .clock_check import ClockCheck, check_clock
from .inputs import (
    check_rate,
    check_unit,
    check_units_per_hour,
    note_missing_ratios,
    note_missing_reviews,
    parse_share,
    read_rules,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ....schemas.release import ReleaseState
    from ...settings.settings import Settings

    Change = Callable[[ReleaseState], ReleaseState]

Version = Annotated[int, typer.Argument(metavar="VERSION", min=1, help="A version in the store.")]
Share = Annotated[str, typer.Option("--share", metavar="SHARE", help="5% or 0.05. A larger one later raises it.")]
Unit = Annotated[
    str | None,
    typer.Option(
        "--unit",
        metavar="UNIT",
        help="What stays on one side: key, conversation, request or metadata.NAME. Default: key.",
    ),
]
Rules = Annotated[
    Path | None, typer.Option("--rules", metavar="FILE", help="Rules in YAML. Default: docs/experiments.md.")
]
Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="Reason in the history.")]
Rate = Annotated[
    float,
    typer.Option("--rate", metavar="RATE", help="The current version's rate of the first goal, for the expectation."),
]
UnitsPerHour = Annotated[
    float | None,
    typer.Option(
        "--units-per-hour",
        metavar="NUMBER",
        help="Units with a value of the first goal, for the expectation. Default: by the results of the latest hour.",
        show_default=False,
    ),
]
Power = Annotated[
    bool, typer.Option("--power/--no-power", help="Simulate what the rules are likely to decide, and when.")
]


def canary(
    name: Name,
    version: Version,
    share: Share = "5%",
    unit: Unit = None,
    rules: Rules = None,
    rate: Rate = 0.9,
    units_per_hour: UnitsPerHour = None,
    power: Power = True,
    clock_check: ClockCheck = True,
    why: Why = "",
    by: By = None,
    store: Store = None,
    config: options.Config = None,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Let a version answer a small share of the units beside the current one, or raise its share.

    The rules promote it when it is better, and stop it when it is worse.

    Example: [bold]murmura models canary desk 4 --share 5% --why "knows the new product" --store /srv/models[/bold]

    Raise the share: [bold]murmura models canary desk 4 --share 20%[/bold]
    """
    settings = options.settings(config, bootstrap=bootstrap)
    _start(
        settings,
        name,
        version,
        share,
        unit,
        rules,
        rate if power else None,
        units_per_hour,
        clock_check,
        why=why,
        by=by,
        store=store,
    )


def ab(
    name: Name,
    version: Version,
    share: Share = "50%",
    unit: Unit = None,
    rules: Rules = None,
    rate: Rate = 0.9,
    units_per_hour: UnitsPerHour = None,
    power: Power = True,
    clock_check: ClockCheck = True,
    why: Why = "",
    by: By = None,
    store: Store = None,
    config: options.Config = None,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Compare a version with the current one on halves of the units. As `canary`, with another default share.

    Example: [bold]murmura models ab desk 4 --share 50% --rules rules.yaml --store /srv/models[/bold]
    """
    settings = options.settings(config, bootstrap=bootstrap)
    _start(
        settings,
        name,
        version,
        share,
        unit,
        rules,
        rate if power else None,
        units_per_hour,
        clock_check,
        why=why,
        by=by,
        store=store,
    )


def shadow(
    name: Name,
    version: Version,
    share: Share = "10%",
    why: Why = "",
    by: By = None,
    store: Store = None,
    config: options.Config = None,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Compare a version on a share of the requests; its answers are not sent.

    Example: [bold]murmura models shadow desk 4 --share 10% --store /srv/models[/bold]
    """
    from ....schemas.release import shadowed

    settings = options.settings(config, bootstrap=bootstrap)
    part, models = parse_share(share), open_store(settings, name, store)

    def change(state: "ReleaseState") -> "ReleaseState":
        _refuse_second(state)
        digest = check_candidate(models, state, version)
        return shadowed(state, version, digest, part, by=who(by), why=why, at=now())

    _publish(settings, name, change)


def promote(
    name: Name,
    at_once: Annotated[
        bool, typer.Option("--now", help="Make it current at once, without holding a share back.")
    ] = False,
    clock_check: ClockCheck = True,
    why: Why = "",
    by: By = None,
    config: options.Config = None,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Give the candidate all but the share that its rules hold back; when that time is over, it becomes current.

    Example: [bold]murmura models promote desk --why "better on the dashboard"[/bold]

    At once: [bold]murmura models promote desk --now[/bold]
    """
    from ....schemas.release import completed, promoted

    step = completed if at_once else promoted
    settings = options.settings(config, bootstrap=bootstrap)
    if clock_check and not at_once:
        check_clock(settings)
    _publish(settings, name, lambda state: step(state, by=who(by), why=why, at=now()))


def stop(
    name: Name,
    why: Why = "",
    by: By = None,
    config: options.Config = None,
    bootstrap: options.Bootstrap = None,
) -> None:
    """End an experiment or a shadow: the current version answers all.

    Example: [bold]murmura models stop desk --why "too many refunds"[/bold]
    """
    from ....schemas.release import stopped

    settings = options.settings(config, bootstrap=bootstrap)
    _publish(settings, name, lambda state: stopped(state, by=who(by), why=why, at=now()))


def _start(
    settings: "Settings",
    name: str,
    version: int,
    share: str,
    unit: str | None,
    rules: Path | None,
    rate: float | None,
    units_per_hour: float | None,
    clock_check: bool,
    *,
    why: str,
    by: str | None,
    store: str | None,
) -> None:
    """Start an experiment, or raise the share of the running one. `rate` None: without an expectation."""
    from pydantic import ValidationError

    from ....schemas.experiment import Experiment
    from ....schemas.release import raised, started
    from .expectation import print_expectation
    from .unit_rate import UnitRate, measure_unit_rate

    part, kept, judged = parse_share(share), check_unit(unit or "key"), read_rules(rules)
    units = UnitRate(units_per_hour, "as given")
    check_units_per_hour(units_per_hour)
    if rate is not None:
        check_rate(rate)
    if clock_check:
        check_clock(settings)
    if rate is not None and units_per_hour is None and _has_no_candidate(settings, name):
        units = measure_unit_rate(settings, name, kept, judged)

    def change(state: "ReleaseState") -> "ReleaseState":
        at = now()
        if _is_running(state, version):
            if unit is not None or rules is not None:
                raise SetupError(
                    f"{name} {version} is in an experiment already: its unit and rules stay, only --share grows"
                )
            try:
                return raised(state, part, by=who(by), why=why, at=at)
            except ValidationError:
                raise
            except ValueError as error:
                raise SetupError(f"{error}; `murmura models stop {name}` ends the experiment") from None
        _refuse_second(state)
        digest = check_candidate(open_store(settings, name, store), state, version)
        note_missing_reviews(settings, judged)
        note_missing_ratios(settings, judged)
        if rate is not None:
            print_expectation(judged, part, rate, units)
        experiment = Experiment(
            id=f"{name}-{version}-{at:%Y%m%dT%H%M%SZ}", unit=kept, share=part, rules=judged, started=at
        )
        return started(state, version, digest, experiment, by=who(by), why=why, at=at)

    _publish(settings, name, change)


def _has_no_candidate(settings: "Settings", name: str) -> bool:
    state = read_releases(settings).get(name)
    return state is not None and state.candidate is None


def _is_running(state: "ReleaseState", version: int) -> bool:
    candidate = state.candidate
    return candidate is not None and candidate.experiment is not None and candidate.version == version


def _refuse_second(state: "ReleaseState") -> None:
    if (candidate := state.candidate) is not None:
        what = "an experiment" if candidate.experiment else "a shadow"
        raise SetupError(
            f"{state.name} has {what} with version {candidate.version}, one at a time: `murmura models stop {state.name}` ends it"
        )


def _publish(settings: "Settings", name: str, change: "Change") -> None:
    """Publish the state that `change` returns for the current one, and print what holds now."""
    from ...release.experiment_events import describe_candidate

    def step(state: "ReleaseState | None") -> "ReleaseState":
        if state is None:
            raise SetupError(
                f"{name} has no release to compare with; `murmura models release {name} VERSION` makes the first"
            )
        return change(state)

    before, new = publish_next(settings, name, step)
    candidate = next((state.candidate for state in (new, before) if state and state.candidate), None)
    if new is not None and candidate is not None:
        typer.echo(f"{describe_candidate(new, candidate, new.history[-1])} (generation {new.generation})")

"""An experiment: two versions of one model side by side, and the rules by which one of them wins."""

from datetime import datetime
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from .manifest import Name
from .result import UtcTime

FEWEST_EVENTS: Final = 20
"""Number of units with, and without, an event on each side before there is an interval."""

ExperimentId = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Share = Annotated[float, Field(gt=0.0, lt=1.0, allow_inf_nan=False)]
Unit = Annotated[str, StringConstraints(pattern=r"^(key|conversation|request|metadata\.[A-Za-z0-9_.-]{1,100})$")]
"""What stays on one side: the record's key, the conversation, the request id, or a field of its metadata."""
Hours = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Margin = Annotated[float, Field(gt=-1.0, lt=1.0, allow_inf_nan=False)]


class _Frozen(BaseModel):
    """A part of the release state: like all of it, it may get fields that an older reader passes over."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Measure(_Frozen):
    """A ratio that is compared between the sides: of answers of one task, or over all."""

    measure: Literal["agreement", "withheld", "out_of_scope", "errors", "ratio"]
    """`agreement`: of reviews drawn at random, those whose person chose the model's answer. `ratio`: one of the user's own."""
    task: Name | None = None
    """None: over all tasks."""
    name: Name | None = None
    """Name of the user's own ratio."""
    better: Literal["higher", "lower"] | None = None
    """Which way is better; only a ratio of the user's own needs it."""
    margin: Margin = 0.0
    """A goal is reached when the whole interval of the improvement is above it; a guardrail is broken when it is below."""

    @model_validator(mode="after")
    def _names_own_ratio(self) -> Self:
        if (self.measure == "ratio") != (self.name is not None):
            raise ValueError("a ratio of your own has a name, other measures have none")
        if self.measure == "ratio" and self.better is None:
            raise ValueError("a ratio of your own says which way is better: `better: higher` or `better: lower`")
        if self.measure != "ratio" and self.better is not None:
            raise ValueError(f"which way is better is known for {self.measure}: leave out `better`")
        return self

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        better = self.better or ("higher" if self.measure == "agreement" else "lower")
        return 1 if better == "higher" else -1

    @property
    def key(self) -> str:
        """Name of the measure among the sums: `agreement`, `withheld/intent`, `ratio/orders`."""
        return "/".join(part for part in (self.measure, self.name, self.task) if part)


class Rules(_Frozen):
    """When the candidate is promoted and when it is stopped."""

    goals: Annotated[list[Measure], Field(min_length=1)] = [Measure(measure="agreement")]
    """All have to be reached."""
    guardrails: list[Measure] = [
        Measure(measure="agreement"),
        Measure(measure="withheld", margin=-0.05),
        Measure(measure="out_of_scope", margin=-0.05),
        Measure(measure="errors"),
    ]
    """One that is broken stops the experiment."""
    alpha: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.05
    """Bound of the share of experiments between equal versions that end by themselves."""
    tuning: Annotated[int, Field(ge=1)] = 5000
    """Number of units at which the intervals are narrowest."""
    min_units: Annotated[int, Field(ge=1)] = 1000
    """Number of units on each side before a promotion."""
    min_hours: Hours = 24.0
    """Hours before a promotion."""
    attribution_hours: Hours = 24.0
    """Hours after a unit's first record in which its events count."""
    hold_back: Share = 0.05
    """Share that the old version keeps after the promotion."""
    hold_back_hours: Hours = 24.0
    """Hours in which it keeps it."""
    max_units: Annotated[int, Field(ge=1)] = 1_000_000
    """Maximum number of open units; above it they are sampled."""

    @model_validator(mode="after")
    def _compares_each_once(self) -> Self:
        for family, measures in (("goals", self.goals), ("guardrails", self.guardrails)):
            keys = [measure.key for measure in measures]
            if repeated := sorted({key for key in keys if keys.count(key) > 1}):
                raise ValueError(f"{family}: {repeated[0]} stands there twice")
        return self


class Raise(_Frozen):
    """A larger share for the candidate, from a time on."""

    at: UtcTime
    share: Share


class Experiment(_Frozen):
    """A running comparison of the current version and a candidate."""

    id: ExperimentId
    unit: Unit = "key"
    share: Share
    """Share of the units that the candidate answers at the start."""
    rules: Rules = Rules()
    started: UtcTime
    raises: list[Raise] = []
    """Oldest first. Shares only grow, so that units move in one direction."""
    promoted: UtcTime | None = None
    """Since when the candidate has all but the rules' `hold_back`."""

    @model_validator(mode="after")
    def _only_grows(self) -> Self:
        share, at = self.share, self.started
        for step in self.raises:
            if step.share <= share or step.at < at:
                raise ValueError(
                    f"a share only grows, one raise after the other: {step.share:g} at {step.at:%Y-%m-%d %H:%M:%SZ} "
                    f"comes after {share:g} at {at:%Y-%m-%d %H:%M:%SZ}"
                )
            share, at = step.share, step.at
        return self

    @property
    def share_now(self) -> float:
        """Share of the units that the candidate answers now."""
        return self.raises[-1].share if self.raises else self.share

    @property
    def changed(self) -> datetime:
        """The time of the latest raise, or of the start."""
        return self.raises[-1].at if self.raises else self.started

    def raised(self, share: float, at: datetime) -> "Experiment":
        """Return the experiment with a larger share; ValueError for one that is not, or not below 1.

        A clock behind that of the last raise counts as that one.
        """
        if not self.share_now < share < 1.0:
            raise ValueError(
                f"a share only grows: expected more than {self.share_now:g} and less than 1, found {share:g}"
            )
        step = Raise(at=max(at, self.changed), share=share)
        return Experiment.model_validate({**dict(self), "raises": [*self.raises, step]})

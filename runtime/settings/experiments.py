"""Settings of the experiments that this app holds."""

from typing import Annotated

from pydantic import Field

from .kafka import KafkaName, Section


class ExperimentSettings(Section):
    """Who acts on an experiment's decision, and what is read for it."""

    act: bool = True
    """Whether a decision is released: a candidate promoted, completed or stopped. Without, it is only kept and shown."""
    ratios: KafkaName | None = None
    """Topic of the events of your own ratios; None: there are none."""
    keep_days: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    """How long an experiment that has ended stays in its topic."""


def name_holder_group(group: str) -> str:
    """Return the group of an app whose member that has the topic of experiments holds them; `group` is the app's."""
    return f"{group}.experiments"

"""Assigns records to the sides of a running experiment by their units. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ...schemas.experiment import Unit
from .assignment import Side, choose_side, hash_unit, place_unit
from .observations import find_unit


@dataclass(frozen=True, slots=True)
class Assignment:
    """What decides on the side of a record while an experiment runs."""

    experiment: str
    unit: Unit
    share: float
    """Share of the units that the candidate answers now."""

    def choose_side(self, key: bytes | None, request_id: str, metadata: Mapping[str, str]) -> Side:
        """Return the side of a record; the control's for one without a unit."""
        unit = find_unit(self.unit, key, request_id, metadata)
        return "control" if unit is None else choose_side(place_unit(self.experiment, unit), self.share)

    def place_field(self, metadata: Mapping[str, str]) -> int | None:
        """Return the place of the unit that a field of the metadata names; None where it is missing, or something else is the unit."""
        if not self.unit.startswith("metadata."):
            return None
        unit = find_unit(self.unit, None, "", metadata)
        return None if unit is None else hash_unit(self.experiment, unit)


class RunningExperiment(NamedTuple):
    """An experiment of a release state."""

    assignment: Assignment
    is_loaded: bool
    """Whether its candidate answers in this process."""

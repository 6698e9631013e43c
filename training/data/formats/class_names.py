"""Names for the numbers that stand for labels in hub data sets: each column's description carries them (`ClassLabel`)."""

from collections.abc import Mapping
from typing import Any, Final

from ....runtime.errors import SetupError
from ..row import UnnamedNumber

UNKNOWN: Final = -1
Feature = Any
"""The description of a column: a JSON object with `_type`, or of nested columns an object or a list of these."""


def has_names(feature: Feature) -> bool:
    """Return whether a column holds numbers that have names, at any depth."""
    if isinstance(feature, Mapping):
        return feature.get("_type") == "ClassLabel" or any(has_names(inner) for inner in feature.values())
    return isinstance(feature, list) and any(has_names(inner) for inner in feature)


def name_numbers(place: str, value: Any, feature: Feature) -> Any:
    """Return a value with each such number replaced by its name; -1 stays, so that a recipe can leave such rows out.

    SetupError for another number without a name.
    """
    if value is None or not has_names(feature):
        return value
    if isinstance(feature, list):  # an older way to write a sequence
        return name_numbers(place, value, {"_type": "List", "feature": feature[0]})
    if feature.get("_type") == "ClassLabel":
        return _name(place, value, feature.get("names") or [])
    if isinstance(value, dict):
        inner = feature["feature"] if "_type" in feature else feature
        # A sequence of objects may be kept as an object of lists.
        fields = {key: [inner[key]] if "_type" in feature else inner[key] for key in value if key in inner}
        return {key: name_numbers(place, item, fields.get(key)) for key, item in value.items()}
    if isinstance(value, list) and "_type" in feature:
        return [name_numbers(place, item, feature["feature"]) for item in value]
    return value


def _name(place: str, value: Any, names: list[str]) -> str | UnnamedNumber:
    if isinstance(value, str):
        return value
    if value == UNKNOWN:
        return UnnamedNumber(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < len(names):
        raise SetupError(f"{place}: label {value!r} has no name; the data set names 0 to {len(names) - 1}")
    return names[value]

"""Where the fields of a request lie in the values of a topic that was there before Murmura. Pure.

A path is a subset of JSONPath (RFC 9535) that names one place: `$`, then any number of `.name`, `['any name']` and `[0]`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Step = str | int

_STEP: Final = re.compile(r"\.([A-Za-z_][\w-]*)|\['([^']+)'\]|\[\"([^\"]+)\"\]|\[(\d{1,6})\]")
_MISSING: Final = object()


@dataclass(frozen=True, slots=True)
class FieldPath:
    """One place in a JSON value."""

    text: str
    """As it was written."""
    steps: tuple[Step, ...]

    @classmethod
    def parse(cls, text: str) -> "FieldPath":
        """Return the path; ValueError that says what was expected."""
        steps: list[Step] = []
        at = 1
        while text.startswith("$") and at < len(text):
            found = _STEP.match(text, at)
            if found is None:
                break
            name, single, double, index = found.groups()
            steps.append(int(index) if index is not None else name or single or double)
            at = found.end()
        if not text.startswith("$") or at != len(text) or not steps:
            raise ValueError(f"expected a path such as $.payload.body, $.items[0].text or $['a name'], found {text!r}")
        return cls(text, tuple(steps))

    def find(self, value: Any) -> Any:
        """Return what lies there; None where nothing does."""
        for step in self.steps:
            if isinstance(step, str):
                value = value.get(step, _MISSING) if isinstance(value, dict) else _MISSING
            else:
                value = value[step] if isinstance(value, list) and step < len(value) else _MISSING
            if value is _MISSING:
                return None
        return value


@dataclass(frozen=True, slots=True)
class FieldPaths:
    """The fields of the requests of one topic, by name; what is left out lies at the top, as in our own requests."""

    paths: Mapping[str, FieldPath] = field(default_factory=dict)

    def pick(self, value: Any) -> dict[str, Any]:
        """Return the fields that are there, as a request's; an id that is a whole number becomes text."""
        picked = {} if not isinstance(value, dict) else {name: value[name] for name in FIELDS if name in value}
        for name, path in self.paths.items():
            found = path.find(value)
            if name == "id" and type(found) is int:
                found = str(found)
            picked[name] = found
        return {name: found for name, found in picked.items() if found is not None}

    def place(self, name: str) -> str:
        """Return how to name a field's place in a message."""
        path = self.paths.get(name)
        return f"`{name}`" if path is None else f"`{name}` at `{path.text}`"


FIELDS: Final = ("text", "tasks", "id", "metadata", "text_pair")
"""Of a request's value."""

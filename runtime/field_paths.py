"""Paths of a request's fields in values of topics with another format. Pure.

A path is a subset of JSONPath (RFC 9535) for one value: `$`, then any number of `.name`, `['any name']` and `[0]`.
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
    """The path of one value in a JSON document."""

    text: str
    """The path as written."""
    steps: tuple[Step, ...]

    @classmethod
    def parse(cls, text: str) -> "FieldPath":
        """Return the path. Raises ValueError with the expected form."""
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
            # The text is not quoted: it may be anything that was put in the wrong place.
            expected = "expected a path such as $.payload.body, $.items[0].text or $['a name']"
            raise ValueError(f"{expected}, found a text of {len(text)} characters")
        return cls(text, tuple(steps))

    def find(self, value: Any) -> Any:
        """Return the value at the path; None if it does not exist."""
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
    """Paths of the request fields of one topic, by name; fields without a path are at the top level."""

    paths: Mapping[str, FieldPath] = field(default_factory=dict)

    def pick(self, value: Any) -> dict[str, Any]:
        """Return the existing fields in the form of a request; an integer id becomes text."""
        picked = {} if not isinstance(value, dict) else {name: value[name] for name in FIELDS if name in value}
        for name, path in self.paths.items():
            found = path.find(value)
            if name == "id" and type(found) is int:
                found = str(found)
            picked[name] = found
        return {name: found for name, found in picked.items() if found is not None}

    def place(self, name: str) -> str:
        """Return a field's name and path for a message."""
        path = self.paths.get(name)
        return f"`{name}`" if path is None else f"`{name}` at `{path.text}`"


FIELDS: Final = ("text", "tasks", "id", "metadata", "text_pair")
"""Fields of a request's value."""

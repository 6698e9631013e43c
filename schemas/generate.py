"""Writes the JSON Schemas of all records and of the model manifest.

    python -m murmura.schemas.generate            writes NAME.v1.json next to this file
    python -m murmura.schemas.generate --check    only reports outdated schemas

A change that breaks old records is refused: such a type needs a new name or version, and the old one stays. Run by hand; the
only module of this package that accesses files.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from .compatibility import incompatibilities
from .deadletter import DeadLetter
from .dialogue import ConversationState, HandOver, Reply, Turn
from .experiment_state import EnteredChunk, ExperimentState
from .feedback import Feedback
from .manifest import ModelManifest
from .release import ReleaseState
from .request import Request
from .result import Result
from .review import Review
from .serving_event import ServingEvent
from .shadow import ShadowCounts, ShadowDifference
from .training_event import TrainingEvent

HERE: Final = Path(__file__).parent
MODELS: Final[Mapping[str, type[BaseModel]]] = {
    "request.v1": Request,
    "result.v1": Result,
    "deadletter.v1": DeadLetter,
    "manifest.v1": ModelManifest,
    "release.v1": ReleaseState,
    "serving_event.v1": ServingEvent,
    "training_event.v1": TrainingEvent,
    "feedback.v1": Feedback,
    "review.v1": Review,
    "shadow_difference.v1": ShadowDifference,
    "shadow_counts.v1": ShadowCounts,
    "turn.v1": Turn,
    "reply.v1": Reply,
    "conversation_state.v1": ConversationState,
    "hand_over.v1": HandOver,
    "experiment_state.v1": ExperimentState,
    "entered_chunk.v1": EnteredChunk,
}


def schema_of(name: str) -> dict[str, Any]:
    """Return one type's schema for readers: a field with a default may be missing."""
    schema = MODELS[name].model_json_schema(by_alias=True, mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"urn:murmura:{name}", **schema}


def as_text(schema: Mapping[str, Any]) -> str:
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def outdated(folder: Path) -> list[str]:
    """Return the names of the outdated committed schemas."""

    def differs(name: str) -> bool:
        path = folder / f"{name}.json"
        return not path.is_file() or path.read_text(encoding="utf-8") != as_text(schema_of(name))

    return [name for name in MODELS if differs(name)]


def broken_promises(folder: Path) -> Iterator[str]:
    """Yield what the models would refuse or drop of the records that the schemas in `folder` allow."""
    for name in MODELS:
        path = folder / f"{name}.json"
        if path.is_file():
            old = json.loads(path.read_text(encoding="utf-8"))
            yield from (f"{name} {problem}" for problem in incompatibilities(old, schema_of(name)))


def write(folder: Path) -> list[str]:
    """Write the outdated schemas and return their names. Raises ValueError for a change that breaks old records."""
    if problems := list(broken_promises(folder)):
        raise ValueError("old records would not be readable:\n  " + "\n  ".join(problems))
    names = outdated(folder)
    for name in names:
        (folder / f"{name}.json").write_text(as_text(schema_of(name)), encoding="utf-8")
    return names


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m murmura.schemas.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when one is not up to date")
    parser.add_argument("--folder", type=Path, default=HERE, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.check:
        names = outdated(given.folder)
        print(f"not up to date: {', '.join(names)}" if names else "all up to date")
        return 1 if names else 0
    try:
        written = write(given.folder)
    except ValueError as refused:
        print(refused)
        return 1
    print(f"wrote {', '.join(written)}" if written else "all up to date")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

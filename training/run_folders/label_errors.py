"""Labels of training rows that are probably wrong, as a run keeps them: `label_errors.json` in its folder.

A row is named by its file and line, and by an id of its text; the text itself is there only where the recipe allows texts.
"""

from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, RootModel, ValidationError

from .os_errors import write_text

LABEL_ERRORS: Final = "label_errors.json"


class LabelError(BaseModel):
    """A row whose label is doubted. `where` names the word, for tagging; `score` is that of the given label."""

    model_config = ConfigDict(frozen=True)

    place: str
    id: str
    """The near id of the text, in hexadecimal digits."""
    text: str = ""
    """Empty where the run keeps no texts."""
    given: str
    answered: str
    score: float
    answered_score: float | None = None
    """Of the label that was answered, where a text has one."""
    where: str = ""


class LabelErrors(BaseModel):
    """What was found in the rows of a task. `errors` are the likeliest of `found`; `reason` why none were looked for.

    `rows` are those that were judged. `unjudged` are labels whose rows have too few different texts to be judged by others.
    """

    model_config = ConfigDict(frozen=True)

    rows: int = 0
    found: int = 0
    errors: list[LabelError] = []
    unjudged: list[str] = []
    reason: str = ""


class _Tasks(RootModel[dict[str, LabelErrors]]):
    pass


def write_label_errors(run: Path, found: dict[str, LabelErrors]) -> None:
    """Write what was found, by task."""
    write_text(run / LABEL_ERRORS, _Tasks(found).model_dump_json(indent=2) + "\n")


def read_label_errors(run: Path) -> dict[str, LabelErrors]:
    """Return what was found, by task; nothing where there is no such file of this version."""
    try:
        return _Tasks.model_validate_json((run / LABEL_ERRORS).read_bytes()).root
    except (OSError, ValidationError):
        return {}

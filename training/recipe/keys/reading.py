"""What a recipe says of its data files: which rows are read, and how they become examples."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from ....runtime.model.texts.words import trim_blanks

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]
"""A text that is there: an empty one stands for nothing, and is refused rather than taken for none."""
Label = Annotated[str, BeforeValidator(lambda v: trim_blanks(v) if isinstance(v, str) else v), Field(min_length=1)]
"""White space and invisible characters around a label are no part of it, in recipes as in data and in feedback."""

PAST: Final = "past"
"""Validation context: the recipe is that of a finished training. Keys without effect are left out."""
HUB: Final = "hub:"
"""Begins a path that is no file: a data set of the hub."""


class Frozen(BaseModel):
    """Refuses unknown keys and cannot be changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _as_text(value: Any) -> Any:
    """Turn a column's number into its name."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _as_listing(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else ()
    return {key: [item] if isinstance(item, str | int | float) else item for key, item in items} or value


Listing = Annotated[dict[str, list[Any]], BeforeValidator(_as_listing)]


class Columns(Frozen):
    """Which field of a row holds what."""

    text: str = "text"
    text_pair: str = "text_pair"
    """The second text, for kinds that read two."""
    label: str = "label"
    """A string, or a list of strings (multi-label; classification with exactly one label)."""
    tokens: Annotated[str, BeforeValidator(_as_text)] = "tokens"
    """In CoNLL the number of the column, from 1; the first without it."""
    tags: Annotated[str, BeforeValidator(_as_text)] = "tags"
    """In CoNLL the number of the column, from 1; the last without it."""
    spans: str = "spans"
    start: str = "start"
    end: str = "end"
    span_label: str = "label"
    """The key of the label inside a span."""


class Reading(Frozen):
    """How rows become examples. What a source leaves out it takes from its task."""

    columns: Columns | None = None
    format: Text | None = None
    """The name of the file's format; without it the suffix decides."""
    split: Text | None = None
    """Data sets: which split is read; without it the only one."""
    config: Text | None = None
    """Data sets: which configuration (subset), where there are several."""
    revision: Text | None = None
    """Data sets of the hub: a commit, a tag or a branch; without it the newest."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1, pattern=r'[^"\r\n]')] | None = None
    """CSV and TSV: the character between two cells; without it a comma, in a TSV a tab."""
    quoting: Literal["minimal", "none"] | None = None
    """CSV and TSV. `none`: quotation marks belong to the texts. `minimal`: they enclose cells, also of several lines.
    Without it they enclose cells, and one that encloses a whole row is refused."""
    label_separator: Text | None = None
    """Stands between the labels of one text: `cards,travel`."""
    merge: Annotated[dict[Label, list[Label]], BeforeValidator(_as_listing)] | None = None
    """New label: the old ones that become it (many to one)."""
    rest: Literal["keep", "drop", "error"] | None = None
    """What happens to labels that `merge` does not name; `error` unless set."""
    one_of: list[Label] | None = None
    """Keep rows with exactly one label of this list (an empty list: of all labels)."""
    where: Listing | None = None
    """Keep rows whose field has one of these values."""
    unless: Listing | None = None
    """Drop rows whose field has one of these values."""

    @field_validator("merge")
    @classmethod
    def _merge_once(cls, merge: dict[str, list[str]] | None) -> dict[str, list[str]] | None:
        new: dict[str, str] = {}
        for name, old in ((name, old) for name, olds in (merge or {}).items() for old in olds):
            if new.setdefault(old, name) != name:
                raise ValueError(f"label {old!r} becomes both {new[old]!r} and {name!r}; expected one of them")
        return merge


def beside_the_recipe(path: str, info: ValidationInfo) -> str:
    """Return a path; one that begins with `./` lies in the folder of the recipe that is read."""
    beside = (info.context or {}).get("beside")
    return str(beside.resolve() / path) if beside is not None and path.startswith("./") else path


class Source(Reading):
    """One file of one part of a task."""

    path: str
    """Relative to --data; with a leading `./` beside the recipe. `hub:OWNER/NAME`: a data set of the hub."""
    label: Label | None = None
    """Every row has this label; then no label column is read (negatives of your own, say)."""
    rows: Count | None = None
    """At most so many rows, drawn by the seed of the data."""
    repeat: Count = 1
    """Training only: how often each row is seen in an epoch."""
    typo_copies: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Training only, sentence tasks: so many copies with a slip of the keyboard for each row."""
    soft: Literal["all", "own"] | None = None
    """Training only: the target is what the model answered when it began, not the row's label. `own`: only how it chose
    between the labels that it had; `all`: labels that are new get nothing."""

    @field_validator("path")
    @classmethod
    def _beside_the_recipe(cls, path: str, info: ValidationInfo) -> str:
        return beside_the_recipe(path, info)


def _as_sources(value: Any) -> Any:
    items = value if isinstance(value, list) else [value]
    return [{"path": item} if isinstance(item, str) else item for item in items]


Sources = Annotated[list[Source], BeforeValidator(_as_sources), Field(min_length=1)]

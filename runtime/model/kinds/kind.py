"""What serving asks of a kind of task. A kind derives from `Kind` and is registered as an entry point of `murmura.kinds`."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final, Protocol

import numpy as np
import numpy.typing as npt

from ....schemas.manifest import EncoderSpec, HeadForm, TaskSpec
from ..decoding import Decoder, Floats, Output, softmax
from .forms import HEADS_OF_TEXTS, KEYS_OF_HEADS, TEXT_KEYS, AnswerForm, Reads

Array = npt.NDArray[Any]
Answer = Mapping[str, Any]

WITHHELD: Final = "(withheld)"
NONE: Final = "(none)"
EPSILON: Final = 1e-12
"""Of the normalisation in heads; it is BERT's."""


def read_label(value: Any) -> str:
    """Return a label. ValueError for anything but a string."""
    if not isinstance(value, str):
        raise ValueError(f"{type(value).__name__} is no label")
    return value


class Graph(Protocol):
    """The graph that a head is built into; see `graph.parameters.Parameters`. Variables are those of spox."""

    def weight(self, name: str, /) -> npt.NDArray[np.float32]: ...

    def add(self, name: str, value: npt.NDArray[np.float32], /) -> Any: ...

    def linear(self, x: Any, name: str, /) -> Any: ...

    def gelu(self, x: Any, /) -> Any: ...

    def norm(self, x: Any, name: str, epsilon: float, /) -> Any: ...

    def by_distance(self, x: Any, logits: Any, name: str, outside: int, /) -> Any: ...


class Kind(ABC):
    """A kind of task. Without state: one instance serves all tasks, from any thread.

    The defaults are those of a linear head whose logits are one per label, of which the highest wins.
    """

    name: ClassVar[str]
    """The `kind` in manifests, recipes and outputs."""
    training: ClassVar[str] = ""
    """What trains it, as an entry point names it: `package.module:Class`. It is imported to train only, so that serving needs
    no torch. Empty for a kind that is served only."""
    reads: ClassVar[Reads] = Reads.TEXT
    form: ClassVar[AnswerForm] = AnswerForm.OTHER
    generates: ClassVar[bool] = False
    """Whether a decoder answers, from the states of all tokens; then the graph has no logits of the task."""
    out_of_scope: ClassVar[bool] = False
    """Whether a task may have a label for texts that belong to none of the others."""
    correction: ClassVar[str]
    """What a person's correction is, for messages: `a label`."""

    @property
    def recipe_keys(self) -> frozenset[str]:
        """Of the keys of a recipe that only some kinds use, `KEYS_OF_SOME_KINDS`, those that this one does."""
        by_token = self.reads is Reads.TOKENS
        heads = (KEYS_OF_HEADS if by_token else HEADS_OF_TEXTS) if self.has_standard_head else frozenset()
        return heads if by_token else heads | TEXT_KEYS

    @property
    def has_standard_head(self) -> bool:
        """Whether the head is that of this class, whose form a task may choose (`TaskSpec.head`)."""
        return type(self).build_head is Kind.build_head and type(self).head_shapes is Kind.head_shapes

    # The manifest.

    def check(self, task: TaskSpec) -> None:
        """Raise ValueError for a task that this kind cannot answer. Its labels are known to be different."""
        if not task.labels:
            raise ValueError(f"task {task.name} has no labels")
        if task.out_of_scope is not None and not self.out_of_scope:
            raise ValueError(f"task {task.name}: a task of kind {self.name} has no out_of_scope label")
        if task.head is not None and not self.has_standard_head:
            raise ValueError(
                f"task {task.name}: a task of kind {self.name} has a head of its own form; leave `head` out"
            )
        if task.head is not None and task.head.distance:
            if self.reads is Reads.TOKENS or not self.out_of_scope or task.out_of_scope is None:
                raise ValueError(f"task {task.name}: a head by distance needs an out_of_scope label of texts")
            if task.head != HeadForm(distance=True):
                raise ValueError(
                    f"task {task.name}: a head by distance has no layers, pooling or hidden layer of its own"
                )
        if task.head is not None and task.head.pooling == "mask" and task.head.layers != "last":
            raise ValueError(f"task {task.name}: a head that reads the mask reads the last layer alone")
        if task.head is not None and task.head.pooling != "mean" and self.reads is Reads.TOKENS:
            raise ValueError(f"task {task.name}: a task of kind {self.name} reads each token and pools none")

    def known_labels(self, task: TaskSpec) -> frozenset[str]:
        """Return the labels that answers, rules and corrections may name."""
        return frozenset(task.labels)

    def check_new_labels(self, labels: Sequence[str]) -> None:
        """Raise ValueError for labels that a head to be trained cannot have. They are known to be different."""
        if not labels:
            raise ValueError("expected a label or more")

    # The head.

    def width(self, task: TaskSpec) -> int:
        """Return C, the number of logits."""
        return len(task.labels)

    def head_shapes(self, task: TaskSpec, encoder: EncoderSpec) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the head's weights; in a checkpoint the weight NAME of a task is `heads.TASK.NAME`."""
        form = task.head
        shapes: dict[str, tuple[int, ...]] = {}
        read = encoder.hidden_size
        if form is not None and form.distance:
            shapes |= {"centres": (self.width(task), read), "limits": (2,)}
        elif form is not None:
            parts = 1 if form.layers == "last" else encoder.layers + 1
            part = read * (2 if form.pooling == "mean_max" else 1)
            read = part * (parts if form.layers == "concat" else 1)
            shapes |= {"norm.mean": (parts, part), "norm.deviation": (parts, part)}
            if form.layers == "mix":
                shapes |= {"mix.weight": (parts,), "mix.scale": (1,)}
            if form.hidden is not None:
                shapes |= {"hidden.weight": (form.hidden, read), "hidden.bias": (form.hidden,)}
                if form.layer_norm:
                    shapes |= {"hidden_norm.weight": (form.hidden,), "hidden_norm.bias": (form.hidden,)}
                read = form.hidden
        return shapes | {"weight": (self.width(task), read), "bias": (self.width(task),)}

    def build_head(self, graph: Graph, states: Any, task: TaskSpec) -> Any:
        """Return logits [N, C] for states [N, H]: of texts, pairs of texts or tokens, as `reads` says.

        Where the task has a form, the states are pooled, standardised and mixed or put side by side as it says.
        """
        if task.head is not None and task.head.hidden is not None:
            states = graph.gelu(graph.linear(states, f"heads.{task.name}.hidden"))
            if task.head.layer_norm:
                states = graph.norm(states, f"heads.{task.name}.hidden_norm", EPSILON)
        logits = graph.linear(states, f"heads.{task.name}")
        if task.head is None or not task.head.distance or task.out_of_scope is None:
            return logits
        return graph.by_distance(states, logits, f"heads.{task.name}", task.labels.index(task.out_of_scope))

    # Logits.

    @abstractmethod
    def make_decoder(self, task: TaskSpec) -> Decoder:
        """Return what decodes a batch of logits. Called once per task and model."""

    def to_scores(self, logits: Floats) -> Floats:
        """Return scores between 0 and 1 for logits [..., C], without calibration, to compare two computations by."""
        return softmax(logits)

    def to_decisions(self, logits: Floats) -> Array:
        """Return what two computations of the same logits must agree on."""
        return np.asarray(logits.argmax(-1))

    def find_fault(self, rows: Sequence[Array]) -> str | None:
        """Return what makes a model unfit to serve, by its logits for the whole reference sample; None where nothing does."""
        return None

    def split_rows(self, values: Array, starts: npt.NDArray[np.int64]) -> Sequence[Array]:
        """Return the logits of each text; tokens of text b are `values[starts[b] : starts[b + 1]]`."""
        return np.split(values, starts[1:-1]) if self.reads is Reads.TOKENS else list(values)

    def select_rows(
        self, values: Array, starts: npt.NDArray[np.int64], rows: Sequence[int]
    ) -> tuple[Array, npt.NDArray[np.int64]]:
        """Return the logits of some texts, and their starts."""
        if self.reads is not Reads.TOKENS:
            return values[rows], starts
        chosen = np.concatenate([values[starts[row] : starts[row + 1]] for row in rows])
        return chosen, np.concatenate([[0], np.cumsum(np.diff(starts)[rows])])

    # Answers. They may come from other programs: raise KeyError, TypeError or ValueError for one of another shape.

    @abstractmethod
    def format_line(self, output: Answer) -> str:
        """Return an answer for people, on one line."""

    @abstractmethod
    def list_answers(self, output: Answer) -> Iterable[tuple[str | None, float]]:
        """Return label and score of each answer, for routing; a withheld one has no label."""

    @abstractmethod
    def name_answer(self, output: Answer) -> str:
        """Return an answer without scores and without parts of the text, to compare and count answers by."""

    @abstractmethod
    def accepts_correction(self, value: Any) -> bool:
        """Return whether a feedback's value has the form of a correction, whatever labels it names."""

    # Feedback as training rows. A target is what `json.dumps` writes and reads back. Raise KeyError, TypeError or ValueError
    # for a value or an answer of another shape.

    @abstractmethod
    def target_of_correction(self, value: Any) -> Any:
        """Return what a correction says is right; its labels are stripped of white space."""

    @abstractmethod
    def target_of_answer(self, output: Answer) -> Any | None:
        """Return what an answer says, for when it is confirmed; None for one that says nothing."""

    @abstractmethod
    def labels_of_target(self, target: Any) -> set[str]:
        """Return the labels that a target names."""

    def fit_to_text(self, target: Any, text: str) -> Any | None:
        """Return the target as it is scored and served for the text; None for one that does not lie in it."""
        return target

    def fields_of_target(self, target: Any) -> dict[str, Any]:
        """Return the fields of a training row that hold a target."""
        return {"label": target}

    # Tests.

    @abstractmethod
    def fake_output(self, task: TaskSpec) -> Output:
        """Return an answer that a scripted model gives where the script has none."""

    def shape_fake_logits(self, logits: npt.NDArray[np.float32], task: TaskSpec) -> npt.NDArray[np.float32]:
        """Return random logits [N, C] changed so that they look like those of a trained model."""
        return logits

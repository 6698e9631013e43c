"""The model's outputs for one text, as passed to agents."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ..model.vectors import Embedded

Output = dict[str, Any]
"""The output of one task as a plain dict, in the form of `schemas.result`."""


class Prediction(Mapping[str, Output]):
    """The model's outputs for one text by task, the model's name and version, and whether the text was truncated.

    `vector` is that of the text, where it was asked for. `variant`: as what the model answered, for who asked an engine. `pass_ratio`: how slow the pass was, where results name it.
    `candidate_failed`: whether a candidate failed on the text before.
    """

    __slots__ = ("candidate_failed", "model", "outputs", "pass_ratio", "truncated", "variant", "vector")

    def __init__(
        self,
        outputs: dict[str, Output],
        truncated: bool,
        model: tuple[str, int],
        vector: "Embedded | None" = None,
        variant: Literal["current", "candidate"] = "current",
    ) -> None:
        self.outputs = outputs
        self.truncated = truncated
        self.model = model
        self.vector = vector
        self.variant: Literal["current", "candidate"] = variant
        self.pass_ratio: float | None = None
        self.candidate_failed = False

    def __getitem__(self, task: str) -> Output:
        return self.outputs[task]

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)

    def __repr__(self) -> str:
        return f"Prediction({self.outputs!r}, truncated={self.truncated}, model={self.model})"

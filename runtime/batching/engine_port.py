"""The engine's interface for the dispatcher."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from ...schemas.acts import Act, Utterance
from ..agent.handler import Predicts
from ..agent.prediction import Prediction
from ..agent.result_envelope import Variant
from ..model.generated import Generated
from ..model.inputs import Input
from ..model.texts.long_texts import Windows
from ..model.vectors import Embedded
from .queues.entry import Entry


class EngineLike(Protocol):
    """The engine as used by the dispatcher (`runtime.testing` has a fake)."""

    @property
    def token_budget(self) -> int: ...
    @property
    def lookahead(self) -> tuple[int, int]: ...
    @property
    def room(self) -> tuple[int, int]: ...
    @property
    def model(self) -> Any: ...
    async def predict(
        self,
        text: str,
        tasks: Iterable[str] | None = None,
        *,
        thresholds: Mapping[str, Any] | None = None,
        text_pair: str | None = None,
        with_vector: bool = False,
    ) -> Prediction: ...
    async def embed(self, text: str) -> Embedded: ...
    def on_side(self, variant: Variant) -> "Predicts": ...
    def untimed(self) -> AbstractContextManager[None]: ...
    async def generate(
        self,
        turns: Sequence[Utterance],
        acts: Sequence[Act],
        task: str,
        *,
        slots: Collection[str] | None = None,
        is_forbidden: Callable[[str], bool] | None = None,
        deadline: float | None = None,
    ) -> Generated: ...
    async def encode(
        self, texts: Sequence[Input], model: Any = None, windows: Sequence[Windows | None] | None = None
    ) -> Sequence[Any]: ...
    def submit(self, entries: Iterable[Entry]) -> None: ...
    def close_waiting(self) -> None: ...
    def on_room(self, callback: Callable[[], None]) -> None: ...

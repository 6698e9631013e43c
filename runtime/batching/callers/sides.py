"""The engine as the candidate's side of an experiment sees it."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any, Protocol

from ....schemas.acts import Act, Utterance
from ...agent.handler import Predicts
from ...agent.prediction import Prediction
from ...agent.result_envelope import Variant
from ...errors import RecordError
from ...model.generated import Generated
from ...model.vectors import Embedded
from ..device.observer import BatchObserver
from ..queues.reply_places import ReplyPlaces
from .model_calls import ModelCalls
from .request_checks import EngineModel
from .single_callers import Callers


class TwoVersions(Predicts, Protocol):
    """An engine that may have a candidate beside its serving version."""

    places: ReplyPlaces
    observer: BatchObserver | None

    @property
    def candidate(self) -> EngineModel | None: ...
    def find_callers(self) -> Callers: ...


class CandidateSide:
    """Answers by the candidate of an engine while one is loaded, otherwise by the serving version.

    Invariant: what the candidate does not answer, the serving version does; an answer names its version and variant, and a
    prediction also whether the candidate failed on the text.
    """

    def __init__(self, engine: TwoVersions) -> None:
        self._engine = engine

    @property
    def model(self) -> Any:
        return self._engine.model if self._engine.candidate is None else self._engine.candidate

    def on_side(self, variant: Variant) -> Predicts:
        return self if variant == "candidate" else self._engine

    def untimed(self) -> AbstractContextManager[None]:
        return self._engine.untimed()

    def _find_calls(self) -> ModelCalls | None:
        candidate = self._engine.candidate
        return None if candidate is None else _CandidateCalls(self._engine, candidate)

    async def predict(
        self,
        text: str,
        tasks: Iterable[str] | None = None,
        *,
        thresholds: Mapping[str, Any] | None = None,
        text_pair: str | None = None,
        with_vector: bool = False,
    ) -> Prediction:
        wanted = None if tasks is None else tuple(tasks)
        if (calls := self._find_calls()) is not None:
            with suppress(RecordError):
                found = await calls.predict(
                    text, wanted, thresholds=thresholds, text_pair=text_pair, with_vector=with_vector
                )
                found.candidate_failed = found.variant == "current" and self._engine.candidate is calls.model
                return found
        return await self._engine.predict(
            text, wanted, thresholds=thresholds, text_pair=text_pair, with_vector=with_vector
        )

    async def embed(self, text: str) -> Embedded:
        if (calls := self._find_calls()) is not None:
            with suppress(RecordError):
                return await calls.embed(text)
        return await self._engine.embed(text)

    async def generate(
        self,
        turns: Sequence[Utterance],
        acts: Sequence[Act],
        task: str,
        *,
        slots: Collection[str] | None = None,
        is_forbidden: Callable[[str], bool] | None = None,
        deadline: float | None = None,
    ) -> Generated:
        if (calls := self._find_calls()) is not None:
            with suppress(RecordError):
                return await calls.generate(
                    turns, acts, task, slots=slots, is_forbidden=is_forbidden, deadline=deadline
                )
        return await self._engine.generate(turns, acts, task, slots=slots, is_forbidden=is_forbidden, deadline=deadline)


class _CandidateCalls(ModelCalls):
    """The calls of an engine that its candidate answers."""

    variant: Variant = "candidate"

    def __init__(self, engine: TwoVersions, candidate: EngineModel) -> None:
        super().__init__(candidate)
        self.places, self.observer, self._engine = engine.places, engine.observer, engine

    def find_callers(self) -> Callers:
        return self._engine.find_callers()

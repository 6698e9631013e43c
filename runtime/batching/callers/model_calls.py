"""Answers single texts and words single replies by one loaded version."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from ....schemas.acts import Act, Utterance
from ....schemas.manifest import POOLED
from ...agent.prediction import Prediction
from ...agent.result_envelope import Variant
from ...errors import Closed, Late
from ...model.generated import Generated
from ...model.vectors import Embedded
from ..device.observer import BatchObserver
from ..queues.entry import Entry, ReplyRequest
from ..queues.reply_places import ReplyPlaces
from .request_checks import RequestChecks
from .single_callers import Callers


class ModelCalls(RequestChecks, ABC):
    """The calls of an engine that are answered by `model`, as `variant`. A call that its version fails on, or that has left
    the engine, is answered by the serving one, and says so.
    """

    variant: Variant = "current"
    places: ReplyPlaces
    observer: BatchObserver | None

    @abstractmethod
    def find_callers(self) -> Callers:
        """Return what hands calls to the batcher. Raises Closed when the engine is not running."""

    async def predict(
        self,
        text: str,
        tasks: Iterable[str] | None = None,
        *,
        thresholds: Mapping[str, Any] | None = None,
        text_pair: str | None = None,
        with_vector: bool = False,
    ) -> Prediction:
        """Answer one text, or two, on `tasks` (default: all that read what is given). At most `max_callers` are queued; further callers wait for
        their turn, and for a place as in `generate` where a task generates.

        `with_vector`: with the vector of the text, as `embed` returns it, from the same pass.
        Raises RecordError (see `check`), ModelFailed when the model fails on this text, Closed after `stop`.
        """
        wanted, _ = self.check_all(text, tasks, text_pair, with_vector)
        generates = not self.model.decoders.keys().isdisjoint(wanted)
        async with self.places.enter() if generates else nullcontext() as place:
            # Checked and answered by the same model, even if it is replaced before the text is encoded.
            model, (wanted, given) = self.model, self.check_all(text, tasks, text_pair, with_vector)
            callers = self.find_callers()
            entry = Entry(given, wanted, None, callers, None, thresholds, model, place=place, variant=self.variant)
            await callers.answer(entry)
        if entry.outputs is None:
            raise entry.error or Closed("stopped before the model answered")
        return self.make_prediction(entry.outputs, entry.encoded, entry.model, entry.variant)

    async def embed(self, text: str) -> Embedded:
        """Return the vector of a text (above the limit: of its beginning). Raises as `check_vector` and `predict`."""
        model, given, callers = self.model, self.check_vector(text), self.find_callers()
        entry = await callers.answer(Entry(given, (POOLED,), None, callers, None, None, model, variant=self.variant))
        if entry.outputs is None:
            raise entry.error or Closed("stopped before the model answered")
        return self.make_embedded(entry.outputs, entry.model)

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
        """Word a reply from the last turns of a conversation, the newest last, and the acts that it performs.

        `slots` are the slots that it may name; None: all of the task. `is_forbidden` says of any other piece whether it must not
        be used; its answers are remembered, so give the same function each time. `deadline` is a time of the event loop's clock, s;
        a reply that has not ended by then is dropped wherever it is. While many begin, callers wait (see `ReplyPlaces`).
        Raises Late, RecordError `unknown_task` for a task that generates nothing, ModelFailed when the model fails on this
        reply, Closed after `stop`.
        """
        request = ReplyRequest(turns, acts, None if slots is None else frozenset(slots), is_forbidden)
        try:
            async with asyncio.timeout_at(deadline) as limit, self.places.enter() as place:
                model, given, callers = self.model, self.check_reply(request, task), self.find_callers()
                entry = Entry(given, (task,), None, callers, None, None, model, request, place, self.variant)
                await callers.answer(entry)
        except TimeoutError:
            if not limit.expired():  # of something else that this request calls
                raise
            if self.observer is not None:
                self.observer.reply("late")
            raise Late("the reply was not worded by its deadline") from None
        if entry.generated is None or entry.error is not None:
            raise entry.error or Closed("stopped before the reply was worded")
        generated = entry.generated._replace(variant=entry.variant)
        return generated._replace(truncated=True, cut=True) if self.exceeds_bytes(request, task) else generated

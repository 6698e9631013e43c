"""Fakes for tests of agents: a scripted model, an engine without threads, and a clock.

engine = FakeEngine(FakeModel([INTENT], {"where is my card?": {"intent": classified("card_arrival", 0.9)}}))
prediction = await engine.predict("where is my card?")

`rehearsal.rehearse` runs a whole agent, from the request's bytes to its messages, with the same FakeModel.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any, cast

import numpy as np

from ...schemas.acts import Act, Utterance
from ...schemas.manifest import POOLED, EncoderSpec, FileEntry, ModelManifest, TaskSpec
from ..agent.prediction import Prediction
from ..agent.result_envelope import Variant
from ..batching.callers.request_checks import EngineModel, RequestChecks
from ..batching.callers.single_callers import encode
from ..batching.queues.entry import Entry, ReplyRequest
from ..errors import Closed, DeviceFailed, Late, ModelFailed
from ..model.generated import Generated
from ..model.inputs import Input, TextPair
from ..model.kinds.registry import kind_of
from ..model.texts.long_texts import Windows
from ..model.vectors import Embedded, Vectors

Output = dict[str, Any]
SPECIAL_TOKENS = 2


class ManualClock:
    """A clock that changes only by `advance`."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def classified(label: str, score: float = 1.0, *others: tuple[str, float]) -> Output:
    """Return a classification's output; `others` are the alternatives behind the winner."""
    alternatives = [{"label": name, "score": value} for name, value in ((label, score), *others)]
    return {
        "kind": "classification",
        "label": label,
        "score": score,
        "alternatives": alternatives,
        "abstained": False,
        "reason": None,
    }


def abstained(label: str, score: float, reason: str = "below_threshold") -> Output:
    """Return the output of a classification that withheld `label`."""
    return {**classified(label, score), "label": None, "abstained": True, "reason": reason}


def labelled(**scores: float) -> Output:
    """Return a multi-label output with these labels, highest first."""
    ranked = sorted(scores.items(), key=lambda item: -item[1])
    return {"kind": "multi_label", "labels": [{"label": label, "score": score} for label, score in ranked]}


def tagged(text: str, **parts: str) -> Output:
    """Return a tagging output: each keyword is a label, its value a part of `text`."""
    spans = []
    for label, part in parts.items():
        start = text.index(part)
        spans.append({"label": label, "text": part, "start": start, "end": start + len(part), "score": 1.0})
    return {"kind": "tagging", "spans": spans}


def fake_manifest(tasks: Sequence[TaskSpec], name: str = "fake", version: int = 0) -> ModelManifest:
    """Return a manifest for a model that has no files."""
    digest = sha256(name.encode()).hexdigest()
    encoder = EncoderSpec(
        source="scratch",
        sha256=digest,
        vocab_size=1,
        hidden_size=1,
        layers=1,
        heads=1,
        intermediate_size=1,
        max_positions=512,
    )
    tokenizer = FileEntry(path="tokenizer.json", role="tokenizer", sha256=digest, bytes=0)
    return ModelManifest(name=name, version=version, encoder=encoder, tasks=list(tasks), files=[tokenizer])


class FakeEncoded:
    """A text, or two, tokenised by the fake model: one token per word, and two special ones."""

    __slots__ = ("text", "tokens", "truncated")

    def __init__(self, text: Input, max_tokens: int) -> None:
        words = sum(len(part.split()) for part in ((text,) if isinstance(text, str) else text[:2]))
        self.text = text
        self.tokens = min(words + SPECIAL_TOKENS, max_tokens)
        self.truncated = words + SPECIAL_TOKENS > max_tokens


class FakeModel:
    """A scripted model: `answers` maps a text to outputs by task, or is called with it. Of two texts, `TextPair(text, second)`
    is asked, too, and goes first.

    A task without a scripted output gets its kind's: the first label, no labels, or no spans. Every batch with one of the
    `broken` texts raises ModelFailed. `batches` records the texts of every batch. With `vectors`, which maps a text to its
    vector, the model has the pooled output.
    """

    def __init__(
        self,
        tasks: Sequence[TaskSpec],
        answers: Mapping[Any, Mapping[str, Output]] | Callable[[Any], Mapping[str, Output]] | None = None,
        *,
        broken: Collection[str] = (),
        run_s: float = 0.0,
        name: str = "fake",
        version: int = 0,
        device: str = "cpu",
        vectors: Callable[[str], Vectors] | None = None,
    ) -> None:
        self.manifest = fake_manifest(tasks, name, version).model_copy(update={"pooled": vectors is not None})
        self._vectors = vectors
        self.tasks = {task.name: task for task in tasks}
        self.device = device
        self.decoders: dict[str, Any] = {}
        """None: scripted replies come with the other outputs."""
        self.broken = frozenset(broken)
        self.run_s = run_s
        self.device_works = True
        """False: every run raises DeviceFailed, and the check of the device fails."""
        self.batches: list[list[Input]] = []
        script = answers or {}
        self._answer = script if callable(script) else lambda text: script.get(text, {})

    def encode(self, texts: Sequence[Input]) -> list[FakeEncoded]:
        return [FakeEncoded(text, self.manifest.limits.max_tokens) for text in texts]

    def encode_windows(self, texts: Sequence[Input], windows: Sequence[Windows | None]) -> list[FakeEncoded]:
        """Return texts that are truncated at the total length of their windows."""
        limit = self.manifest.limits.max_tokens
        return [
            FakeEncoded(text, limit if how is None else how.most * limit)
            for text, how in zip(texts, windows, strict=True)
        ]

    def run(self, batch: Sequence[FakeEncoded]) -> list[Input]:
        """Return the texts in place of logits. Sleeps `run_s` with the GIL released, as a session does."""
        texts = [encoded.text for encoded in batch]
        self.batches.append(texts)
        if self.run_s:
            time.sleep(self.run_s)
        self.check_device()
        if not self.broken.isdisjoint(texts):
            raise ModelFailed("this text breaks the model")
        return texts

    def decode(
        self,
        logits: list[Input],
        batch: Sequence[FakeEncoded],
        texts: Sequence[Input],
        wanted: Sequence[Sequence[str]],
        thresholds: Mapping[str, Any] | None = None,
    ) -> list[dict[str, Output]]:
        return [
            {task: dict(answers[task]) if task in answers else self._default(task) for task in names}
            for answers, names in zip(map(self._find_answers, logits), wanted, strict=True)
        ]

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return the scripted vectors of texts, [n, H]. Raises ValueError without `vectors`."""
        if self._vectors is None:
            raise ValueError(f"model {self.manifest.name} has no pooled output")
        return np.stack([self._vectors(text) for text in texts])

    def _find_answers(self, given: Input) -> Mapping[str, Output]:
        if isinstance(given, str):
            pooled = {} if self._vectors is None else {POOLED: {"vector": self._vectors(given)}}
            return {**self._answer(given), **pooled}
        return {**self._answer(given.text), **self._answer(TextPair(given.text, given.second))}

    def remember(self, logits: list[Input], wanted: Sequence[Sequence[str]]) -> dict[int, dict[str, Any]]:
        """Return nothing: no reply is decoded."""
        return {}

    def check_device(self) -> None:
        """Raise DeviceFailed unless `device_works`."""
        if not self.device_works:
            raise DeviceFailed("the device does not work")

    def terminate(self, thread: int) -> None:
        """Do nothing: a scripted run ends without it."""

    def _default(self, task: str) -> Output:
        spec = self.tasks[task]
        return kind_of(spec).fake_output(spec)


class FakeEngine(RequestChecks):
    """The engine's interface without threads or calibration: each call is a batch.

    Like the engine, it delivers answers on the event loop and never inside `submit`, drops cancelled entries, and fails
    only the text that breaks the model. The tests run the same scenarios against both.
    """

    token_budget = 256
    lookahead = room = (512, 512)
    queued_tokens = 0
    queued_rows = 0
    in_flight = 0
    run_slots = 1
    calibration = None
    trouble = None

    def __init__(self, model: EngineModel) -> None:
        super().__init__(model)
        self._open = True
        self._room: list[Callable[[], None]] = []

    async def start(self) -> None:
        self._open = True

    async def stop(self, budget_s: float = 0.0) -> None:
        self._open = False
        for _ in range(2):  # submitted entries are answered in one iteration and delivered in the next
            await asyncio.sleep(0)

    def swap(self, model: EngineModel) -> None:
        self.model = model

    async def encode(
        self,
        texts: Sequence[Input],
        model: EngineModel | None = None,
        windows: Sequence[Windows | None] | None = None,
    ) -> list[Any]:
        self._refuse_closed()
        return [*encode(model or self.model, texts, windows)]

    def on_room(self, callback: Callable[[], None]) -> None:
        self._room.append(callback)

    def close_waiting(self) -> None:
        """Do nothing: no entry waits."""

    def submit(self, entries: Iterable[Entry]) -> None:
        self._refuse_closed()
        asyncio.get_running_loop().call_soon(self._answer, [*entries])

    def on_side(self, variant: Variant) -> "FakeEngine":
        """Return itself: there is no candidate."""
        return self

    async def predict(
        self,
        text: str,
        tasks: Iterable[str] | None = None,
        *,
        thresholds: Mapping[str, Any] | None = None,
        text_pair: str | None = None,
        with_vector: bool = False,
    ) -> Prediction:
        wanted, given = self.check_all(text, tasks, text_pair, with_vector)
        encoded = (await self.encode([given]))[0]
        outputs = self._outputs(given, wanted, encoded, thresholds)
        return self.make_prediction(outputs, encoded)

    async def embed(self, text: str) -> Embedded:
        given = self.check_vector(text)
        encoded = (await self.encode([given]))[0]
        return self.make_embedded(self._outputs(given, (POOLED,), encoded, None), self.model)

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
        """Return the scripted reply: the output of `task` for the pair that `format_input` makes of turns and acts; of a real
        model the one that it gives in service.

        Raises Late for a deadline that has passed.
        """
        request = ReplyRequest(turns, acts, None if slots is None else frozenset(slots), is_forbidden)
        given = self.check_reply(request, task)
        if deadline is not None and asyncio.get_running_loop().time() >= deadline:
            raise Late("the reply was not worded by its deadline")
        model = self.model.manifest.name, self.model.manifest.version
        if (real := getattr(self.model, "generate", None)) is not None:
            known = None if slots is None else {*self.model.tasks[task].generation.slots}.intersection(slots)
            (found,) = cast(list[Generated], real([given], [known], task=task, is_forbidden=is_forbidden))
            found = found._replace(model=model)
            return found._replace(truncated=True, cut=True) if self.exceeds_bytes(request, task) else found
        encoded = (await self.encode([given]))[0]
        reply = self._outputs(given, (task,), encoded, None)[task]
        words = reply["text"], (), reply["score"], reply["finish"]
        return Generated(*words, encoded.truncated, encoded.truncated, model)

    def _answer(self, entries: list[Entry]) -> None:
        answered = [entry for entry in entries if not entry.cancelled]
        for entry in answered:
            try:
                entry.outputs = self._outputs(entry.text, entry.tasks, entry.encoded, entry.thresholds, entry.model)
            except ModelFailed as error:
                entry.error = error
        loop = asyncio.get_running_loop()
        for sink in {id(entry.sink): entry.sink for entry in answered}.values():
            loop.call_soon(sink.deliver, [entry for entry in answered if entry.sink is sink])
        for callback in self._room:
            loop.call_soon(callback)

    def _outputs(
        self,
        text: Input,
        tasks: tuple[str, ...],
        encoded: Any,
        thresholds: Mapping[str, Any] | None,
        model: EngineModel | None = None,
    ) -> dict[str, Output]:
        model = model or self.model
        answers: list[dict[str, Output]] = model.decode(model.run([encoded]), [encoded], [text], [tasks], thresholds)
        return answers[0]

    def _refuse_closed(self) -> None:
        if not self._open:
            raise Closed("the engine is not running")

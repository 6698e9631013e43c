"""Selects live predictions for human review: doubtful ones up to a number per minute, and some at random.

Called once per batch: without budget at that moment a batch costs a few comparisons, whatever its size.
"""

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import msgspec

from ...schemas.envelope import (
    CE_ID,
    CE_SOURCE,
    CE_SPECVERSION,
    CE_SUBJECT,
    CE_TIME,
    CE_TYPE,
    CONTENT_TYPE,
    CONTENT_TYPE_HEADER,
    SPEC_VERSION,
    app_source,
)
from ...schemas.ids import prediction_id
from ...schemas.manifest import ModelManifest, TaskSpec
from ...schemas.review import REVIEW_TYPE, ReviewReason
from ..batching.queues.entry import Entry
from ..model.kinds.forms import AnswerForm
from ..model.kinds.registry import kind_of
from ..settings.settings import Settings
from ..wire.message import Message
from ..wire.request import Incoming
from .random_reviews import BURST_S, Drawn, RandomSample, UnitSample

_encode = msgspec.json.Encoder().encode


class TokenBucket:
    """Allows `per_minute` per minute on average and ten seconds' worth (at least one) at once. Pure."""

    def __init__(self, per_minute: float, now: float) -> None:
        self._per_s = per_minute / 60
        self._most = max(1.0, self._per_s * BURST_S)
        self._left, self._at = self._most, now

    def left(self, now: float) -> int:
        self._left = min(self._most, self._left + (now - self._at) * self._per_s)
        self._at = now
        # Rounding: sixty sixtieths may add up to slightly less than one.
        return int(self._left + 1e-9)

    def take(self, count: int) -> None:
        self._left -= count


class Doubt(NamedTuple):
    """One answer to review. `distance` is 0 for the most doubtful answer and 1 at the limit of doubt."""

    distance: float
    row: int
    task: str
    why: ReviewReason
    out_of_scope: float | None
    threshold: float | None


class _WatchedTask(NamedTuple):
    """A task that is answered with one label, and its out-of-scope label. `label` is None where the task has no such threshold."""

    task: str
    label: str | None
    threshold: float


class DoubtPolicy:
    """Finds the most doubtful answers of a batch, all of one model. Pure: reads no clock.

    An answer is doubtful when its two best labels are less than `margin` apart, or when the score of the out-of-scope
    label is less than `band` away from the threshold that withholds the answer. Both are compared as shares of their
    limit, and an answer counts once, by its most doubtful task.
    """

    def __init__(self, margin: float, band: float) -> None:
        self._margin, self._band = margin, band
        self._manifest: ModelManifest | None = None
        self._watched: dict[int, tuple[Any, list[_WatchedTask]]] = {}
        """By the `id()` of overrides, which are kept so that the id is not reused."""

    def find(self, entries: Sequence[Entry], most: int) -> list[Doubt]:
        """Return at most `most` doubts about answered entries, the most doubtful first."""
        found: list[Doubt] = []
        # Keep the manifest, not the model: a replaced model must be freed.
        if entries and entries[0].model.manifest is not self._manifest:
            self._manifest = entries[0].model.manifest
            self._watched.clear()
        watched = self._watched
        margin = self._margin
        for row, entry in enumerate(entries):
            outputs = entry.outputs
            if outputs is None:
                continue
            key = id(entry.thresholds)
            if key not in watched:
                watched[key] = entry.thresholds, _watched_tasks(entry.model.manifest.tasks, entry.thresholds)
            best: Doubt | None = None
            for task, label, threshold in watched[key][1]:
                output = outputs.get(task)
                if output is None:
                    continue
                alternatives = output["alternatives"]
                if len(alternatives) > 1:
                    apart = abs(alternatives[0]["score"] - alternatives[1]["score"])
                    if apart < margin and (best is None or apart / margin < best.distance):
                        best = Doubt(apart / margin, row, task, ReviewReason.MARGIN, None, None)
                if label is not None:
                    best = self._near(row, task, label, threshold, alternatives, best)
            if best is not None:
                found.append(best)
        found.sort()
        return found[:most]

    def _near(
        self, row: int, task: str, label: str, threshold: float, alternatives: list[dict[str, Any]], best: Doubt | None
    ) -> Doubt | None:
        # A label that is not among the best three is far from any useful threshold.
        for alternative in alternatives:
            if alternative["label"] == label:
                score = alternative["score"]
                distance = abs(score - threshold) / self._band
                if distance < 1 and (best is None or distance < best.distance):
                    return Doubt(distance, row, task, ReviewReason.OUT_OF_SCOPE, score, threshold)
        return best


def _watched_tasks(tasks: Iterable[TaskSpec], overrides: Mapping[str, Any] | None) -> list[_WatchedTask]:
    watched = []
    for spec in tasks:
        if kind_of(spec).form is AnswerForm.LABEL:
            threshold = (overrides or {}).get(spec.name, spec.thresholds).out_of_scope
            decides = spec.out_of_scope if threshold is not None else None
            watched.append(_WatchedTask(spec.name, decides, threshold or 0.0))
    return watched


class Reviews:
    """Makes review requests of doubtful and of random answers, within their budgets. One per process."""

    def __init__(
        self,
        topic: str,
        app: str,
        *,
        per_minute: float,
        margin: float,
        band: float,
        random_per_minute: float = 0.0,
        random_share: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        draw: random.Random | None = None,
    ) -> None:
        self.topic = topic
        self._policy = DoubtPolicy(margin, band)
        self._bucket = TokenBucket(per_minute, clock()) if per_minute else None
        self._sample = RandomSample(random_per_minute, clock(), draw or random.Random()) if random_per_minute else None
        self._units = UnitSample(random_share) if random_share else None
        self._clock = clock
        self._headers = [
            (CE_SPECVERSION, SPEC_VERSION.encode()),
            (CE_TYPE, REVIEW_TYPE.encode()),
            (CE_SOURCE, app_source(app).encode()),
            (CONTENT_TYPE_HEADER, CONTENT_TYPE.encode()),
        ]

    @classmethod
    def from_settings(cls, settings: Settings) -> Self | None:
        """Return the reviews that the settings ask for; None when they ask for none."""
        wanted = settings.reviews
        if not wanted.are_sent:
            return None
        return cls(
            f"{settings.prefix}.reviews",
            settings.app,
            per_minute=wanted.per_minute,
            margin=wanted.margin,
            band=wanted.out_of_scope_band,
            random_per_minute=wanted.random_per_minute,
            random_share=wanted.random_share,
        )

    def pick(self, entries: Sequence[Entry]) -> list[Doubt | Drawn]:
        """Return what the budgets allow of a batch, and spend them: what is drawn, then doubts about other answers."""
        now = self._clock()
        drawn = self._draw(entries, now)
        left = self._bucket.left(now) if self._bucket is not None else 0
        if not left or self._bucket is None:
            return drawn
        asked = {(each.row, each.task) for each in drawn}
        doubts = [each for each in self._policy.find(entries, left) if (each.row, each.task) not in asked]
        self._bucket.take(len(doubts))
        return [*drawn, *doubts]

    def _draw(self, entries: Sequence[Entry], now: float) -> list[Doubt | Drawn]:
        """Return what is drawn: units of an experiment, and of records that belong to none so many a minute."""
        rows: Sequence[int] = range(len(entries))
        drawn: list[Doubt | Drawn] = []
        if self._units is not None:
            found, rows = self._units.take(entries)
            drawn += found
        if self._sample is not None:
            others = self._sample.take([entries[row] for row in rows], now)
            drawn += [each._replace(row=rows[each.row]) for each in others]
        return drawn

    def message(self, picked: Doubt | Drawn, entry: Entry, agent: str, request: Incoming, at: str) -> Message:
        """Build the record. A test compares the dict with `schemas.review`."""
        assert entry.outputs is not None
        output, manifest = entry.outputs[picked.task], entry.model.manifest
        review_id = prediction_id(agent, request.source, request.request_id)
        # A kind that answers more than one label has no best ones.
        alternatives: list[dict[str, Any]] = output.get("alternatives") or [{}]
        first, *others = alternatives
        doubt, drawn = (picked, None) if isinstance(picked, Doubt) else (None, picked)
        value = {
            "prediction_id": review_id,
            "agent": agent,
            "task": picked.task,
            "why": picked.why.value,
            "model": {"name": manifest.name, "version": manifest.version},
            "source": {
                "topic": request.topic,
                "partition": request.partition,
                "offset": request.offset,
                "timestamp": request.timestamp,
            },
            "predicted": first.get("label"),
            "score": output.get("score"),
            "margin": round(abs(first["score"] - others[0]["score"]), 7) if others else None,
            "out_of_scope": doubt.out_of_scope if doubt else None,
            "threshold": doubt.threshold if doubt else None,
            "sampling_rate": drawn.rate if drawn else None,
            "experiment": drawn.experiment if drawn else None,
            "at": at,
        }
        key = review_id.encode()
        headers = [*self._headers, (CE_ID, key), (CE_SUBJECT, request.request_id.encode()), (CE_TIME, at.encode())]
        return Message(self.topic, _encode(value), key, headers)

"""Screens of the console without a broker: their indexes are filled by hand."""

import json
from collections import Counter
from dataclasses import astuple, replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from review_items import make_task

from murmura.agents.classification import agent as classification
from murmura.console.dead_letters.index import DeadLetterIndex
from murmura.console.dead_letters.job import Plan, Progress, Redrives
from murmura.console.dead_letters.screen import DeadLetterScreen
from murmura.console.experiments.index import ExperimentIndex
from murmura.console.experiments.screen import ExperimentScreen
from murmura.console.experiments.shadow_index import ShadowIndex
from murmura.console.experiments.shadow_page import ShadowPage
from murmura.console.live.drawn import DrawnAnswers
from murmura.console.live.index import LiveIndex
from murmura.console.live.screen import LiveScreen
from murmura.console.live.texts import RequestTexts
from murmura.console.overview.figures import AgentFigures
from murmura.console.overview.process_metrics import MetricsReader, ProcessMetrics, ServedModel
from murmura.console.overview.screen import OverviewScreen
from murmura.console.reading.follower import Follower
from murmura.console.review.desk import ReviewDesk
from murmura.console.review.queue import ReviewQueue
from murmura.console.review.requests import Found
from murmura.console.review.screen import Facts, ReviewScreen
from murmura.console.trying.asking import Asking
from murmura.console.trying.screen import TryScreen
from murmura.console.versions.changes import ReleaseChanges
from murmura.console.versions.index import VersionIndex
from murmura.console.versions.screen import VersionScreen
from murmura.console.web.application import make_application
from murmura.console.web.pages import Pages
from murmura.runtime.experiments.sums import sum_units
from murmura.runtime.redrive.rules import Refusal, Tally
from murmura.runtime.settings.settings import Settings
from murmura.schemas.dialogue import Reply
from murmura.schemas.experiment import Experiment
from murmura.schemas.experiment_state import ExperimentState
from murmura.schemas.release import released
from murmura.schemas.training_event import TrainingEvent

AT = datetime(2026, 1, 2, tzinfo=UTC)
FIGURE = {"current": 0.81, "candidate": 0.84, "difference": 0.03, "low": 0.01, "high": 0.05, "allowance": 0.01}


def experiment_state(**fields: Any) -> ExperimentState:
    """Of 2,000 units a side the candidate is right in 90 %, the current version in 80 %."""

    def sums(right: int, wrong: int) -> list[float]:
        return [float(value) for value in astuple(sum_units([(1.0, 1.0)] * right + [(0.0, 1.0)] * wrong))]

    return ExperimentState.model_validate(
        {
            "experiment": Experiment(id="desk-3", share=0.5, started=AT),
            "model": "desk",
            "current": 2,
            "candidate": 3,
            "minute": int(AT.timestamp()) // 60 + 90,
            "units": {"control": 2000, "candidate": 2000},
            "expected": 2000,
            "variance": 1000,
            "sums": {
                "agreement": {"control": sums(1600, 400), "candidate": sums(1800, 200)},
                "withheld/intent": {"control": sums(100, 1900), "candidate": sums(400, 1600)},
            },
            "skipped": {"unexposed": 7},
            "answers": {"control": 2100, "candidate": 2000},
            "scores": {"intent": {"control": {"9": 3, "18": 7}, "candidate": {"19": 10}}},
            "latency": {"control": {"20": 2000}, "candidate": {"22": 2000}},
            "decided": [{"action": "promote", "why": "agreement is better", "at": AT.isoformat()}],
            **fields,
        }
    )


def shadow_records(name: str = "desk", candidate: int = 3, after: str = "praise") -> list[SimpleNamespace]:
    """Counts of a minute, and one difference."""
    model = {"name": name, "current": 2, "candidate": candidate}
    minute = {"since": AT.isoformat(), "until": AT.isoformat(), "tasks": {"intent": {"compared": 30, "agreed": 29}}}
    records = {"answered": 100, "chosen": 40, "compared": 30, "agreed": 29, "dropped": 8, "too_long": 2, "failed": 0}
    answers = {"current": {"answer": "refund", "labels": []}, "candidate": {"answer": after, "labels": []}}
    source = {"topic": "in", "partition": 0, "offset": 1, "timestamp": 1}
    asked = {"request_id": "r", "predictions": {}, "source": source, "time": AT.isoformat()}
    values = (
        {"kind": "counts", "model": model, "instance": "a", **minute, **records},
        {"kind": "difference", "model": model, **asked, "tasks": {"intent": {"agrees": False, **answers}}},
    )
    return [SimpleNamespace(key=None, value=json.dumps(value).encode()) for value in values]


class Requests:
    """Finds the texts that it was given, by offset."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.reads = 0

    async def find_requests(self, sources: Any) -> Found:
        self.reads += 1
        found = Found()
        for each in sources:
            if each.offset < len(self.texts):
                text = self.texts[each.offset]
                request = SimpleNamespace(text=text, text_pair=None, timestamp=each.timestamp)
                found.requests[each.topic, each.partition, each.offset] = request
        return found


def result(offset: int, at_ms: int, outputs: dict | None = None, **fields: Any) -> SimpleNamespace:
    """A record with a result, which took 40 ms."""
    answers = outputs or {"intent": {"kind": "classification", "label": "refund", "score": 0.9, "alternatives": []}}
    value = {
        "prediction_id": f"{offset:032x}",
        "request_id": f"r-{offset}",
        "agent": "desk",
        "model": {"name": "desk", "version": 2},
        "source": {"topic": "in", "partition": 0, "offset": offset, "timestamp": at_ms - 40},
        "outputs": answers,
    }
    return SimpleNamespace(timestamp=at_ms, value=json.dumps(value | fields).encode(), key=None)


def reply(offset: int, at_ms: int, text: str = "Which card is it?", **fields: Any) -> SimpleNamespace:
    """A record with a reply to a turn, as the dialogue agent publishes it."""
    value = Reply(
        request_id=f"t-{offset}",
        prediction_id=f"{offset:032x}",
        agent="dialogue",
        conversation="c-1",
        number=1,
        kind="asked",
        text=text,
        acts=[{"act": "request", "slot": "card"}],
        model=fields.pop("model", {"name": "desk", "version": 2}),
        source={"topic": "turns", "partition": 0, "offset": offset, "timestamp": at_ms - 60},
        **fields,
    )
    return SimpleNamespace(timestamp=at_ms, value=value.model_dump_json().encode(), key=b"c-1")


class CountedRedrives(Redrives):
    """What would be sent again is not read from a broker."""

    async def preview(self, plan: Plan) -> Tally:
        return Tally(chosen=5, before=1, refused=Counter({Refusal.UNKNOWN_AGENT: 1}))


class ByHand:
    """All screens, with their indexes and settings. `sections` are those of the settings."""

    def __init__(self, texts: list[str] | None = None, **sections: Any) -> None:
        settings = self.settings = Settings(**sections)
        self.drawn = DrawnAnswers()
        self.live, self.figures, self.versions = LiveIndex(drawn=self.drawn), AgentFigures(), VersionIndex()
        self.experiments, self.shadows = ExperimentIndex(), ShadowIndex()
        self.requests = Requests(texts or [])
        self.queue = ReviewQueue(0.0)
        self.metrics = MetricsReader(())
        self.reviews = SimpleNamespace(queue=self.queue, tasks={"intent": make_task()}, judges_of=lambda item: {})
        follower = self.follower = Follower(settings.kafka, [])
        self.letters, self.redrives = DeadLetterIndex(100, 1_000_000), CountedRedrives(settings, list)
        self.asking = Asking(settings, [replace(classification, name="desk", topics=("in",), output="out")], self.live)
        follower.caught_up.set()
        screens: list = []
        pages = Pages(screens, settings.console.masked)
        screens += [
            ReviewScreen(ReviewDesk(self.queue), pages, Facts).screen(),
            OverviewScreen(settings, [], self.figures, self.metrics, follower, pages).screen(),
            LiveScreen(self.live, RequestTexts(self.requests), self.reviews, follower, pages).screen(),
            TryScreen(self.asking, follower, pages).screen(),
            VersionScreen(
                settings, self.versions, self.figures, self.metrics, ReleaseChanges(settings), follower, pages
            ).screen(),
        ]
        screens.append(DeadLetterScreen(settings, self.letters, follower, self.redrives, pages).screen())
        shadow_page = ShadowPage(self.shadows, "shadow", follower, pages)
        screens.append(
            ExperimentScreen(self.experiments, self.versions, "experiments", follower, pages, shadow_page).screen()
        )
        self.application = make_application(screens, pages, settings.console)

    def take(self, *records: SimpleNamespace) -> None:
        self.live.take(records)
        self.figures.take_results(records)

    def fill(self, now_ms: int) -> "ByHand":
        """Put something of everything into the indexes."""
        spans = {"kind": "tagging", "spans": [{"label": "city", "text": "Rome", "start": 3, "end": 7, "score": 0.9}]}
        withheld = {"label": None, "score": 0.3, "abstained": True, "reason": "below_threshold"}
        guess = {"alternatives": [{"label": "loan", "score": 0.3}]}
        self.redrives.latest = Progress("ann <b>", now_ms / 1000, sent=2)
        self.live.take_replies([reply(1000, now_ms - 10_000)])
        self.take(
            result(0, now_ms - 9000, {"intent": {"kind": "classification", **withheld, **guess}, "slots": spans}),
            result(1, now_ms - 6000, model={"name": "desk", "version": 3, "variant": "candidate"}),
            result(2, now_ms - 3000),
        )
        first = released(None, "desk", 1, "0" * 64, by="ann", why="the first", at=AT)
        second = released(first, "desk", 2, "1" * 64, by="bob", why="has seen the new product", at=AT)
        state = json.loads(second.model_dump_json()) | {"candidate": {"version": 3, "digest": "2" * 64, "shadow": 0.05}}
        self.versions.take_releases([SimpleNamespace(key=b"desk", value=json.dumps(state).encode())])
        other = released(None, "other", 1, "0" * 64, by="ann", why="", at=AT)
        self.versions.note_release(other)
        swapped = {"event": "model.swapped", "name": "desk", "version": 2, "previous": 1}
        event = {**swapped, "app": "a", "instance": "a-7f", "at": AT.isoformat()}
        self.versions.take_events([SimpleNamespace(value=json.dumps(event).encode())])
        rows = [{"task": "intent", "set": "test", "rows": 1200, "verdict": "better", **FIGURE}]
        gate = TrainingEvent(event="gate.passed", run="run-7", name="desk", gate=rows, version=2, at=AT)
        self.versions.take_training([SimpleNamespace(value=gate.model_dump_json().encode())])
        kept = experiment_state().model_dump_json().encode()
        self.experiments.take([SimpleNamespace(key=b"desk-3#state", value=kept)])
        self.shadows.take(shadow_records())
        model = ServedModel("http://10.0.0.1:9464/metrics", "desk", "2", "cpu")
        self.metrics.latest = ProcessMetrics({"in": 500}, frozenset(["desk"]), frozenset(["desk"]), ("b",), (model,))
        return self

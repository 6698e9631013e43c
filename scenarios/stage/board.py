"""State of the learning demo's screen: stages, figures before and after, and latencies. Pure."""

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from ...schemas.serving_event import ServingEvent, ServingEventKind
from ...schemas.training_event import GateFigure, TrainingEvent, TrainingEventKind
from .desk import Message


class Stage(Enum):
    """The stages in order; the value is the title on the screen."""

    ANSWER = "the desk answers"
    BEFORE = "asked before"
    CORRECT = "people correct"
    RETRAIN = "retraining beside the traffic"
    GATE = "old against new"
    SWAP = "the new version goes live"
    AFTER = "asked again"


class Phase(Enum):
    """The period of an answer, for the latency table. Answers of other periods (bursts of questions) are not counted."""

    USUAL = "before"
    TRAINING = "while it trains"
    SWAP = "around the swap"


class State(Enum):
    WAITING = " "
    RUNNING = "●"
    DONE = "✓"
    FAILED = "✗"


@dataclass(slots=True)
class Step:
    state: State = State.WAITING
    detail: str = ""
    began: float = 0.0
    took_s: float | None = None


@dataclass(slots=True)
class Figure:
    """One task on one set of messages, as served; `gate` has the gate's figure on the same rows."""

    rows: int
    before: float | None = None
    after: float | None = None
    gate: GateFigure | None = None

    def note(self, share: float, *, after: bool) -> None:
        if after:
            self.after = share
        else:
            self.before = share

    @property
    def latest(self) -> float:
        return self.after if self.after is not None else self.before or 0.0


PERCENTILE: Final = 0.99


@dataclass
class Board:
    """Collects what happens; the caller passes the time."""

    steps: dict[Stage, Step] = field(default_factory=lambda: {stage: Step() for stage in Stage})
    figures: dict[tuple[str, str], Figure] = field(default_factory=dict)
    latencies: dict[Phase, list[float]] = field(default_factory=lambda: defaultdict(list))
    phase: Phase | None = None
    version: int = 0
    """The serving version."""
    swapped: bool = False
    failed: str | None = None
    on_change: Callable[[Stage, Step], None] = lambda stage, step: None
    """Called when a stage starts or ends."""
    on_detail: Callable[[Stage, Step], None] = lambda stage, step: None
    """Called when the detail of a running stage changes."""

    @property
    def complete(self) -> bool:
        return all(step.state is State.DONE for step in self.steps.values())

    def begin(self, stage: Stage, now: float, detail: str = "") -> None:
        self.steps[stage] = Step(State.RUNNING, detail, now)
        self.on_change(stage, self.steps[stage])

    def report(self, stage: Stage, detail: str) -> None:
        self.steps[stage].detail = detail
        self.on_detail(stage, self.steps[stage])

    def end(self, stage: Stage, now: float, detail: str | None = None) -> None:
        step = self.steps[stage]
        step.state, step.took_s = State.DONE, now - step.began
        step.detail = step.detail if detail is None else detail
        self.on_change(stage, step)

    def fail(self, why: str) -> None:
        """Mark the running stage as failed."""
        self.failed = why
        for step in self.steps.values():
            if step.state is State.RUNNING:
                step.state, step.detail = State.FAILED, why

    def add_latency(self, message: Message) -> None:
        """Add the latency of an answered message."""
        if self.phase is not None and message.dead is None and message.latency_s is not None:
            self.latencies[self.phase].append(message.latency_s)

    def read_process_line(self, line: str) -> None:
        """Show a line of `murmura retrain`."""
        if self.steps[Stage.RETRAIN].state is State.RUNNING:
            self.report(Stage.RETRAIN, line)

    def read_training_event(self, value: bytes, now: float) -> None:
        """Update the stages from a record of `murmura.training`."""
        event = TrainingEvent.model_validate_json(value)
        match event.event:
            case TrainingEventKind.PROGRESS:
                losses = ", ".join(f"{task} {loss:.2f}" for task, loss in event.loss.items())
                self.report(Stage.RETRAIN, f"batch {event.step} of {event.steps}; loss {losses}")
            case TrainingEventKind.EVALUATED:
                self.end(Stage.RETRAIN, now)
                self.begin(Stage.GATE, now, "both versions answer the same held-out messages")
            case TrainingEventKind.GATE_PASSED | TrainingEventKind.GATE_REFUSED:
                self._show_verdict(event, now)
            case TrainingEventKind.RELEASED:
                self.report(
                    Stage.SWAP, f"version {event.version} is released: fetched, proven, warmed up beside the old one"
                )

    def _show_verdict(self, event: TrainingEvent, now: float) -> None:
        for figure in event.gate:
            if (known := self.figures.get((figure.task, figure.set))) is not None:
                known.gate = figure
        if event.event is TrainingEventKind.GATE_REFUSED:
            self.fail(f"the gate refused the new version: {event.message}")
            return
        self.end(Stage.GATE, now, f"passed: of {len(event.gate)} comparisons none is worse, the new product is better")
        self.begin(Stage.SWAP, now)
        self.phase = Phase.SWAP

    def read_serving_event(self, value: bytes, now: float) -> None:
        """Update the stages from a record of `murmura.events`."""
        event = ServingEvent.model_validate_json(value)
        if event.event is ServingEventKind.MODEL_SWAPPED:
            self.version, self.swapped = event.version or self.version, True
            self.end(Stage.SWAP, now, f"version {event.version} answers instead of {event.previous}")
        elif event.event is ServingEventKind.MODEL_REJECTED:
            self.fail(f"version {event.version} was refused: {event.message}")

    def as_json(self) -> str:
        """Return the outcome as JSON: figures as shares, latencies in seconds."""
        figures: list[dict[str, Any]] = [
            {"task": task, "set": name, "rows": each.rows, "before": each.before, "after": each.after}
            | ({"gate": each.gate.model_dump(mode="json")} if each.gate else {})
            for (task, name), each in self.figures.items()
        ]
        latencies = {phase.name.lower(): summary(found) for phase, found in self.latencies.items()}
        return json.dumps({"figures": figures, "latency_s": latencies, "failed": self.failed}, indent=2) + "\n"


def summary(latencies: list[float]) -> dict[str, float]:
    """Return number, median, 99th percentile and maximum."""
    ordered = sorted(latencies)
    at = {"p50": 0.5, "p99": PERCENTILE}
    found = {name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in at.items()}
    return {"count": len(ordered), **found, "max": ordered[-1]}
